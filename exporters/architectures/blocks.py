"""The blocks that models are described by. An architecture fills them from a checkpoint, `quantization`
replaces their weights, and each format lowers them into its own best layout.

Blocks are data: no block knows a framework, and two formats given the same blocks hold the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np

from exporters.architectures.weights import Weight

Activation = Literal["gelu", "gelu_tanh", "relu", "silu", "tanh"]
PoolingMode = Literal["mean", "cls", "max"]
Block = TypeVar("Block")


@dataclass(frozen=True)
class Linear:
    """`x @ weight.T + bias`; weight (out, in), bias (out,).

    `center` float32 (in,), where it is known, is what inputs are on average. A kernel that rounds inputs rounds less of
    them without it: the product is `(x - center) @ weight.T + at_center`. Where `outliers_beyond` is known, few inputs
    are further from the center, or from zero, than that, and such a kernel rounds them apart from the others.
    """

    weight: Weight
    bias: Weight | None = None
    center: np.ndarray | None = field(default=None, compare=False)
    outliers_beyond: float | None = field(default=None, compare=False)

    @cached_property
    def at_center(self) -> np.ndarray:
        """What the center gives, bias included, float32 (out,)."""
        if self.center is None:
            raise ValueError(f"{self.weight.name} knows no center")
        given = self.weight.times(self.center)
        return given + self.bias.float32() if self.bias else given


@dataclass(frozen=True)
class Norm:
    """Layer normalization over the last dimension; weight and bias (hidden,). Ba et al., arXiv:1607.06450."""

    weight: Weight
    bias: Weight | None
    eps: float


@dataclass(frozen=True, eq=False)
class RelativeBias:
    """A number for each head and distance, added to scores (T5, Raffel et al., arXiv:1910.10683).

    `table` (rows, heads); `rows[limit + d]` is the row for a key that stands `d` after its query, for `d` from
    -limit to limit, where `limit` is the model's longest sequence.
    """

    table: Weight
    rows: np.ndarray


@dataclass(frozen=True, eq=False)
class Disentangled:
    """Scores that also compare contents with distances (DeBERTa, He et al., arXiv:2006.03654): each query with
    `key` of the distance's vector, each key with `query` of it.

    `table` (rows, hidden) holds the vectors, normalized by `norm`; `rows[limit + d]` is the row for a query that
    stands `d` after its key.
    """

    table: Weight
    norm: Norm | None
    key: Linear | None
    query: Linear | None
    rows: np.ndarray


@dataclass(frozen=True)
class Rotary:
    """Queries and keys turned by their position, in pairs half a head apart (RoFormer, Su et al.,
    arXiv:2104.09864)."""

    theta: float


Positions = RelativeBias | Disentangled | Rotary


@dataclass(frozen=True)
class Attention:
    """Bidirectional multi-head attention. With `window` a token sees only those at most so far away."""

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    heads: int
    head_dim: int
    scale: float
    positions: Positions | None = None
    window: int | None = None


@dataclass(frozen=True)
class FeedForward:
    up: Linear
    activation: Activation
    down: Linear


@dataclass(frozen=True)
class GatedFeedForward:
    """`down(activation(gate(x)) * up(x))` (Shazeer, arXiv:2002.05202)."""

    gate: Linear
    up: Linear
    activation: Activation
    down: Linear


@dataclass(frozen=True)
class PostNormLayer:
    """Each norm is applied to the sum of its block's input and output."""

    attention: Attention
    attention_norm: Norm
    feed_forward: FeedForward
    feed_forward_norm: Norm


@dataclass(frozen=True)
class PreNormLayer:
    """Each norm is applied to its block's input, and the block's output is added to what came in."""

    attention_norm: Norm | None
    attention: Attention
    feed_forward_norm: Norm
    feed_forward: FeedForward | GatedFeedForward


@dataclass(frozen=True)
class Embeddings:
    """Tables (rows, width). Token `t` at position `p` takes row `p + position_offset` of `positions`. The sum is
    normalized, then projected to the hidden width. Without an input for token types their first row is added."""

    words: Weight
    positions: Weight | None
    token_types: Weight | None
    norm: Norm
    position_offset: int = 0
    projection: Linear | None = None


@dataclass(frozen=True)
class Pooling:
    """Hidden states (batch, sequence, hidden) to one vector (batch, hidden); padding is left out."""

    mode: PoolingMode
    normalize: bool


@dataclass(frozen=True)
class Classifier:
    """One logit per label, of the first token, of the mean of all tokens, or of each token: its vector, through
    `dense`, `activation` and `norm` where there are any, to `output`."""

    of: Literal["first", "mean", "each"]
    output: Linear
    dense: Linear | None = None
    activation: Activation | None = None
    norm: Norm | None = None

    @property
    def labels(self) -> int:
        return self.output.weight.shape[0]


@dataclass(frozen=True)
class EncoderModel:
    """A whole encoder with its head. Inputs are integer tensors (batch, sequence), named as in the checkpoint.

    Outputs: a Classifier gives `logits` (batch, labels), or (batch, sequence, labels) of each token; a Pooling gives
    `sentence_embedding` (batch, hidden) and `last_hidden_state` (batch, sequence, hidden), of which a format may
    leave out the latter.
    """

    inputs: tuple[str, ...]
    embeddings: Embeddings
    layers: tuple[PostNormLayer | PreNormLayer, ...]
    head: Classifier | Pooling
    max_length: int
    final_norm: Norm | None = None

    @property
    def hidden(self) -> int:
        return self.layers[0].attention.output.weight.shape[0]

    @property
    def outputs(self) -> dict[str, tuple[int | str, ...]]:
        """The shape of each output, "batch" and "sequence" by name."""
        if isinstance(self.head, Classifier):
            each = ("sequence",) if self.head.of == "each" else ()
            return {"logits": ("batch", *each, self.head.labels)}
        vector: dict[str, tuple[int | str, ...]] = {"sentence_embedding": ("batch", self.hidden)}
        return {"last_hidden_state": ("batch", "sequence", self.hidden), **vector}


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
