"""From what was found to a PyTorch model in float32, adapters merged, and the folder of its small files."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from exporters.progress import Watch
from exporters.sources.adapters import Adapter
from exporters.sources.conv1d import as_linear_layers
from exporters.sources.folder import read_optional
from exporters.sources.found import Found
from exporters.sources.gguf.small_files import write_small_files
from exporters.sources.gguf.weights import load_weights
from exporters.sources.merging import check_fits, merge
from exporters.sources.quiet import quiet
from exporters.spec import GENERATION
from mobile_llm.errors import UnsupportedModel

_SMALL = (".json", ".jinja", ".md", ".txt")
# What an adapter's folder may bring of its own: how it was trained to be asked, and what made it.
_OF_ADAPTERS = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "finetune.json")


def gather_small_files(found: Found, folder: Path) -> None:
    """Write to `folder` all files of a Hugging Face folder but the weights: the model's own, what a GGUF file says
    where it has none, and over them the adapters'. Raises InvalidInput, UnsupportedModel."""
    for path in [*found.folder.glob("*"), *found.folder.glob("*/*.json")] if found.folder else ():
        if path.is_file() and (path.suffix in _SMALL or path.name in ("LICENSE", "NOTICE")):
            _copy(path, folder / path.relative_to(found.folder or folder))
    if found.gguf:
        write_small_files(found.gguf, folder)
    for adapter in found.adapters:
        _take_over(adapter, folder)


def load(found: Found, folder: Path, task: str, watch: Watch) -> Any:
    """The model in eval mode; `folder` is that of its small files. Raises UnsupportedModel, InvalidInput."""
    loader, config = _loader(task), _config(folder)
    for adapter in found.adapters:
        watch(f"comparing {adapter.id} with the model's layers")
        check_fits(adapter, partial(loader.from_config, config))
    if found.gguf:
        model = load_weights(found.gguf, config, folder, watch)
    else:
        model = _load_folder(found, config, loader, task)
    for adapter in found.adapters:
        watch(f"merging {adapter.id}")
        model = merge(model, adapter)
    return as_linear_layers(model).eval() if task == GENERATION else model.eval()


def _loader(task: str) -> Any:
    from optimum.exporters.tasks import TasksManager

    return TasksManager.get_model_class_for_task(task, framework="pt")


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    try:
        with quiet():
            return AutoConfig.from_pretrained(folder, local_files_only=True)
    except (ValueError, KeyError, OSError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UnsupportedModel(f"transformers cannot read {folder / 'config.json'}: {reason}") from None


def _load_folder(found: Found, config: Any, loader: Any, task: str) -> Any:
    """A head that neither the checkpoint nor an adapter has is refused: its weights would be random."""
    import torch

    brought = {name for adapter in found.adapters for name in adapter.saved_whole}
    try:
        with quiet():
            model, info = loader.from_pretrained(
                found.folder,
                config=config,
                dtype=torch.float32,
                attn_implementation="eager",
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=bool(brought),
            )
    except (ValueError, KeyError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UnsupportedModel(f"transformers cannot load {found.folder} for {task}: {reason}") from None
    untrained = {*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])} - brought
    missing = sorted(key for key in untrained if task != "feature-extraction" or "pooler" not in key)
    if missing:
        raise UnsupportedModel(
            f"{found.folder} has no trained weights for {task} ({missing[0]} is missing); fine-tune it first: "
            f"mobile-llm finetune {found.folder} --task {task} --data train.csv -o DIR"
        )
    return model


def _take_over(adapter: Adapter, folder: Path) -> None:
    """An adapter's labels, and the files that go with how it was trained."""
    for name in _OF_ADAPTERS:
        if (adapter.folder / name).is_file():
            _copy(adapter.folder / name, folder / name)
    if adapter.label_settings:
        config = _config(folder)
        config.update(adapter.label_settings)
        written = {**read_optional(folder / "config.json"), **_labels(config)}
        (folder / "config.json").write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


def _labels(config: Any) -> dict[str, Any]:
    names = ("id2label", "label2id", "problem_type", "text_pairs")
    return {name: getattr(config, name) for name in names if getattr(config, name, None) is not None}


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
