"""A decoder in integers by calibration, and which of its layers a budget leaves in 8 bits rather than 4.

A layer's worth in 8 bits is what its 4 cost: half the sum, over outputs, of their mean squared gradient times the mean
square of their error, an estimate of how far the model's distribution moves. Layers are promoted by worth per byte.
Not covered: errors of several layers that add up or cancel, what is left of the error in 8 bits, the table of words.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from exporters.architectures.blocks import weights_of
from exporters.architectures.decoders.blocks import DecoderModel
from exporters.architectures.weights import Quantized, Weight
from exporters.progress import Watch, counted, silent
from exporters.quantization.gptq import quantize_group, weighted_error
from exporters.quantization.hessians import Hessians, inputs_of
from exporters.quantization.integers import placed, to_int8

_APART = 10_000  # bytes; a layer unlike those that share its input is stored apart from them, and files align it


def by_calibration(
    blocks: DecoderModel, rounded: DecoderModel, hessians: Hessians, watch: Watch = silent
) -> DecoderModel:
    """`rounded`, which is `blocks` in integers, with other ones by calibration, and in 4 bits other scales."""
    stored = weights_of(rounded)
    found: dict[str, Quantized] = {}
    for group in counted([*inputs_of(blocks), (blocks.head.weight,)], watch, "rounding layers"):
        values = {weight.name: weight.float32() for weight in group}
        found |= quantize_group(values, stored, hessians.inputs[group[0].name])
    return placed(rounded, found)


def widening(blocks: DecoderModel, coarse: DecoderModel, hessians: Hessians) -> Callable[[float], DecoderModel]:
    """By a number of bytes of weights (see `stored_bytes`): `coarse`, calibrated from `blocks`, with as many layers in
    8 bits as that much more room allows, those first that are worth most per byte."""
    exact, narrow, wide = weights_of(blocks), weights_of(coarse), weights_of(to_int8(blocks))
    names = [name for name in hessians.outputs if _bytes(wide[name]) > _bytes(narrow[name])]
    costs = {name: _bytes(wide[name]) - _bytes(narrow[name]) + _APART for name in names}
    worth = {name: _worth(exact[name], narrow[name], hessians) / costs[name] for name in names}
    ranked = sorted(worth, key=lambda name: -worth[name])

    def within(room: float) -> DecoderModel:
        chosen: dict[str, Quantized] = {}
        for name in ranked:
            quantized = wide[name].quantized
            if quantized and costs[name] <= room:
                chosen[name] = quantized
                room -= costs[name]
        return placed(coarse, chosen)

    return within


def stored_bytes(model: DecoderModel) -> int:
    """What the weights take, each stored once: scales in float16, what is not integers in float32."""
    return sum(_bytes(weight) for weight in weights_of(model).values())


def _bytes(weight: Weight) -> int:
    quantized, size = weight.quantized, int(np.prod(weight.shape))
    return size * quantized.bits // 8 + 2 * quantized.scale.size if quantized else 4 * size


def _worth(exact: Weight, narrow: Weight, hessians: Hessians) -> float:
    errors = weighted_error(exact.float32() - narrow.float32(), hessians.inputs[exact.name])
    return float(hessians.outputs[exact.name] @ errors) / 2
