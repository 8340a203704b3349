"""The blocks of the decoder family: causal transformers that predict the next token.

Covered: pre-norm layers (with norms after their blocks too, as Gemma has), grouped queries, biases, norms of queries
and keys, rotary or learned positions, sliding windows, soft caps, gated and plain feed-forward blocks, tied heads.
Not covered: mixtures of experts, layers that share a cache, ALiBi, positions whose frequencies depend on the length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exporters.architectures.blocks import FeedForward, GatedFeedForward, Linear, Norm
from exporters.architectures.weights import Weight


@dataclass(frozen=True)
class RmsNorm:
    """`x / sqrt(mean(x^2) + eps) * (weight + offset)` over the last dimension; weight (width,). Zhang and Sennrich,
    arXiv:1910.07467. Gemma's weights count from 1: its `offset`."""

    weight: Weight
    eps: float
    offset: float = 0.0

    def gain(self) -> np.ndarray:
        """What is multiplied by, float32 (width,)."""
        return self.weight.float32() + np.float32(self.offset)


AnyNorm = Norm | RmsNorm


@dataclass(frozen=True, eq=False)
class Rope:
    """Queries and keys turned by their position, in pairs half of the turned width apart (RoFormer, Su et al.,
    arXiv:2104.09864). `frequencies` float32 (turned / 2,), in radians per position; the first `turned` numbers of a
    head are turned, and the cosines and sines are multiplied by `scaling`."""

    frequencies: np.ndarray
    scaling: float = 1.0

    @property
    def turned(self) -> int:
        return 2 * len(self.frequencies)

    def tables(self, positions: int) -> tuple[np.ndarray, np.ndarray]:
        """Cosines and sines, float32 (positions, turned / 2)."""
        angles = np.arange(positions, dtype=np.float32)[:, None] * self.frequencies
        return np.cos(angles) * np.float32(self.scaling), np.sin(angles) * np.float32(self.scaling)


@dataclass(frozen=True)
class CausalAttention:
    """A token sees itself and those before it, with `window` only the last so many, itself included. Each of the
    `kv_heads` serves heads / kv_heads queries (Ainslie et al., arXiv:2305.13245). Scores are `scale` * q·k, then
    with `soft_cap` c: c * tanh(scores / c). Norms of queries and keys are per head, before positions."""

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    rope: Rope | None = None
    query_norm: RmsNorm | None = None
    key_norm: RmsNorm | None = None
    window: int | None = None
    soft_cap: float | None = None


@dataclass(frozen=True)
class DecoderLayer:
    """Each norm is applied to its block's input, where there is an `after` norm to its output too; what comes out is
    added to what came in."""

    attention_norm: AnyNorm
    attention: CausalAttention
    feed_forward_norm: AnyNorm
    feed_forward: FeedForward | GatedFeedForward
    after_attention: RmsNorm | None = None
    after_feed_forward: RmsNorm | None = None


@dataclass(frozen=True)
class DecoderModel:
    """A whole decoder. Token `t` at position `p` begins as `words[t] * embedding_scale`, plus row
    `p + position_offset` of `positions` where they are learned. `head` gives a logit per token of the vocabulary; the
    weight of a tied head is `words` itself, by name. `context` is the most tokens it was made for. `level` is about
    where the likeliest token's logit lies, for formats whose numbers are the coarser the larger; 0 where nobody looked.
    """

    words: Weight
    layers: tuple[DecoderLayer, ...]
    final_norm: AnyNorm
    head: Linear
    context: int
    embedding_scale: float = 1.0
    positions: Weight | None = None
    position_offset: int = 0
    soft_cap: float | None = None
    level: float = 0.0

    @property
    def hidden(self) -> int:
        return self.words.shape[1]

    @property
    def vocabulary(self) -> int:
        return self.words.shape[0]

    @property
    def tied(self) -> bool:
        """Whether the head's weight is the table of words."""
        return self.head.weight.name == self.words.name
