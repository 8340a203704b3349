"""Weights to integers, once, for all formats: int8, symmetric, one scale per output channel.

Embedding tables are quantized per row by the same rule, since a row is what a lookup returns. Biases, norms
and tables of positions and token types stay in float: they are small and their rounding is not.
int4 for models that write: symmetric in blocks of 32 along a row, or of 64, with tables and heads in int8 or in blocks.
Its integers begin at -8: from -7, both ends alike, the perplexity of SmolLM2-135M with its dimensions permuted, rounded
to nearest, is 1.326 times the float model's in ONNX; from -8 it is 1.292 times.
Not covered here: calibration (see `calibrated.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from exporters.architectures.blocks import Embeddings, EncoderModel, Linear, map_blocks
from exporters.architectures.decoders.blocks import DecoderModel
from exporters.architectures.weights import Quantized, Weight

Model = TypeVar("Model", EncoderModel, DecoderModel)
BLOCK, WIDE_BLOCK = 32, 64
OF_4 = (-8, 7)  # the least and the largest integer of 4 bits
SMALLEST_SCALE = np.float16(2.0**-24)  # the smallest number float16 can hold


def quantize_per_channel(values: np.ndarray) -> Quantized:
    """int8 of a float32 matrix (out, in); scale (out, 1), rounded up to a float16 so that no value clips."""
    largest = np.abs(values).max(axis=1, keepdims=True).astype(np.float64) / 127
    scale = largest.astype(np.float16)
    scale = np.where(scale.astype(np.float64) < largest, np.nextafter(scale, np.float16(np.inf)), scale)
    scale = np.maximum(scale, SMALLEST_SCALE).astype(np.float32)
    return Quantized(np.rint(values / scale).astype(np.int8), scale, bits=8)


def to_int8(model: Model) -> Model:
    """The same blocks with the weights of every linear layer and the word table in int8."""

    def change(block: Any) -> Any:
        if isinstance(block, Linear):
            return replace(block, weight=_int8(block.weight))
        if isinstance(block, Embeddings):
            return replace(block, words=_int8(block.words), projection=map_blocks(block.projection, change))
        return block

    return _with_words(model, map_blocks(model, change), _int8)


def to_int4(model: Model) -> Model:
    """The same decoder with linear layers in 4 bits, but for the head and the table of words, and for layers whose
    rows do not divide into blocks: these are in 8."""
    return _to_int4(model, partial(_int4, block=BLOCK), _int8)


def to_int4_throughout(model: Model, block: int = BLOCK) -> Model:
    """The same with the head and the table of words in 4 bits too. Rows that do not divide into blocks of this size
    have those of 32."""
    rounded = partial(_int4, block=block)
    return _to_int4(model, rounded, rounded)


def _to_int4(model: Model, of_layers: Callable[[Weight], Weight], of_words: Callable[[Weight], Weight]) -> Model:
    head = model.head.weight.name if isinstance(model, DecoderModel) else None

    def change(block: Any) -> Any:
        if not isinstance(block, Linear):
            return block
        weight = block.weight
        return replace(block, weight=of_words(weight) if weight.name == head else of_layers(weight))

    return _with_words(model, map_blocks(model, change), of_words)


def _with_words(model: Model, changed: Model, of_words: Callable[[Weight], Weight]) -> Model:
    """A decoder's table in integers too: the head's own, where it is tied."""
    if not isinstance(model, DecoderModel) or not isinstance(changed, DecoderModel):
        return changed
    return replace(changed, words=changed.head.weight if model.tied else of_words(model.words))


def to_float16(model: Model) -> Model:
    """The same blocks with every weight that is not integers stored in float16."""

    def change(block: Any) -> Any:
        if isinstance(block, Weight) and not block.quantized:
            return replace(block, value=block.float32().astype(np.float16))
        return block

    return map_blocks(model, change)


def quantize_in_blocks(values: np.ndarray, block: int = BLOCK) -> Quantized:
    """int4 of a float32 matrix (out, in) rounded to nearest; scale (out, in // block), exact in float16."""
    rows, width = values.shape
    parts = values.reshape(rows, width // block, block)
    scale = np.maximum(unclipped_scale(parts).astype(np.float16), SMALLEST_SCALE).astype(np.float32)
    integers = np.clip(np.rint(parts / scale[..., None]), *OF_4).astype(np.int8)
    return Quantized(integers.reshape(rows, width), scale, bits=4)


def unclipped_scale(parts: np.ndarray) -> np.ndarray:
    """The smallest scale at which all of a block, the last axis, is within 4 bits."""
    least, largest = OF_4
    scale: np.ndarray = np.maximum(parts.max(axis=-1) / largest, parts.min(axis=-1) / least)
    return scale


def placed(model: DecoderModel, values: Mapping[str, Quantized]) -> DecoderModel:
    """The same blocks with these integers as the weights of linear layers, by name; a tied table with its head."""

    def change(block: Any) -> Any:
        if isinstance(block, Linear) and block.weight.name in values:
            return replace(block, weight=replace(block.weight, value=values[block.weight.name]))
        return block

    changed = map_blocks(model, change)
    return replace(changed, words=changed.head.weight) if model.tied else changed


def _int4(weight: Weight, block: int) -> Weight:
    width = weight.shape[1]
    if width % BLOCK:
        return _int8(weight)
    return replace(weight, value=quantize_in_blocks(weight.float32(), BLOCK if width % block else block))


def _int8(weight: Weight) -> Weight:
    return replace(weight, value=quantize_per_channel(weight.float32()))
