"""The files of a Hugging Face folder: found, all there, and whole before a framework opens them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mobile_llm.bundle.codec import read_json
from mobile_llm.errors import InvalidInput, ModelNotFound
from mobile_llm.tasks.tokenization import read_tokenizer


def find_folder(model: str) -> Path:
    """The folder of a model (downloaded, for a hub id) with all it needs. Raises ModelNotFound for
    one that is not there, InvalidInput for one that was cut or damaged."""
    folder = _locate(model)
    _require_files(folder)
    _require_whole(folder)
    return folder


def read_optional(path: Path) -> Any:
    """A JSON file of the folder, {} where there is none. Raises InvalidInput for what is not JSON."""
    return read_json(path) if path.is_file() else {}


def licence_of(folder: Path) -> str | None:
    """What the model card states."""
    return _front_matter(folder / "README.md", "license")


def _front_matter(readme: Path, key: str) -> str | None:
    """A scalar of a model card's YAML header."""
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    header = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    found = re.search(rf"^{key}:\s*(\S.*)$", header.group(1), re.MULTILINE) if header else None
    return found.group(1).strip("'\" ") if found else None


def _locate(model: str) -> Path:
    folder = Path(model)
    if folder.is_dir():
        return folder
    if folder.exists() or model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise ModelNotFound(f"{model} is not a folder; pass a Hugging Face model folder or a hub id (owner/name)")
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(model, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model", "*.md"]))
    except (OSError, ValueError, ImportError) as error:  # the hub's errors are of these kinds
        raise ModelNotFound(
            f"{model} is no folder, and the hub does not give it ({type(error).__name__}); pass a local folder"
        ) from None


def _require_files(folder: Path) -> None:
    if (folder / "adapter_config.json").is_file():
        raise ModelNotFound(f"{folder} holds an adapter; pass the model that it was made for")
    if not (folder / "config.json").is_file():
        raise ModelNotFound(f"{folder} has no config.json; pass a Hugging Face model folder")
    if not weight_files(folder):
        pickled = next(folder.glob("*.bin"), None)
        why = f" ({pickled.name} is pickled and is not opened: convert it to safetensors)" if pickled else ""
        raise ModelNotFound(f"{folder} has no *.safetensors weights{why}")
    if not (folder / "tokenizer.json").is_file():
        raise ModelNotFound(f"{folder} has no tokenizer.json; save the fast tokenizer beside the weights")


def weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _require_whole(folder: Path) -> None:
    """A download that stopped half-way is named here, file and all; transformers would speak of something else."""
    try:
        read_json(folder / "config.json")
        read_tokenizer(folder / "tokenizer.json")
    except InvalidInput as error:
        raise InvalidInput(f"{folder}: {error}; fetch the model again") from None
    for path in weight_files(folder):
        refuse_damaged(path)


def refuse_damaged(path: Path) -> None:
    """Raises InvalidInput for a safetensors file that is not whole."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            pass
    except SafetensorError as error:
        raise InvalidInput(f"{path} is damaged or cut short ({error}); fetch it again") from None
