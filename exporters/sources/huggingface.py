"""A transformers model that walked in, with its tokenizer and what its small files say; sentence-transformers'
modules.json too.

Not covered: pickled weights (they could run code; convert them to safetensors), slow-only tokenizers without
a tokenizer.json, `trust_remote_code`.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from exporters.architectures.blocks import Pooling
from exporters.progress import Watch, silent
from exporters.sources.folder import read_optional
from exporters.sources.found import Found, find_model
from exporters.sources.loading import gather_small_files, load
from exporters.sources.quiet import quiet
from exporters.spec import GENERATION
from mobile_llm.errors import UnsupportedModel
from mobile_llm.problem_types import REGRESSION, SINGLE_LABEL


@dataclass(frozen=True)
class HuggingFaceSource:
    """A model that walked in: `model` is the PyTorch module in float32 and eval mode, the reference of every
    comparison; with `text_pairs` it takes pairs of texts. `folder` holds the small files."""

    folder: Path
    found: Found
    task: str
    model: Any
    pooling: Pooling | None
    text_pairs: bool = False

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
    def problem_type(self) -> str | None:
        """What the logits of a text classifier mean; unsaid by the config it is as transformers trains the head."""
        if self.task != "text-classification":
            return None
        return self.config.problem_type or (REGRESSION if self.config.num_labels == 1 else SINGLE_LABEL)

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @cached_property
    def tokenizer(self) -> Any:
        """The reference tokenizer, by transformers."""
        return load_tokenizer(self.folder)

    @property
    def token_types(self) -> bool:
        """Whether transformers feeds the model the tokenizer's token types; they are 0 elsewhere."""
        return "token_type_ids" in self.tokenizer.model_input_names

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


def open_source(
    model: str,
    task: str,
    pooling: Pooling | None = None,
    text_pairs: bool = False,
    adapters: Sequence[str] = (),
    watch: Watch = silent,
) -> HuggingFaceSource:
    """Load `model` (a folder, a hub id, a GGUF file) for a task, with `adapters` merged into it; `text_pairs` says that
    it takes pairs where its config does not.

    Raises ModelNotFound for what is missing, InvalidInput for what is damaged or does not fit, UnsupportedModel for
    what this version cannot take.
    """
    found = find_model(model, task, adapters)
    if found.folder and not found.gguf and not found.adapters:
        return _open(found, found.folder, task, pooling, text_pairs, watch)
    folder = Path(tempfile.mkdtemp(prefix="mobile-llm-"))
    removal = weakref.finalize(found, shutil.rmtree, folder, ignore_errors=True)
    try:
        gather_small_files(found, folder)
        return _open(found, folder, task, pooling, text_pairs, watch)
    except BaseException:
        removal()
        raise


def _open(
    found: Found, folder: Path, task: str, pooling: Pooling | None, text_pairs: bool, watch: Watch
) -> HuggingFaceSource:
    if task == "feature-extraction":
        pooling = pooling or _read_pooling(folder)
    loaded = load(found, folder, task, watch)
    pairs = task == "text-classification" and (text_pairs or _made_for_pairs(folder, loaded.config))
    source = HuggingFaceSource(folder, found, task, loaded, pooling, pairs)
    _check_head(source)
    return source


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer as transformers has it."""
    from transformers import AutoTokenizer

    with quiet():
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _made_for_pairs(folder: Path, config: Any) -> bool:
    """Whether a folder says that texts come in pairs: our fine-tuning writes `text_pairs`, and a cross-encoder of
    sentence-transformers, by the marks of its versions, takes nothing else."""
    if getattr(config, "text_pairs", False) is True or hasattr(config, "sbert_ce_default_activation_function"):
        return True
    marks = getattr(config, "sentence_transformers", None)
    own = read_optional(folder / "config_sentence_transformers.json")
    return (isinstance(marks, dict) and "activation_fn" in marks) or own.get("model_type") == "CrossEncoder"


def _check_head(source: HuggingFaceSource) -> None:
    """Raises UnsupportedModel for a head that would be run otherwise than transformers runs it."""
    if source.problem_type == REGRESSION and source.config.num_labels != 1:
        raise UnsupportedModel(
            f"{source.folder} regresses to {source.config.num_labels} numbers, and one is covered; if they are labels, "
            "correct problem_type in its config.json"
        )
    if source.text_pairs:
        _check_types(source)


def _check_types(source: HuggingFaceSource) -> None:
    """The model must have a row for each token type that it is fed."""
    rows = getattr(source.config, "type_vocab_size", 0)
    highest = max(source.tokenizer(["a"], ["a"], return_token_type_ids=True)["token_type_ids"][0])
    if rows and source.token_types and highest >= rows:
        raise UnsupportedModel(
            f"the tokenizer of {source.folder} gives the second text of a pair the token type {highest}, and the model "
            f"has rows for {rows}; save the tokenizer that it was trained with beside it"
        )


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
