"""Attention over a KV cache in ONNX: GroupQueryAttention of onnxruntime, its caches, and what tells it positions.

How many tokens there are is read from `attention_mask`: its length, and its ones, of which the last are the new
tokens'. A cache may be as long as what it holds, or longer and shared by past and present: the kernel then writes new
rows into it.
"""

from __future__ import annotations

import numpy as np

from exporters.architectures.decoders.blocks import CausalAttention, RmsNorm, Rope
from exporters.architectures.stacking import neighbours, stacked
from exporters.formats.onnx.graph import CONTRIB, FLOAT, INT32, INT64, Graph
from exporters.formats.onnx.norms import normalized
from exporters.formats.onnx.products import Products
from mobile_llm.errors import UnsupportedModel

# transformers.js makes the first caches by these names: of the batch's size, and empty where it knows no name.
BATCH, NEW, PAST, TOTAL = "batch_size", "sequence_length", "past_sequence_length", "total_sequence_length"
_HEAD_MULTIPLE = 8  # what GroupQueryAttention demands of a head
_TURNED_MULTIPLE = 16  # and of a head that it turns, and of what it turns of it


class CachedAttention:
    """Adds the attention of each layer, with inputs and outputs for its caches of at most `context` tokens."""

    def __init__(self, graph: Graph, products: Products, ids: str, context: int) -> None:
        self._graph = graph
        self._products = products
        self._ids = ids
        self._mask = graph.input("attention_mask", INT64, (BATCH, TOTAL))
        self._context = context
        self._tables: dict[tuple[bytes, float], list[str]] = {}
        self._present: list[tuple[str, tuple[int | str, ...]]] = []

    def attend(self, normed: str, attention: CausalAttention, layer: int) -> str:
        """(B, S, H) -> (B, S, H), output projection included."""
        _refuse_odd_heads(attention)
        turned_inside = attention.rope is not None and _turned_inside(attention, attention.rope)
        query = self._query_key_value(normed, attention, turned_inside)
        tables = self._rope_tables(attention.rope) if attention.rope and turned_inside else []
        outputs = [f"attention.{layer}", *self._outgoing(layer, attention)]
        self._graph.nodes(
            "GroupQueryAttention",
            [*query, *self._past(layer, attention), *self._lengths(), *tables],
            outputs,
            outputs[0],
            CONTRIB,
            num_heads=attention.heads,
            kv_num_heads=attention.kv_heads,
            scale=attention.scale,
            do_rotary=int(turned_inside),
            local_window_size=-1 if attention.window is None else attention.window,
            softcap=attention.soft_cap or 0.0,
        )
        return self._products.linear(outputs[0], attention.output)

    def positions(self, offset: int) -> str:
        """The new tokens' positions (B, S), plus `offset`. A row of the mask ends with its new tokens."""
        g = self._graph
        size = g.shared("new tokens", lambda: self._size(self._ids))
        count = g.node("ReduceSum", [self._mask, g.vector(1)], keepdims=1)
        first = g.node("Add", [g.node("Sub", [count, size]), g.vector(offset)])
        zero, one = (g.constant(name, np.array(n, np.int64)) for n, name in enumerate(("zero", "one")))
        return g.node("Add", [first, g.node("Range", [zero, size, one])])

    def outputs(self) -> None:
        """Declare the caches that come out, which clients expect after the logits."""
        for name, shape in self._present:
            self._graph.output(name, FLOAT, shape)

    def _query_key_value(self, normed: str, attention: CausalAttention, turned_inside: bool) -> list[str]:
        """What GroupQueryAttention takes first: the three in one, or apart."""
        parts = (attention.query, attention.key, attention.value)
        has_norms = attention.query_norm is not None or attention.key_norm is not None
        turned_before = attention.rope is not None and not turned_inside
        prefix = attention.query.weight.name.rsplit(".", 2)[0]
        if not has_norms and not turned_before and len(list(neighbours(parts))) == 1:
            return [self._products.linear(normed, stacked(parts, f"{prefix}.query_key_value")), "", ""]
        values = self._products.several(normed, prefix, query=attention.query, key=attention.key, value=attention.value)
        query = self._per_head(values[0], attention.query_norm, attention.heads, attention.head_dim)
        key = self._per_head(values[1], attention.key_norm, attention.kv_heads, attention.head_dim)
        if attention.rope and turned_before:
            query = self._turned(query, attention.rope, attention.heads)
            key = self._turned(key, attention.rope, attention.kv_heads)
        return [query, key, values[2]]

    def _per_head(self, value: str, norm: RmsNorm | None, heads: int, head_dim: int) -> str:
        if norm is None:
            return value
        g = self._graph
        split = g.node("Reshape", [value, g.vector(0, 0, heads, head_dim)])
        return g.node("Reshape", [normalized(g, split, norm), g.vector(0, 0, heads * head_dim)])

    def _turned(self, value: str, rope: Rope, heads: int) -> str:
        inputs = [value, self._graph.shared("positions", lambda: self.positions(0)), *self._rope_tables(rope)]
        return self._graph.node(
            "RotaryEmbedding", inputs, domain=CONTRIB, num_heads=heads, rotary_embedding_dim=rope.turned
        )

    def _rope_tables(self, rope: Rope) -> list[str]:
        """Cosines and sines, stored once for all layers that turn alike."""
        key = (rope.frequencies.tobytes(), rope.scaling)
        if key not in self._tables:
            names = [f"{kind}.{len(self._tables)}" for kind in ("cosines", "sines")]
            tables = zip(names, rope.tables(self._context))
            self._tables[key] = [self._graph.constant(name, table) for name, table in tables]
        return self._tables[key]

    def _past(self, layer: int, attention: CausalAttention) -> list[str]:
        names = [f"past_key_values.{layer}.{kind}" for kind in ("key", "value")]
        shape = (BATCH, attention.kv_heads, PAST, attention.head_dim)
        return [self._graph.input(name, FLOAT, shape) for name in names]

    def _outgoing(self, layer: int, attention: CausalAttention) -> list[str]:
        names = [f"present.{layer}.{kind}" for kind in ("key", "value")]
        shape = (BATCH, attention.kv_heads, TOTAL, attention.head_dim)
        self._present += [(name, shape) for name in names]
        return names

    def _lengths(self) -> list[str]:
        """The place of each sequence's last token, int32 (B,), and the length of the mask, int32."""
        return [self._graph.shared("last place", self._last_place), self._graph.shared("total", self._total)]

    def _last_place(self) -> str:
        g = self._graph
        count = g.node("ReduceSum", [self._mask, g.vector(1)], keepdims=0)
        return g.node("Cast", [g.node("Sub", [count, g.vector(1)])], to=INT32)

    def _total(self) -> str:
        return self._graph.node("Cast", [self._size(self._mask)], to=INT32)

    def _size(self, value: str) -> str:
        """How long the second dimension is, an int64 scalar."""
        g = self._graph
        return g.node("Gather", [g.node("Shape", [value]), g.constant("one", np.array(1, np.int64))])


def _turned_inside(attention: CausalAttention, rope: Rope) -> bool:
    """Whether GroupQueryAttention can turn such heads itself; narrow ones it does not."""
    return attention.head_dim % _TURNED_MULTIPLE == 0 and rope.turned % _TURNED_MULTIPLE == 0


def _refuse_odd_heads(attention: CausalAttention) -> None:
    if attention.head_dim % _HEAD_MULTIPLE:
        raise UnsupportedModel(
            f"heads of {attention.head_dim} numbers are not covered in ONNX, where onnxruntime takes multiples of "
            f"{_HEAD_MULTIPLE}; choose another format"
        )
