"""Export a model into a verified bundle.

    exporters.export("minilm-sentiment", task="text-classification", output="bundle")

One import is cheap; torch and the formats' packages are loaded when `export` runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exporters.pipeline import ExportResult


def export(
    model: str | Path,
    task: str,
    output: str | Path,
    formats: Sequence[str] = ("onnx", "tflite", "coreml"),
    recipes: Sequence[str] = ("fp32", "int8"),
    pooling: str | None = None,
    normalize: bool = False,
    eval_data: str | None = None,
    force: bool = False,
    strict: bool = False,
    text_input: bool = False,
) -> ExportResult:
    """Export `model` (a Hugging Face folder or hub id) and return what was measured.

    Args:
        task: "text-classification" or "feature-extraction".
        pooling: "mean", "cls" or "max" instead of what the model's modules.json says; with `normalize` the
            vector has length 1.
        eval_data: labelled rows (a file or `package:` source) on which every artifact's accuracy is compared.
        force: replace an existing bundle once the new one has passed.
        strict: treat what could not be checked as a failure.
        text_input: beside each ONNX artifact one that takes strings, its tokenizer inside ("onnx/int8-text").

    Raises InvalidSpec, ModelNotFound, UnsupportedModel, OutputExists, VerificationFailed.
    """
    from exporters.architectures.blocks import Pooling
    from exporters.pipeline import run_export
    from exporters.spec import ExportSpec, pooling_mode

    chosen = Pooling(pooling_mode(pooling), normalize) if pooling else None
    spec = ExportSpec(
        str(model), task, Path(output), tuple(formats), tuple(recipes), chosen, eval_data,
        force=force, strict=strict, text_input=text_input,
    )  # fmt: skip
    return run_export(spec)


__all__ = ["export"]
