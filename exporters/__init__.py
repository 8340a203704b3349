"""Export a model into a verified bundle.

    exporters.export("minilm-sentiment", task="text-classification", output="bundle")
    exporters.export(module, example_inputs=torch.rand(2, 300), output="bundle")

One import is cheap; torch and the formats' packages are loaded when `export` runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exporters.result import ExportResult


def export(
    model: Any,
    task: str | None = None,
    output: str | Path | None = None,
    formats: Sequence[str] = ("onnx", "tflite", "coreml"),
    recipes: Sequence[str] = ("fp32", "int8"),
    pooling: str | None = None,
    normalize: bool = False,
    eval_data: str | None = None,
    text_pairs: bool = False,
    force: bool = False,
    strict: bool = False,
    text_input: bool = False,
    context: int | None = None,
    calibration: str | Path | None = None,
    max_size: float | None = None,
    max_kl: float | None = None,
    neural_engine: bool = False,
    example_inputs: Any = None,
    adapter: str | Path | Sequence[str | Path] = (),
) -> ExportResult:
    """Export `model` (a Hugging Face folder or hub id, a GGUF file, a torch module, a Keras model) and return what
    was measured.

    Args:
        task: "text-classification", "token-classification", "feature-extraction" or "text-generation"; for a module
            or a Keras model "tensor", and left out.
        output: the bundle's folder; it has to be given.
        pooling: "mean", "cls" or "max" instead of what the model's modules.json says; with `normalize` the
            vector has length 1.
        eval_data: labelled rows (a file or `package:` source) on which every artifact's accuracy (F1, correlation) is
            compared.
        text_pairs: the model takes pairs of texts, where its config does not say so.
        force: replace an existing bundle once the new one has passed.
        strict: treat what could not be checked as a failure.
        text_input: beside each ONNX artifact one that takes strings, its tokenizer inside ("onnx/int8-text").
        context: of a model that writes, the most tokens that prompt and answer have together; by default 2048, or
            the model's own limit where that is smaller.
        calibration: of a model that writes, a text file (UTF-8, some thousand tokens) by which int4 is computed;
            without it weights are rounded to nearest.
        max_size: with a calibration, the MB that an int4 artifact may take: layers that need it most get 8 bits until
            it is reached; where the table of words does not fit in 8 bits, it has 4 too.
        max_kl: the same down to a divergence from the model, in nats per token: that of the weights, measured on the
            calibration text.
        neural_engine: of a model that writes, beside each Core ML artifact but fp32 one of fixed lengths for the Neural
            Engine ("coreml/int8-ane").
        example_inputs: of a module or a Keras model: a tensor, several in order, or a mapping of names to tensors.
        adapter: a folder of a LoRA adapter, or several, which are merged into the model in their order.

    Raises InvalidSpec, InvalidInput, ModelNotFound, UnsupportedModel, OutputExists, VerificationFailed.
    """
    from exporters.modules.spec import TASK, is_module
    from mobile_llm.errors import InvalidSpec

    if output is None:
        raise InvalidSpec("output has to be given: the folder that the bundle is written to")
    if is_module(model):
        of_texts = (pooling, normalize, eval_data, text_pairs, calibration, max_size, max_kl, adapter)
        if task not in (None, TASK) or any(of_texts):
            raise InvalidSpec(
                "a model in memory takes and gives tensors: leave out task, pooling, eval_data, text_pairs, "
                "calibration, max_size, max_kl and adapter"
            )
        if neural_engine:
            raise InvalidSpec("artifacts of their own for the Neural Engine are of models that write; leave them out")
        return _export_module(model, example_inputs, Path(output), formats, recipes, force, strict)
    if task is None or example_inputs is not None or not isinstance(model, (str, Path)):
        raise InvalidSpec(
            "a model folder or hub id (a string) needs a task and no example_inputs; example_inputs go with a "
            f"torch.nn.Module or a Keras model, and this is a {type(model).__name__}"
        )
    from exporters.architectures.blocks import Pooling
    from exporters.pipeline import run_export
    from exporters.spec import ExportSpec, pooling_mode

    chosen = Pooling(pooling_mode(pooling), normalize) if pooling else None
    spec = ExportSpec(
        str(model), task, Path(output), tuple(formats), tuple(recipes), chosen, eval_data,
        text_pairs=text_pairs, force=force, strict=strict, text_input=text_input, context=context,
        calibration=None if calibration is None else str(calibration), max_size=max_size, max_kl=max_kl,
        adapters=(str(adapter),) if isinstance(adapter, (str, Path)) else tuple(map(str, adapter)),
        neural_engine=neural_engine,
    )  # fmt: skip
    return run_export(spec)


def _export_module(
    model: Any,
    example_inputs: Any,
    output: Path,
    formats: Sequence[str],
    recipes: Sequence[str],
    force: bool,
    strict: bool,
) -> ExportResult:
    from exporters.modules.spec import ModuleSpec
    from exporters.pipeline import run_module_export

    spec = ModuleSpec(model, example_inputs, output, tuple(formats), tuple(recipes), force, strict)
    return run_module_export(spec)


__all__ = ["export"]
