"""The decoder family as a MIL function of fixed length, laid out as the Neural Engine wants it: float16, activations
(1, channels, 1, S), linear layers as convolutions over single places, no channel dimension of a head's product above
16,384, everything that depends on the position computed before the first layer.

Covered: every block of `exporters.architectures.decoders.blocks`; safe in float16 as `arithmetic.py` says. On the CPU
by design: the lookup of words at the front, and the joining of the logits at the end. Not covered: hidden layers wider
than 16,384, which are left whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce
from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb

from exporters.architectures.blocks import FeedForward, GatedFeedForward, Linear
from exporters.architectures.decoders.blocks import AnyNorm, CausalAttention, DecoderModel, RmsNorm
from exporters.architectures.weights import Quantized, Weight
from exporters.formats.coreml.arithmetic import activated, centred, root_mean_square_in_float16, soft_capped, weighed
from exporters.formats.coreml.constants import Constants
from exporters.formats.coreml.decoder import KEYS, VALUES
from exporters.formats.coreml.levels import counting_head, in_float32
from exporters.formats.coreml.places import FixedCache, Places, window_of
from mobile_llm.bundle.manifest import KvCache

# The largest dimension that the Neural Engine is known to take.
WIDEST = 16_384
_HALF = np.float16


class MilFixedBuilder:
    """Implements `DecoderBuilder` inside a MIL function whose inputs are `inputIds` (1, S), `position` (1,), where S is
    above 1 `lastRow` (1,), whose logits are asked for, and the states; values are its variables."""

    def __init__(self, inputs: Mapping[str, Any], constants: Constants, cache: KvCache) -> None:
        self._ids = inputs["inputIds"]
        self._constants = constants
        self._context = cache.context
        self._length = self._ids.shape[1]
        self._places = Places(inputs["position"], self._length, constants)
        self._asked = self._places.only(inputs["lastRow"]) if "lastRow" in inputs else None
        self._rows = inputs[KEYS].shape[2]
        self._cache = FixedCache({name: inputs[name] for name in (KEYS, VALUES)}, self._places, cache.layers)
        self.outputs: dict[str, Any] = {}

    def embed(self, model: DecoderModel) -> Any:
        """(1, H, 1, S). The table is looked up as the pieces that a tied head multiplies by: the file has it once."""
        self._prepare(model)
        pieces = list(in_pieces(model.words))
        ids = mb.reshape(x=self._ids, shape=[self._length])
        hidden = reduce(_sum, [self._looked_up(ids, first, piece, len(pieces) > 1) for first, piece in pieces])
        if model.embedding_scale != 1:
            hidden = mb.mul(x=hidden, y=_HALF(model.embedding_scale))
        if model.positions is not None:
            rows = self._places.rows(self._constants.weight(model.positions), model.position_offset)
            hidden = mb.add(x=hidden, y=mb.expand_dims(x=rows, axes=[2, 3]))
        return mb.transpose(x=hidden, perm=[2, 1, 3, 0])

    def _prepare(self, model: DecoderModel) -> None:
        """What all layers share, before the first of them."""
        for attention in (layer.attention for layer in model.layers):
            self._mask(attention)
            if attention.rope:
                self._places.tables(attention.rope, self._context)

    def _mask(self, attention: CausalAttention) -> Any:
        return self._places.mask(self._rows, window_of(attention, self._context), attention.heads // attention.kv_heads)

    def _looked_up(self, ids: Any, first: int, piece: Weight, partial: bool) -> Any:
        """(S, H, 1, 1), zeros for words that are not in this piece."""
        table = self._constants.kernel(piece)
        if not partial:
            return mb.gather(x=table, indices=ids, axis=0)
        count = piece.shape[0]
        local = mb.sub(x=ids, y=np.int32(first))
        nearest = mb.minimum(x=mb.maximum(x=local, y=np.int32(0)), y=np.int32(count - 1))
        here = mb.cast(x=mb.equal(x=local, y=nearest), dtype="fp16")
        return mb.mul(x=mb.gather(x=table, indices=nearest, axis=0), y=mb.expand_dims(x=here, axes=[1, 2, 3]))

    def add_norm(self, hidden: Any, added: Any, norm: AnyNorm) -> tuple[Any, Any]:
        total = mb.add(x=hidden, y=added)
        return total, self.norm(total, norm)

    def norm(self, hidden: Any, norm: AnyNorm) -> Any:
        if isinstance(norm, RmsNorm):
            return self._rms(hidden, norm, axis=1)
        gain = self._column(norm.weight.name, norm.weight.float32(), axis=1)
        value = root_mean_square_in_float16(centred(hidden, 1), gain, norm.eps, 1)
        return mb.add(x=value, y=self._column(norm.bias.name, norm.bias.float32(), axis=1)) if norm.bias else value

    def _rms(self, value: Any, norm: RmsNorm, axis: int) -> Any:
        return root_mean_square_in_float16(value, self._column(norm.weight.name, norm.gain(), axis), norm.eps, axis)

    def _column(self, name: str, values: np.ndarray, axis: int) -> Any:
        """A vector along one axis of four."""
        return self._constants.named(name, values.reshape([-1 if i == axis else 1 for i in range(4)]))

    def attention(self, normed: Any, attention: CausalAttention, layer: int) -> Any:
        """Rows of the cache are a head's numbers, so keys and values are transposed once; a key's queries become rows
        of one product."""
        heads, kv_heads, head_dim = attention.heads, attention.kv_heads, attention.head_dim
        query = self._placed(normed, attention.query, heads, attention.query_norm, attention)
        key = self._placed(normed, attention.key, kv_heads, attention.key_norm, attention)
        value = self._in_heads(normed, attention.value, kv_heads, head_dim)
        query, key, value = (mb.transpose(x=x, perm=[0, 1, 3, 2]) for x in (query, key, value))
        key, value = self._cache.extended(KEYS, key, layer), self._cache.extended(VALUES, value, layer)
        query = mb.reshape(x=query, shape=[1, kv_heads, heads // kv_heads * self._length, head_dim])
        seen = weighed(query, key, value, self._mask(attention), attention, _HALF)
        seen = mb.reshape(x=seen, shape=[1, heads, self._length, head_dim])
        seen = mb.transpose(x=seen, perm=[0, 1, 3, 2])
        joined = mb.reshape(x=seen, shape=[1, heads * head_dim, 1, self._length])
        return self._constants.convolution(joined, attention.output)

    def _placed(self, normed: Any, linear: Linear, heads: int, norm: RmsNorm | None, attention: CausalAttention) -> Any:
        """Queries or keys (1, heads, head_dim, S), normed and turned."""
        value = self._in_heads(normed, linear, heads, attention.head_dim)
        value = self._rms(value, norm, axis=2) if norm else value
        return self._places.turned(value, attention.rope, self._context) if attention.rope else value

    def _in_heads(self, normed: Any, linear: Linear, heads: int, head_dim: int) -> Any:
        value = self._constants.convolution(normed, linear)
        return mb.reshape(x=value, shape=[1, heads, head_dim, self._length])

    def feed_forward(self, normed: Any, feed_forward: FeedForward | GatedFeedForward) -> Any:
        up = self._constants.convolution(normed, feed_forward.up)
        if isinstance(feed_forward, FeedForward):
            expanded = activated(up, feed_forward.activation)
        else:
            gate = self._constants.convolution(normed, feed_forward.gate)
            expanded = mb.mul(x=activated(gate, feed_forward.activation), y=up)
        return self._constants.convolution(expanded, feed_forward.down)

    def asked_for(self, hidden: Any, added: Any) -> tuple[Any, Any]:
        return self._chosen(hidden), self._chosen(added)

    def _chosen(self, hidden: Any) -> Any:
        """(1, H, 1, 1). A product, since the Neural Engine takes no lookups; the sum is of one number and zeros."""
        if self._asked is None:
            return hidden
        return mb.reduce_sum(x=mb.mul(x=hidden, y=self._asked), axes=[3], keep_dims=True)

    def logits(self, normed: Any, model: DecoderModel) -> None:
        parts = [self._scores(normed, piece, model) for piece in self._head_pieces(counting_head(model))]
        joined = mb.concat(values=parts, axis=-1) if len(parts) > 1 else parts[0]
        self.outputs["logits"] = in_float32(joined, model)

    def _scores(self, normed: Any, piece: Linear, model: DecoderModel) -> Any:
        part = self._constants.convolution(normed, piece)
        part = soft_capped(part, model.soft_cap, _HALF) if model.soft_cap is not None else part
        return mb.reshape(x=part, shape=[1, 1, piece.weight.shape[0]])

    def _head_pieces(self, head: Linear) -> Iterator[Linear]:
        biases = in_pieces(head.bias) if head.bias else None
        for _, weight in in_pieces(head.weight):
            yield Linear(weight, next(biases)[1] if biases else None)


def in_pieces(weight: Weight) -> Iterator[tuple[int, Weight]]:
    """A weight's rows, at most `WIDEST` at a time, each with the first row's number."""
    count = weight.shape[0]
    for first in range(0, count, WIDEST):
        rows = slice(first, min(first + WIDEST, count))
        yield first, Weight(f"{weight.name}[{rows.start}:{rows.stop}]", _taken(weight, rows))


def _taken(weight: Weight, rows: slice) -> np.ndarray | Quantized:
    if not weight.quantized:
        return weight.floats[rows]
    return Quantized(weight.quantized.integers[rows], weight.quantized.scale[rows], weight.quantized.bits)


def _sum(one: Any, other: Any) -> Any:
    return mb.add(x=one, y=other)
