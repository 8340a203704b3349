"""A Hugging Face folder: config.json, safetensors weights, tokenizer; sentence-transformers' modules.json too.

Not covered: pickled weights (they could run code; convert them to safetensors), slow-only tokenizers without
a tokenizer.json, `trust_remote_code`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from exporters.architectures.blocks import Pooling
from exporters.sources.conv1d import as_linear_layers
from exporters.sources.folder import find_folder, licence_of, read_optional, weight_files
from exporters.sources.quiet import quiet
from exporters.spec import GENERATION
from mobile_llm.bundle.integrity import sha256_of
from mobile_llm.errors import UnsupportedModel


@dataclass(frozen=True)
class HuggingFaceSource:
    """A model that walked in: `model` is the PyTorch module in float32 and eval mode, the reference of every
    comparison."""

    folder: Path
    id: str
    task: str
    model: Any
    pooling: Pooling | None

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def labels(self) -> tuple[str, ...]:
        """The string of each logit; none for a model without a classification head."""
        if self.pooling is not None or self.task == GENERATION:
            return ()
        return tuple(self.config.id2label[i] for i in range(self.config.num_labels))

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @cached_property
    def tokenizer(self) -> Any:
        """The reference tokenizer, by transformers."""
        return load_tokenizer(self.folder)

    @property
    def max_length(self) -> int:
        """The longest text the model was made for, special tokens included."""
        limits = [self.config.max_position_embeddings, self.tokenizer.model_max_length]
        limits.append(read_optional(self.folder / "sentence_bert_config.json").get("max_seq_length"))
        return min(int(limit) for limit in limits if limit)

    @property
    def prompts(self) -> dict[str, str]:
        """Texts that go before a text to embed, by name ("query", "passage")."""
        return read_optional(self.folder / "config_sentence_transformers.json").get("prompts", {})

    @property
    def licence(self) -> str | None:
        return licence_of(self.folder)

    @property
    def weights_sha256(self) -> str:
        """One digest over the weight files' names and contents."""
        lines = [f"{path.name} {sha256_of(path)}\n" for path in weight_files(self.folder)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def open_source(model: str, task: str, pooling: Pooling | None = None) -> HuggingFaceSource:
    """Load `model` (a folder, or a hub id) for a task.

    Raises ModelNotFound for what is missing, InvalidInput for what is damaged, UnsupportedModel for what this
    version cannot take.
    """
    folder = find_folder(model)
    if task == "feature-extraction":
        pooling = pooling or _read_pooling(folder)
    return HuggingFaceSource(folder.absolute(), _model_id(model, folder), task, _load(folder, task), pooling)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer as transformers has it."""
    from transformers import AutoTokenizer

    with quiet():
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _load(folder: Path, task: str) -> Any:
    """The PyTorch model. A head that the checkpoint lacks is refused: its weights would be random."""
    import torch
    from optimum.exporters.tasks import TasksManager

    loader = TasksManager.get_model_class_for_task(task, framework="pt")
    try:
        with quiet():
            model, info = loader.from_pretrained(
                folder,
                dtype=torch.float32,
                attn_implementation="eager",
                local_files_only=True,
                output_loading_info=True,
            )
    except (ValueError, KeyError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UnsupportedModel(f"transformers cannot load {folder} for {task}: {reason}") from None
    missing = sorted(key for key in info["missing_keys"] if task != "feature-extraction" or "pooler" not in key)
    if missing:
        raise UnsupportedModel(
            f"{folder} has no trained weights for {task} ({missing[0]} is missing); fine-tune it first: "
            f"mobile-llm finetune {folder} --task {task} --data train.csv -o DIR"
        )
    return as_linear_layers(model).eval() if task == GENERATION else model.eval()


def _read_pooling(folder: Path) -> Pooling:
    """Pooling as sentence-transformers' modules.json has it. Raises UnsupportedModel for other modules."""
    modules = read_optional(folder / "modules.json")
    if not modules:
        raise UnsupportedModel(f"{folder} has no modules.json to say how it pools; pass --pooling mean, cls or max")
    mode, normalize = None, False
    for module in modules:
        kind = module["type"].rsplit(".", 1)[-1]
        if kind == "Pooling":
            mode = _pooling_mode(read_optional(folder / module["path"] / "config.json"))
        elif kind == "Normalize":
            normalize = True
        elif kind != "Transformer":
            raise UnsupportedModel(f"{folder}/modules.json has a module {kind}, which is not covered")
    if mode is None:
        raise UnsupportedModel(f"{folder}/modules.json names no pooling that is covered (mean, cls, max)")
    return Pooling(mode, normalize)


def _pooling_mode(config: dict[str, Any]) -> Any:
    switches = {
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_cls_token": "cls",
        "pooling_mode_max_tokens": "max",
    }
    chosen = [mode for key, mode in switches.items() if config.get(key)]
    others = [key for key, on in config.items() if key.startswith("pooling_mode_") and on is True]
    return chosen[0] if len(chosen) == len(others) == 1 else config.get("pooling_mode")


def _model_id(model: str, folder: Path) -> str:
    return model if model.count("/") == 1 and not Path(model).exists() else folder.resolve().name
