"""What inputs of products are on average, for kernels that round inputs: what is left without it is rounded finer.

Runtimes round a token's inputs with one scale, and some channels are far from zero in every token alike. Without their
means, which are added again behind the product, exactly, the range is smaller: on SmolLM2-135M with its dimensions
permuted, in TFLite's rounding, a divergence of .0103 becomes .0080 in int8, .0636 becomes .0586 in 4 bits.

Covered: the head, and what feed-forward blocks take. Not covered: attention and the layers behind gates, where nothing
is gained; weights, which stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from exporters.architectures.blocks import FeedForward, GatedFeedForward, Linear, weights_of
from exporters.architectures.decoders.blocks import DecoderLayer, DecoderModel

Means = Mapping[str, np.ndarray]


def as_if_centered(blocks: DecoderModel) -> DecoderModel:
    """Blocks that take as much in a file as `centered` ones, before any mean is known. No two stand-ins are equal: of
    equal ones a file holds one."""
    matrices = [weight for weight in weights_of(blocks).values() if len(weight.shape) == 2]
    return centered(blocks, {w.name: np.full(w.shape[1], 1 + place, np.float32) for place, w in enumerate(matrices)})


def centered(blocks: DecoderModel, means: Means) -> DecoderModel:
    """The same blocks, whose layers know the means of their inputs, float32 (in,) by the weight's name."""

    def of_layer(layer: DecoderLayer) -> DecoderLayer:
        return replace(layer, feed_forward=_centered(layer.feed_forward, means))

    layers = tuple(map(of_layer, blocks.layers))
    return replace(blocks, layers=layers, head=_at_mean(blocks.head, means))


def _centered(forward: FeedForward | GatedFeedForward, means: Means) -> FeedForward | GatedFeedForward:
    first: dict[str, Any] = {"up": _at_mean(forward.up, means)}
    if isinstance(forward, GatedFeedForward):
        first["gate"] = _at_mean(forward.gate, means)
    return replace(forward, **first)


def _at_mean(linear: Linear, means: Means) -> Linear:
    return replace(linear, center=means[linear.weight.name])
