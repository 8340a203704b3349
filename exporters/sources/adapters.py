"""LoRA adapters as peft saves them (Hu et al., arXiv:2106.09685): a folder with adapter_config.json and
adapter_model.safetensors. Read here are settings and headers; `merging` looks at the model.

Covered: LoRA, rank-stabilized, weight-decomposed (DoRA), and modules saved whole, such as a classifier. Not covered:
other kinds of adapters, pickled weights, adapters that change layers, vocabulary or the base's own weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from exporters.sources.folder import read_optional, refuse_damaged
from exporters.sources.headers import shapes_of
from mobile_llm.bundle.codec import read_json
from mobile_llm.bundle.integrity import sha256_of
from mobile_llm.errors import InvalidInput, ModelNotFound, UnsupportedModel

SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
_TASKS = {
    "SEQ_CLS": "text-classification",
    "TOKEN_CLS": "token-classification",
    "FEATURE_EXTRACTION": "feature-extraction",
    "CAUSAL_LM": "text-generation",
}
# Settings under which a merged base would not be the model that was trained.
_NOT_MERGEABLE = ("layer_replication", "alora_invocation_tokens", "target_parameters", "trainable_token_indices")
_PLAIN_STARTS = (None, True, False, "gaussian", "orthogonal")
_HEADS = ("classifier.out_proj.weight", "classifier.weight", "score.weight")


@dataclass(frozen=True)
class Adapter:
    """`shapes` are those of its tensors, by the names that peft gives them."""

    folder: Path
    settings: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def id(self) -> str:
        return self.folder.resolve().name

    @property
    def sha256(self) -> str:
        """Of its weights."""
        return sha256_of(self.folder / WEIGHTS)

    @property
    def saved_whole(self) -> set[str]:
        """The base's own tensors that the adapter replaces."""
        return {name.removeprefix(PREFIX) for name in self.shapes if "lora_" not in name}

    @property
    def label_settings(self) -> dict[str, Any]:
        """Of a classifier that it brings: how many labels, and what they are called where a config.json says so."""
        count = next((shape[0] for name, shape in self.shapes.items() if name.endswith(_HEADS)), None)
        if count is None:
            return {}
        stated = read_optional(self.folder / "config.json")
        named = {key: stated[key] for key in ("id2label", "label2id", "problem_type", "text_pairs") if key in stated}
        if len(named.get("id2label", ())) == count:
            return {**named, "id2label": {int(index): label for index, label in named["id2label"].items()}}
        return {"num_labels": count}


def find_adapters(folders: Sequence[str], task: str) -> tuple[Adapter, ...]:
    """Those adapters, in order. Raises ModelNotFound, InvalidInput, UnsupportedModel."""
    if folders and find_spec("peft") is None:
        raise UnsupportedModel('adapters take the package peft: pip install "mobile-llm[adapters]"')
    return tuple(_find(Path(folder), task) for folder in folders)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, and no model of its own."""
    return (folder / SETTINGS).is_file() and not (folder / "model.safetensors").is_file()


def base_of(folder: Path) -> str:
    """The folder of the model that an adapter was trained on. Raises ModelNotFound where it is not on this machine."""
    named = _settings(folder).get("base_model_name_or_path")
    if isinstance(named, str) and Path(named).exists():
        return named
    raise ModelNotFound(
        f"{folder} is an adapter for {named!r}, which is no folder here; pass the model and the adapter: "
        f"mobile-llm export MODEL --adapter {folder} …"
    )


def _find(folder: Path, task: str) -> Adapter:
    if not (folder / SETTINGS).is_file():
        raise ModelNotFound(f"{folder} has no {SETTINGS}; pass the folder that peft saved an adapter to")
    if not (folder / WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        why = " (adapter_model.bin is pickled and is not opened: convert it to safetensors)" if pickled else ""
        raise ModelNotFound(f"{folder} has no {WEIGHTS}{why}")
    settings = _settings(folder)
    _check_settings(folder, settings, task)
    refuse_damaged(folder / WEIGHTS)
    shapes = shapes_of(folder / WEIGHTS)
    stray = next((name for name in shapes if not name.startswith(PREFIX)), None)
    if stray or not shapes:
        raise InvalidInput(f"{folder / WEIGHTS} holds {stray or 'no tensor'}, so peft did not write it; save it again")
    return Adapter(folder, settings, shapes)


def _settings(folder: Path) -> dict[str, Any]:
    try:
        settings = read_json(folder / SETTINGS)
    except InvalidInput as error:
        raise InvalidInput(f"{folder}: {error}; fetch the adapter again") from None
    if not isinstance(settings, dict):
        raise InvalidInput(f"{folder / SETTINGS} is no object; fetch the adapter again")
    return settings


def _check_settings(folder: Path, settings: dict[str, Any], task: str) -> None:
    kind, made_for = settings.get("peft_type"), settings.get("task_type")
    if kind != "LORA":
        raise UnsupportedModel(f"{folder} is an adapter of the kind {kind}, and LORA is covered; merge it with peft")
    if made_for is not None and _TASKS.get(made_for) != task:
        raise InvalidInput(f"{folder} was made for {_TASKS.get(made_for, made_for)}, and the task is {task}")
    for name in _NOT_MERGEABLE:
        if settings.get(name):
            raise UnsupportedModel(f"{folder} sets {name}, which no merged model can hold; train it without")
    start = settings.get("init_lora_weights")
    if start not in _PLAIN_STARTS:
        raise UnsupportedModel(
            f"{folder} began from {start}, which changes the base's own weights; save it with "
            "path_initial_model_for_weight_conversion, which makes a plain LoRA of it"
        )
