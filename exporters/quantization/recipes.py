"""Recipes by name: what happens to the weights, and what the artifact's precision is called.

A recipe is a plain function from blocks to blocks; formats never quantize.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from exporters.architectures.blocks import EncoderModel
from exporters.quantization.activations import Rounding, per_row, per_tensor
from exporters.quantization.integers import to_float16, to_int8

Recipe = Callable[[EncoderModel], EncoderModel]


def _unchanged(model: EncoderModel) -> EncoderModel:
    return model


RECIPES: Mapping[str, Recipe] = {"fp32": _unchanged, "fp16": to_float16, "int8": to_int8}

# How each artifact's kernels round a linear layer's input; what is not listed keeps it in float.
_ROUNDING: Mapping[str, Rounding] = {"onnx/int8": per_tensor, "tflite/int8": per_row}


def activation_rounding(artifact_id: str) -> Rounding | None:
    """The rounding an artifact's twin has to do, None where activations stay in float."""
    return _ROUNDING.get(artifact_id)
