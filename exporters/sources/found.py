"""What was asked for, found and whole, before any framework is imported: what the plan is made of.

A Hugging Face folder or a hub id; a GGUF file, or a folder that holds one; LoRA adapters over either, or an adapter's
folder alone where the model that it names is on this machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporters.sources.adapters import Adapter, base_of, find_adapters, is_adapter
from exporters.sources.folder import find_folder, licence_of, read_optional, weight_files
from exporters.sources.gguf.config import check_settings, config_settings
from exporters.sources.gguf.header import Header, read_header
from exporters.sources.headers import read_shapes
from exporters.spec import GENERATION
from mobile_llm.bundle.integrity import sha256_of
from mobile_llm.errors import InvalidSpec, ModelNotFound

# A GGUF file's names of tensors that are no linear layers, as transformers has them.
_TABLES = {"token_embd.": "embed_tokens.", "position_embd.": "wpe."}


@dataclass(frozen=True)
class Found:
    """`folder` holds the small files; None for a GGUF file alone. `adapters` are merged in their order."""

    id: str
    folder: Path | None
    gguf: Header | None = None
    adapters: tuple[Adapter, ...] = ()

    @property
    def config(self) -> dict[str, Any]:
        """What config.json says, or would."""
        if self.folder and (self.folder / "config.json").is_file():
            return dict(read_optional(self.folder / "config.json"))
        return config_settings(self.gguf) if self.gguf else {}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all tensors."""
        if self.gguf is None:
            return read_shapes(self.folder) if self.folder else {}
        return {_renamed(name): tensor.shape for name, tensor in self.gguf.tensors.items()}

    @property
    def tokenizer_bytes(self) -> int:
        """About what the tokenizer's files take."""
        files = [self.folder / name for name in ("tokenizer.json", "vocab.txt")] if self.folder else []
        stated = sum(path.stat().st_size for path in files if path.is_file())
        return stated or (min(tensor.start for tensor in self.gguf.tensors.values()) if self.gguf else 0)

    @property
    def weights_sha256(self) -> str:
        """Of a GGUF file its own; else one digest over the weight files' names and contents."""
        if self.gguf:
            return sha256_of(self.gguf.path)
        files = weight_files(self.folder) if self.folder else []
        return hashlib.sha256("".join(f"{path.name} {sha256_of(path)}\n" for path in files).encode()).hexdigest()

    @property
    def licence(self) -> str | None:
        """What the model's card states, or the GGUF file."""
        stated = self.gguf.settings.get("general.license") if self.gguf else None
        return (licence_of(self.folder) if self.folder else None) or stated


def find_model(model: str, task: str, adapters: Sequence[str] = ()) -> Found:
    """Raises ModelNotFound for what is missing, InvalidInput for what is damaged, UnsupportedModel for what is not
    covered, InvalidSpec for a GGUF file and another task than writing."""
    path = Path(model)
    if is_adapter(path):
        return find_model(base_of(path), task, [model, *adapters])
    file = _gguf_at(path)
    if file is None:
        folder = find_folder(model)
        return Found(_model_id(model, folder), folder.absolute(), adapters=find_adapters(adapters, task))
    if task != GENERATION:
        raise InvalidSpec(f"{file} is a GGUF file, of which models for {GENERATION} are covered, not for {task}")
    header = read_header(file)
    check_settings(header)
    return Found(file.stem, path.absolute() if path.is_dir() else None, header, find_adapters(adapters, task))


def _gguf_at(path: Path) -> Path | None:
    """The GGUF file that a path means; None where it means something else."""
    if path.suffix == ".gguf" and not path.is_dir():
        if not path.is_file():
            raise ModelNotFound(f"{path} is not there; pass a GGUF file or a Hugging Face model folder")
        return path
    files = sorted(path.glob("*.gguf")) if path.is_dir() and not weight_files(path) else []
    if len(files) > 1:
        raise ModelNotFound(f"{path} holds {len(files)} GGUF files; name one of them, such as {files[0]}")
    return files[0] if files else None


def _renamed(name: str) -> str:
    return next((name.replace(theirs, ours) for theirs, ours in _TABLES.items() if name.startswith(theirs)), name)


def _model_id(model: str, folder: Path) -> str:
    return model if model.count("/") == 1 and not Path(model).exists() else folder.resolve().name
