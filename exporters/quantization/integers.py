"""Weights to integers, once, for all formats: int8, symmetric, one scale per output channel.

Embedding tables are quantized per row by the same rule, since a row is what a lookup returns. Biases, norms
and tables of positions and token types stay in float: they are small and their rounding is not.
Not covered here: 4 bits and calibration.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from exporters.architectures.blocks import Embeddings, EncoderModel, Linear, map_blocks
from exporters.architectures.weights import Quantized, Weight

_SMALLEST_SCALE = np.float16(2.0**-24)  # the smallest number float16 can hold


def quantize_per_channel(values: np.ndarray) -> Quantized:
    """int8 of a float32 matrix (out, in); scale (out, 1), rounded up to a float16 so that no value clips."""
    largest = np.abs(values).max(axis=1, keepdims=True).astype(np.float64) / 127
    scale = largest.astype(np.float16)
    scale = np.where(scale.astype(np.float64) < largest, np.nextafter(scale, np.float16(np.inf)), scale)
    scale = np.maximum(scale, _SMALLEST_SCALE).astype(np.float32)
    return Quantized(np.rint(values / scale).astype(np.int8), scale, bits=8)


def to_int8(model: EncoderModel) -> EncoderModel:
    """The same blocks with the weights of every linear layer and the word table in int8."""

    def change(block: Any) -> Any:
        if isinstance(block, Linear):
            return Linear(_int8(block.weight), block.bias)
        if isinstance(block, Embeddings):
            return replace(block, words=_int8(block.words), projection=map_blocks(block.projection, change))
        return block

    return map_blocks(model, change)


def to_float16(model: EncoderModel) -> EncoderModel:
    """The same blocks with every weight that is not integers stored in float16."""

    def change(block: Any) -> Any:
        if isinstance(block, Weight) and not block.quantized:
            return replace(block, value=block.float32().astype(np.float16))
        return block

    return map_blocks(model, change)


def _int8(weight: Weight) -> Weight:
    return replace(weight, value=quantize_per_channel(weight.float32()))
