"""What attention of a decoder needs beside its weights, as MIL operators: where in the sequence a call stands, who
sees whom, the turning of queries and keys, and the cache, which the program keeps in two states.

Shapes: S new tokens, T in the cache once they are in it. Both are known at run time only: the host says T by the
length of `causalMask` (see `exporters.formats.coreml`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb

from exporters.architectures.decoders.blocks import CausalAttention, Rope
from exporters.formats.coreml.arithmetic import MASKED, scaled, weighed
from exporters.formats.coreml.constants import Constants


class Timeline:
    """What depends on S and T alone, built once for all layers. `past` and `total` are the vectors [T - S], [T]."""

    def __init__(self, ids: Any, mask: Any, constants: Constants, dtype: type[np.floating[Any]]) -> None:
        self._constants = constants
        self._dtype = dtype
        self._shared: dict[Any, Any] = {}
        length = mb.slice_by_index(x=mb.shape(x=ids), begin=[1], end=[2])
        self.total = mb.sub(x=mb.slice_by_index(x=mb.shape(x=mask), begin=[3], end=[4]), y=np.array([1], np.int32))
        self.past = mb.sub(x=self.total, y=length)

    def rows(self, table: Any, offset: int = 0) -> Any:
        """The rows of a table (positions, width) for the new tokens: (S, width)."""
        begin, end = (self._shifted(edge, offset) for edge in (self.past, self.total))
        nothing, whole = np.zeros(1, np.int32), [False, True]
        begin, end = (mb.concat(values=[edge, nothing], axis=0) for edge in (begin, end))
        return mb.slice_by_index(x=table, begin=begin, end=end, begin_mask=whole, end_mask=whole)

    def turned(self, value: Any, rope: Rope, context: int) -> Any:
        """(1, heads, S, head_dim) turned by its positions."""
        key = rope.frequencies.tobytes() + np.float64(rope.scaling).tobytes()
        cosines, sines = self._once(key, lambda: self._tables(rope, hashlib.sha256(key).hexdigest()[:8], context))
        half, left_alone = rope.turned // 2, value.shape[-1] - rope.turned
        sizes = [half, half, left_alone] if left_alone else [half, half]
        first, second, *rest = mb.split(x=value, split_sizes=sizes, axis=-1)
        left = mb.sub(x=mb.mul(x=first, y=cosines), y=mb.mul(x=second, y=sines))
        right = mb.add(x=mb.mul(x=second, y=cosines), y=mb.mul(x=first, y=sines))
        return mb.concat(values=[left, right, *rest], axis=-1)

    def mask(self, window: int | None, groups: int) -> Any:
        """(1, 1, groups * S, T) to add to scores: 0 for what a token sees."""
        return self._once(("mask", window, groups), lambda: self._mask(window, groups))

    def _mask(self, window: int | None, groups: int) -> Any:
        if groups > 1:
            return mb.tile(x=self.mask(window, 1), reps=[1, 1, groups, 1])
        keys, queries = self._once("places", self._places)
        hidden = mb.greater(x=keys, y=queries)
        if window is not None:
            hidden = mb.logical_or(x=hidden, y=mb.less_equal(x=keys, y=mb.sub(x=queries, y=np.int32(window))))
        ones = mb.cast(x=hidden, dtype="fp32" if self._dtype == np.float32 else "fp16")
        added = mb.mul(x=ones, y=self._dtype(MASKED))
        return mb.expand_dims(x=added, axes=[0, 1])

    def _places(self) -> tuple[Any, Any]:
        """Positions in the cache (1, T), and of the new tokens (S, 1)."""
        past, total = (mb.squeeze(x=edge) for edge in (self.past, self.total))
        keys, queries = (mb.range_1d(start=start, end=total, step=np.int32(1)) for start in (np.int32(0), past))
        return mb.expand_dims(x=keys, axes=[0]), mb.expand_dims(x=queries, axes=[1])

    def _tables(self, rope: Rope, name: str, context: int) -> list[Any]:
        """Cosines and sines (S, turned / 2). Kept in float32, so that only what is computed is rounded."""
        tables = zip(("cosines", "sines"), rope.tables(context))
        rows = [self.rows(self._constants.exactly(f"{kind} {name}", table)) for kind, table in tables]
        return rows if self._dtype == np.float32 else [mb.cast(x=table, dtype="fp16") for table in rows]

    def _shifted(self, edge: Any, offset: int) -> Any:
        return mb.add(x=edge, y=np.array([offset], np.int32)) if offset else edge

    def _once(self, key: Any, build: Callable[[], Any]) -> Any:
        if key not in self._shared:
            self._shared[key] = build()
        return self._shared[key]


class Cache:
    """Keys and values of all layers in states (layers, 1, kv_heads, context, head_dim), float16: Core ML has no
    others. A call writes the rows from T - S to T, in place."""

    def __init__(self, states: Mapping[str, Any], timeline: Timeline, dtype: type[np.floating[Any]]) -> None:
        self._states = states
        self._timeline = timeline
        self._narrow = dtype != np.float32
        self._now = {name: mb.read_state(input=state) for name, state in states.items()}
        self._edges: dict[tuple[int, str], Any] = {}

    def extended(self, name: str, rows: Any, layer: int) -> Any:
        """`rows` (1, kv_heads, S, head_dim) put behind what the layer holds; all of it (1, kv_heads, T, head_dim)."""
        narrow = rows if self._narrow else mb.cast(x=rows, dtype="fp16")
        begin, end = self._edge(layer, "past"), self._edge(layer + 1, "total")
        inner = [False, True, True, False, True]  # the axes that are taken whole
        written = mb.slice_update(
            x=self._now[name],
            update=mb.expand_dims(x=narrow, axes=[0]),
            begin=begin,
            end=end,
            begin_mask=inner,
            end_mask=inner,
        )
        self._now[name] = mb.coreml_update_state(state=self._states[name], value=written)
        held = mb.slice_by_index(
            x=self._now[name],
            begin=[layer, 0, 0, 0, 0],
            end=end,
            begin_mask=[False, True, True, True, True],
            end_mask=inner,
            squeeze_mask=[True, False, False, False, False],
        )
        return held if self._narrow else mb.cast(x=held, dtype="fp32")

    def _edge(self, layer: int, where: str) -> Any:
        """The vector [layer, 0, 0, T - S or T, 0], the same for keys and values."""
        if (layer, where) not in self._edges:
            place = self._timeline.past if where == "past" else self._timeline.total
            before, after = np.array([layer, 0, 0], np.int32), np.zeros(1, np.int32)
            self._edges[layer, where] = mb.concat(values=[before, place, after], axis=0)
        return self._edges[layer, where]


def attended(query: Any, key: Any, value: Any, mask: Any, attention: CausalAttention, dtype: Any) -> Any:
    """(1, kv_heads, groups * S, head_dim) over (1, kv_heads, T, head_dim)."""
    if attention.soft_cap is not None:
        return weighed(query, key, value, mask, attention, dtype)
    # The fused operator scales by head_dim ** -0.5 itself.
    query = scaled(query, attention.scale * attention.head_dim**0.5, dtype)
    return mb.scaled_dot_product_attention(query=query, key=key, value=value, attn_mask=mask)
