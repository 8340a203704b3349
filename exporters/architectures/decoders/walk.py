"""One walk over a decoder's blocks, which every format follows with a builder of its own.

A residual is carried in two parts, what came in and what the last block gave, so that a format may fuse their sum with
the norm that follows.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from exporters.architectures.blocks import FeedForward, GatedFeedForward
from exporters.architectures.decoders.blocks import AnyNorm, CausalAttention, DecoderModel, RmsNorm

Value = TypeVar("Value")


class DecoderBuilder(Protocol[Value]):
    """What a format must be able to lower. Shapes: S new tokens, H hidden, V vocabulary; a batch of one, or a leading
    batch where the format has one. The KV cache is the builder's own affair: `layer` says whose."""

    def embed(self, model: DecoderModel) -> Value:
        """The new tokens' vectors (S, H), learned positions added."""

    def norm(self, hidden: Value, norm: AnyNorm) -> Value: ...

    def add_norm(self, hidden: Value, added: Value, norm: AnyNorm) -> tuple[Value, Value]:
        """The sum of two parts, and its norm."""

    def attention(self, normed: Value, attention: CausalAttention, layer: int) -> Value:
        """(S, H) -> (S, H) over the cache of the layer and the new tokens, output projection included."""

    def feed_forward(self, normed: Value, feed_forward: FeedForward | GatedFeedForward) -> Value: ...

    def asked_for(self, hidden: Value, added: Value) -> tuple[Value, Value]:
        """Both parts at the positions whose logits are wanted: the last, or all."""

    def logits(self, normed: Value, model: DecoderModel) -> None:
        """The head, its soft cap, and the output (…, V)."""


def build_decoder(model: DecoderModel, builder: DecoderBuilder[Value]) -> None:
    """Lower `model` through `builder`, tokens to logits."""
    hidden, added = builder.embed(model), None
    for index, layer in enumerate(model.layers):
        hidden, normed = _into(builder, hidden, added, layer.attention_norm)
        added = _after(builder, builder.attention(normed, layer.attention, index), layer.after_attention)
        hidden, normed = _into(builder, hidden, added, layer.feed_forward_norm)
        added = _after(builder, builder.feed_forward(normed, layer.feed_forward), layer.after_feed_forward)
    assert added is not None  # a decoder without layers is refused when it is described
    _, normed = builder.add_norm(*builder.asked_for(hidden, added), model.final_norm)
    builder.logits(normed, model)


def _into(builder: DecoderBuilder[Value], hidden: Value, added: Value | None, norm: AnyNorm) -> tuple[Value, Value]:
    if added is None:
        return hidden, builder.norm(hidden, norm)
    return builder.add_norm(hidden, added, norm)


def _after(builder: DecoderBuilder[Value], value: Value, norm: RmsNorm | None) -> Value:
    return builder.norm(value, norm) if norm else value
