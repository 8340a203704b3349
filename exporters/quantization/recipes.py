"""Recipes by name: what happens to the weights, and what the artifact's precision is called.

A recipe is a plain function from blocks to blocks; formats never quantize.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from exporters.quantization.integers import Model, to_float16, to_int4, to_int8
from exporters.spec import recipe_of


def _unchanged(model: Model) -> Model:
    return model


Recipes = Mapping[str, Callable[[Any], Any]]
RECIPES: Recipes = {
    "fp32": _unchanged,
    "fp16": to_float16,
    "int8": to_int8,
    "int4": to_int4,
}


def as_stored(artifact_id: str, quantized: Model) -> Model:
    """The blocks of a recipe exactly as an artifact holds them. Integers are the same everywhere; what stays in
    floating point beside them is float16 where the arithmetic is."""
    in_float16 = artifact_id.startswith("coreml/") and recipe_of(artifact_id) != "fp32"
    return to_float16(quantized) if in_float16 else quantized
