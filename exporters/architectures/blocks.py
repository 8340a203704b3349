"""The blocks that models are described by. An architecture fills them from a checkpoint, `quantization`
replaces their weights, and each format lowers them into its own best layout.

Blocks are data: no block knows a framework, and two formats given the same blocks hold the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar

from exporters.architectures.weights import Weight

Activation = Literal["gelu", "gelu_tanh", "relu", "silu", "tanh"]
PoolingMode = Literal["mean", "cls", "max"]
Block = TypeVar("Block")


@dataclass(frozen=True)
class Linear:
    """`x @ weight.T + bias`; weight (out, in), bias (out,)."""

    weight: Weight
    bias: Weight | None = None


@dataclass(frozen=True)
class Norm:
    """Layer normalization over the last dimension; weight and bias (hidden,). Ba et al., arXiv:1607.06450."""

    weight: Weight
    bias: Weight | None
    eps: float


@dataclass(frozen=True)
class Attention:
    """Bidirectional multi-head attention; scores are scaled by head_dim ** -0.5."""

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    heads: int
    head_dim: int


@dataclass(frozen=True)
class FeedForward:
    up: Linear
    activation: Activation
    down: Linear


@dataclass(frozen=True)
class EncoderLayer:
    """A post-norm layer: each norm is applied to the sum of the block's input and output."""

    attention: Attention
    attention_norm: Norm
    feed_forward: FeedForward
    feed_forward_norm: Norm


@dataclass(frozen=True)
class Embeddings:
    """Tables (rows, hidden). Token `t` at position `p` takes row `p + position_offset` of `positions`."""

    words: Weight
    positions: Weight
    token_types: Weight | None
    norm: Norm
    position_offset: int = 0


@dataclass(frozen=True)
class Pooling:
    """Hidden states (batch, sequence, hidden) to one vector (batch, hidden); padding is left out."""

    mode: PoolingMode
    normalize: bool


@dataclass(frozen=True)
class Classifier:
    """The first token's vector through `dense` and `activation`, then to one logit per label."""

    dense: Linear
    activation: Activation
    output: Linear


@dataclass(frozen=True)
class EncoderModel:
    """A whole encoder with its head. Inputs are integer tensors (batch, sequence), named as in the checkpoint.

    Outputs: a Classifier gives `logits` (batch, labels); a Pooling gives `sentence_embedding` (batch, hidden)
    and `last_hidden_state` (batch, sequence, hidden), of which a format may leave out the latter.
    """

    inputs: tuple[str, ...]
    embeddings: Embeddings
    layers: tuple[EncoderLayer, ...]
    head: Classifier | Pooling
    max_length: int

    @property
    def hidden(self) -> int:
        return self.embeddings.words.shape[1]


def map_blocks(block: Block, change: Callable[[Any], Any]) -> Block:
    """Rebuild a tree of blocks: `change` sees each dataclass and tuple member, and returns it or its
    replacement. What it replaces is not entered."""
    changed = change(block)
    if changed is not block or isinstance(block, Weight):
        return changed
    if isinstance(block, tuple):
        return tuple(map_blocks(member, change) for member in block)  # type: ignore[return-value]
    if is_dataclass(block) and not isinstance(block, type):
        parts = {f.name: map_blocks(getattr(block, f.name), change) for f in fields(block)}
        return replace(block, **parts)
    return block


def weights_of(block: object) -> dict[str, Weight]:
    """Every weight in a tree of blocks, by name, in the order of the fields."""
    found: dict[str, Weight] = {}

    def note(part: Any) -> Any:
        if isinstance(part, Weight):
            found[part.name] = part
        return part

    map_blocks(block, note)
    return found
