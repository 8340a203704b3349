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
    Linear,
    Norm,
    Pooling,
)

Value = TypeVar("Value")


class EncoderBuilder(Protocol[Value]):
    """What a format must be able to lower. Shapes: B batch, S sequence, H hidden."""

    def input(self, name: str) -> Value:
        """An integer input (B, S)."""

    def output(self, name: str, value: Value) -> None: ...

    def embed(self, embeddings: Embeddings, ids: Value, token_types: Value | None) -> Value:
        """Sum of the tables' rows, normalized: (B, S) -> (B, S, H)."""

    def attention_mask(self, mask: Value) -> Value:
        """The mask (B, S) in the form in which this format's attention wants it."""

    def attention(self, hidden: Value, attention: Attention, mask: Value) -> Value:
        """(B, S, H) -> (B, S, H), output projection included."""

    def feed_forward(self, hidden: Value, feed_forward: FeedForward) -> Value: ...

    def add_norm(self, hidden: Value, residual: Value, norm: Norm) -> Value:
        """The norm of the sum of two (B, S, H)."""

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
        attended = builder.attention(hidden, layer.attention, mask)
        hidden = builder.add_norm(attended, hidden, layer.attention_norm)
        expanded = builder.feed_forward(hidden, layer.feed_forward)
        hidden = builder.add_norm(expanded, hidden, layer.feed_forward_norm)
    if isinstance(model.head, Pooling):
        builder.output("last_hidden_state", hidden)
        builder.output("sentence_embedding", builder.pool(hidden, integer_mask, model.head))
    else:
        builder.output("logits", _classify(builder, hidden, model.head))


def _classify(builder: EncoderBuilder[Value], hidden: Value, head: Classifier) -> Value:
    first = builder.linear(builder.first_token(hidden), head.dense)
    return builder.linear(builder.activation(first, head.activation), head.output)
