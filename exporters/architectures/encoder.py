"""The encoder family: one walk over the blocks, which every format follows with a builder of its own.

A builder turns blocks into nodes of its format and hands back its own kind of value; the walk only says what
comes after what. Attention masks are 1 for real tokens and 0 for padding, which stands at the end.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from exporters.architectures.blocks import (
    Activation,
    Attention,
    Classifier,
    Embeddings,
    EncoderModel,
    FeedForward,
    GatedFeedForward,
    Linear,
    Norm,
    Pooling,
    PostNormLayer,
    PreNormLayer,
)

Value = TypeVar("Value")


class EncoderBuilder(Protocol[Value]):
    """What a format must be able to lower. Shapes: B batch, S sequence, H hidden."""

    def input(self, name: str) -> Value:
        """An integer input (B, S)."""

    def output(self, name: str, value: Value) -> None: ...

    def embed(self, embeddings: Embeddings, ids: Value, token_types: Value | None) -> Value:
        """Sum of the tables' rows, normalized and projected: (B, S) -> (B, S, H)."""

    def attention_mask(self, mask: Value) -> Value:
        """The mask (B, S) in the form in which this format's attention wants it."""

    def attention(self, hidden: Value, attention: Attention, mask: Value) -> Value:
        """(B, S, H) -> (B, S, H), output projection included."""

    def feed_forward(self, hidden: Value, feed_forward: FeedForward | GatedFeedForward) -> Value: ...

    def add(self, hidden: Value, residual: Value) -> Value: ...

    def norm(self, hidden: Value, norm: Norm) -> Value: ...

    def first_token(self, hidden: Value) -> Value:
        """(B, S, H) -> (B, H)."""

    def linear(self, hidden: Value, linear: Linear) -> Value: ...

    def activation(self, hidden: Value, kind: Activation) -> Value: ...

    def pool(self, hidden: Value, mask: Value, pooling: Pooling) -> Value:
        """(B, S, H) and the integer mask (B, S) -> (B, H)."""


def build_encoder(model: EncoderModel, builder: EncoderBuilder[Value]) -> None:
    """Lower `model` through `builder`, inputs to outputs."""
    inputs = {name: builder.input(name) for name in model.inputs}
    integer_mask = inputs["attention_mask"]
    mask = builder.attention_mask(integer_mask)
    hidden = builder.embed(model.embeddings, inputs["input_ids"], inputs.get("token_type_ids"))
    for layer in model.layers:
        build = _post_norm if isinstance(layer, PostNormLayer) else _pre_norm
        hidden = build(builder, hidden, mask, layer)  # type: ignore[arg-type]
    if model.final_norm:
        hidden = builder.norm(hidden, model.final_norm)
    if isinstance(model.head, Pooling):
        builder.output("last_hidden_state", hidden)
        builder.output("sentence_embedding", builder.pool(hidden, integer_mask, model.head))
    else:
        builder.output("logits", _classify(builder, hidden, integer_mask, model.head))


def _post_norm(builder: EncoderBuilder[Value], hidden: Value, mask: Value, layer: PostNormLayer) -> Value:
    attended = builder.attention(hidden, layer.attention, mask)
    hidden = builder.norm(builder.add(attended, hidden), layer.attention_norm)
    expanded = builder.feed_forward(hidden, layer.feed_forward)
    return builder.norm(builder.add(expanded, hidden), layer.feed_forward_norm)


def _pre_norm(builder: EncoderBuilder[Value], hidden: Value, mask: Value, layer: PreNormLayer) -> Value:
    normed = builder.norm(hidden, layer.attention_norm) if layer.attention_norm else hidden
    hidden = builder.add(builder.attention(normed, layer.attention, mask), hidden)
    normed = builder.norm(hidden, layer.feed_forward_norm)
    return builder.add(builder.feed_forward(normed, layer.feed_forward), hidden)


def _classify(builder: EncoderBuilder[Value], hidden: Value, mask: Value, head: Classifier) -> Value:
    if head.of == "first":
        hidden = builder.first_token(hidden)
    elif head.of == "mean":
        hidden = builder.pool(hidden, mask, Pooling("mean", normalize=False))
    if head.dense:
        hidden = builder.linear(hidden, head.dense)
    if head.activation:
        hidden = builder.activation(hidden, head.activation)
    if head.norm:
        hidden = builder.norm(hidden, head.norm)
    return builder.linear(hidden, head.output)
