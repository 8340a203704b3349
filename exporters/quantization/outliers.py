"""Where the few large inputs of products begin, for kernels that round inputs: these are rounded apart from the rest.

Runtimes round a token's inputs with one scale, which its largest numbers set. So a row becomes two, what is within a
bound and what is left beyond it, zero but for a few; the product of both with the same weights, added up, is exactly
what it was, and each is rounded with a scale of its own. (LLM.int8(), Dettmers et al., arXiv:2208.07339, takes outliers
apart by channel and leaves them in float16.) It costs a second row where these products have one.

On SmolLM2-135M with its dimensions permuted, in int8 and in TFLite's rounding, a divergence of .0070 becomes .0050 with
the layers behind gates alone, .0035 with the head too and .0028 with attention's; .0017 of it are the weights'.

Covered: what attention's projections take, what the layer at the end of feed-forward blocks takes, the head. Not
covered: the output layer of attention and the first layers of feed-forward blocks, where little is gained; 4 bits.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from exporters.architectures.blocks import Linear
from exporters.architectures.decoders.blocks import DecoderLayer, DecoderModel
from exporters.quantization.hessians import Hessians

_USUAL = 3.0  # typical deviations that the bound is away from the center


def outliers_apart(blocks: DecoderModel, hessians: Hessians) -> DecoderModel:
    """The same blocks, whose layers know where their outliers begin."""

    def bounded(linear: Linear) -> Linear:
        return replace(linear, outliers_beyond=_USUAL * _deviation(linear, hessians))

    def of_layer(layer: DecoderLayer) -> DecoderLayer:
        attention, forward = layer.attention, layer.feed_forward
        projections: dict[str, Any] = {name: bounded(getattr(attention, name)) for name in ("query", "key", "value")}
        return replace(
            layer,
            attention=replace(attention, **projections),
            feed_forward=replace(forward, down=bounded(forward.down)),
        )

    return replace(blocks, layers=tuple(map(of_layer, blocks.layers)), head=bounded(blocks.head))


def _deviation(linear: Linear, hessians: Hessians) -> float:
    """The median, over the channels of what a layer takes, of how far they are from zero, or from their center."""
    squares = np.diag(hessians.inputs[linear.weight.name])
    if linear.center is not None:
        squares = np.maximum(squares - np.square(linear.center), 0)
    return float(np.sqrt(np.median(squares)))
