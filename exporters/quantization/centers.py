"""What inputs of products are on average, for kernels that round inputs: what is left without it is rounded finer.

Runtimes round a token's inputs with one scale, and some channels are far from zero in every token alike. Without their
means, which are added again behind the product, exactly, the range is smaller: on SmolLM2-135M with its dimensions
permuted, in TFLite's rounding, a divergence of .0103 becomes .0080 in int8, .0636 becomes .0586 in 4 bits.

Covered: the head, and what feed-forward blocks take. Not covered: attention and the layers behind gates, where nothing
is gained; weights, which stay as they are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from exporters.architectures.blocks import FeedForward, GatedFeedForward, Linear
from exporters.architectures.decoders.blocks import DecoderLayer, DecoderModel
from exporters.quantization.hessians import Hessians


def centered(blocks: DecoderModel, hessians: Hessians) -> DecoderModel:
    """The same blocks, whose layers know the means of their inputs."""

    def of_layer(layer: DecoderLayer) -> DecoderLayer:
        return replace(layer, feed_forward=_centered(layer.feed_forward, hessians))

    layers = tuple(map(of_layer, blocks.layers))
    return replace(blocks, layers=layers, head=_at_mean(blocks.head, hessians))


def _centered(forward: FeedForward | GatedFeedForward, hessians: Hessians) -> FeedForward | GatedFeedForward:
    first: dict[str, Any] = {"up": _at_mean(forward.up, hessians)}
    if isinstance(forward, GatedFeedForward):
        first["gate"] = _at_mean(forward.gate, hessians)
    return replace(forward, **first)


def _at_mean(linear: Linear, hessians: Hessians) -> Linear:
    return replace(linear, center=hessians.means[linear.weight.name])
