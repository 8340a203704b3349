"""What a fine-tuning leaves: weights, tokenizer, a card with its origin and the settings that made it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from exporters.finetuning.spec import FinetuneSpec
from exporters.sources.folder import licence_of
from exporters.sources.huggingface import load_tokenizer


def save_result(model: Any, base: Path, folder: Path, spec: FinetuneSpec, figures: Mapping[str, float | None]) -> None:
    """Write a Hugging Face folder; an adapter that is not merged is saved as one, beside the config that says what its
    labels are. `figures` are the count of examples and the metric."""
    if spec.merge:
        model = model.merge_and_unload()
    elif spec.method == "lora":
        model.config.save_pretrained(folder)
    model.save_pretrained(folder, safe_serialization=True)
    load_tokenizer(base).save_pretrained(folder)
    settings = {name: value for name, value in asdict(spec).items() if name not in ("output", "resume", "force", "log")}
    (folder / "finetune.json").write_text(json.dumps({**figures, **settings}, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_card(base, spec, figures), encoding="utf-8")


def _card(base: Path, spec: FinetuneSpec, figures: Mapping[str, float | None]) -> str:
    licence = licence_of(base)
    header = [f"base_model: {base.resolve().name}", f"pipeline_tag: {spec.task}"]
    header += [f"license: {licence}"] if licence else []
    (_, examples), (metric, score) = figures.items()
    measured = f"{score:.4f} on {spec.eval_data}" if score is not None else "not measured"
    return "\n".join(
        ["---", *header, "---", f"# {base.resolve().name}, fine-tuned for {spec.task}", ""]
        + [f"{examples} rows of `{spec.data}`, {spec.method}, {spec.epochs} epochs. {metric}: {measured}.", ""]
    )
