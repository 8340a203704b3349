"""Inputs of products evened out, exactly in float, so that rounding them to 8 bits costs less.

Runtimes round a product's inputs with one scale for a token, and a few channels of a decoder are far larger than the
others: of what int8 costs SmolLM2-135M, .027 nats, all but .005 is this. So channels are divided by what they are large
by, in the norm or the layer before, and the columns of the weights behind multiplied by it (SmoothQuant, Xiao et al.,
arXiv:2211.10438). Covered: what norms give to attention and to feed-forward blocks, and what gates give to the layer
behind. Not covered: the output layer of attention, whose inputs are even, and the head. In 4 bits, what norms give is
left as it is: there the weights lose more than the inputs gain.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from exporters.architectures.blocks import GatedFeedForward, Linear, Norm
from exporters.architectures.decoders.blocks import AnyNorm, DecoderLayer, DecoderModel
from exporters.architectures.weights import Weight
from exporters.quantization.hessians import Hessians

_SHARE = 0.5  # of a channel's size that goes into the weights
_SMALLEST = 1e-6


def smoothed(blocks: DecoderModel, hessians: Hessians) -> tuple[DecoderModel, Hessians]:
    """The same function in float, for 8 bits, and what calibration would have found of it."""
    known = hessians
    for several in (list(group.values()) for layer in blocks.layers for group in _taking_norms(layer)):
        known = _divided_inputs(known, _sizes(hessians, *several), *several)
    layers = tuple(_behind_norms(layer, hessians) for layer in blocks.layers)
    return smoothed_behind_gates(replace(blocks, layers=layers), known)


def smoothed_behind_gates(blocks: DecoderModel, hessians: Hessians) -> tuple[DecoderModel, Hessians]:
    """The same function in float, for 4 bits, and what calibration would have found of it."""
    layers = tuple(_behind_gates(layer, hessians) for layer in blocks.layers)
    known, outputs = hessians, dict(hessians.outputs)
    for forward in (layer.feed_forward for layer in blocks.layers):
        if isinstance(forward, GatedFeedForward):
            sizes = _sizes(hessians, forward.down)
            known = _divided_inputs(known, sizes, forward.down)
            outputs[forward.up.weight.name] = outputs[forward.up.weight.name] * sizes**2
    return replace(blocks, layers=layers), replace(known, outputs=outputs)


def _divided_inputs(hessians: Hessians, sizes: np.ndarray, *linears: Linear) -> Hessians:
    """What is known of inputs that these layers share, once their channels are divided."""
    name = linears[0].weight.name
    moments, mean = hessians.inputs[name] / np.outer(sizes, sizes), hessians.means[name] / sizes
    names = [linear.weight.name for linear in linears]
    inputs, means = dict.fromkeys(names, moments), dict.fromkeys(names, mean)
    return replace(hessians, inputs={**hessians.inputs, **inputs}, means={**hessians.means, **means})


def _taking_norms(layer: DecoderLayer) -> tuple[dict[str, Linear], dict[str, Linear]]:
    """What takes the norm of attention, and what that of the feed-forward block, by the names of their fields."""
    attention, forward = layer.attention, layer.feed_forward
    gate = {"gate": forward.gate} if isinstance(forward, GatedFeedForward) else {}
    return {"query": attention.query, "key": attention.key, "value": attention.value}, {"up": forward.up, **gate}


def _behind_norms(layer: DecoderLayer, hessians: Hessians) -> DecoderLayer:
    of_attention, of_forward = _taking_norms(layer)
    sizes, forward_sizes = (_sizes(hessians, *several.values()) for several in (of_attention, of_forward))
    projections: dict[str, Any] = {name: _behind(linear, sizes) for name, linear in of_attention.items()}
    first: dict[str, Any] = {name: _behind(linear, forward_sizes) for name, linear in of_forward.items()}
    return replace(
        layer,
        attention_norm=_divided(layer.attention_norm, sizes),
        attention=replace(layer.attention, **projections),
        feed_forward_norm=_divided(layer.feed_forward_norm, forward_sizes),
        feed_forward=replace(layer.feed_forward, **first),
    )


def _behind_gates(layer: DecoderLayer, hessians: Hessians) -> DecoderLayer:
    forward = layer.feed_forward
    if not isinstance(forward, GatedFeedForward):
        return layer
    sizes = _sizes(hessians, forward.down)
    return replace(
        layer, feed_forward=replace(forward, up=_before(forward.up, sizes), down=_behind(forward.down, sizes))
    )


def _sizes(hessians: Hessians, *linears: Linear) -> np.ndarray:
    """Of the channels of what these layers take, float32 (in,): by so much they are divided. The geometric mean is
    1."""
    inputs = np.sqrt(np.diag(hessians.inputs[linears[0].weight.name]))
    weights = np.max([np.abs(linear.weight.float32()).max(axis=0) for linear in linears], axis=0)
    logs = _SHARE * np.log(np.maximum(inputs, _SMALLEST)) - (1 - _SHARE) * np.log(np.maximum(weights, _SMALLEST))
    sizes: np.ndarray = np.exp(logs - logs.mean()).astype(np.float32)
    return sizes


def _behind(linear: Linear, sizes: np.ndarray) -> Linear:
    """What takes the input once its channels are divided."""
    return replace(linear, weight=_changed(linear.weight, linear.weight.float32() * sizes))


def _before(linear: Linear, sizes: np.ndarray) -> Linear:
    """What divides its own outputs."""
    bias = _changed(linear.bias, linear.bias.float32() / sizes) if linear.bias else None
    return replace(linear, weight=_changed(linear.weight, linear.weight.float32() / sizes[:, None]), bias=bias)


def _divided(norm: AnyNorm, sizes: np.ndarray) -> AnyNorm:
    if isinstance(norm, Norm):
        bias = _changed(norm.bias, norm.bias.float32() / sizes) if norm.bias else None
        return replace(norm, weight=_changed(norm.weight, norm.weight.float32() / sizes), bias=bias)
    return replace(norm, weight=_changed(norm.weight, norm.gain() / sizes - np.float32(norm.offset)))


def _changed(weight: Weight, values: np.ndarray) -> Weight:
    return replace(weight, value=values.astype(np.float32))
