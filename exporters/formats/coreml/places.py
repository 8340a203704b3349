"""Where a call of fixed length stands: what depends on its position alone, as MIL operators, and its KV cache.

All of it is integers, rows of tables and one mask, computed before the first layer: the Neural Engine leaves such
operators to the CPU, and at the front they cost one hand-over instead of one per layer. Shapes: S new tokens, R rows of
cache, both fixed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb

from exporters.architectures.decoders.blocks import CausalAttention, Rope
from exporters.formats.coreml.arithmetic import MASKED
from exporters.formats.coreml.constants import Constants

_HALF = np.float16


class Places:
    """`position` is the vector [how many tokens the cache holds], int32."""

    def __init__(self, position: Any, length: int, constants: Constants) -> None:
        self._position = position
        self._length = length
        self._constants = constants
        self._shared: dict[Any, Any] = {}

    def rows(self, table: Any, offset: int) -> Any:
        """The rows of a table (positions, width) for the new tokens: (S, width)."""
        begin = mb.add(x=self._position, y=np.array([offset], np.int32)) if offset else self._position
        begin = mb.concat(values=[begin, np.zeros(1, np.int32)], axis=0)
        return mb.slice_by_size(x=table, begin=begin, size=[self._length, table.shape[1]])

    def turned(self, value: Any, rope: Rope, context: int) -> Any:
        """(1, heads, head_dim, S) turned by its positions."""
        cosines, sines = self.tables(rope, context)
        half, left_alone = rope.turned // 2, value.shape[2] - rope.turned
        sizes = [half, half, left_alone] if left_alone else [half, half]
        first, second, *rest = mb.split(x=value, split_sizes=sizes, axis=2)
        left = mb.sub(x=mb.mul(x=first, y=cosines), y=mb.mul(x=second, y=sines))
        right = mb.add(x=mb.mul(x=second, y=cosines), y=mb.mul(x=first, y=sines))
        return mb.concat(values=[left, right, *rest], axis=2)

    def tables(self, rope: Rope, context: int) -> list[Any]:
        """Cosines and sines (1, 1, turned / 2, S) of the new tokens."""
        key = rope.frequencies.tobytes() + np.float64(rope.scaling).tobytes()
        return self._once(key, lambda: self._tables(rope, hashlib.sha256(key).hexdigest()[:8], context))

    def mask(self, rows: int, window: int | None, groups: int) -> Any:
        """(1, 1, groups * S, R) to add to scores: 0 for what a token sees."""
        return self._once(("mask", window, groups), lambda: self._mask(rows, window, groups))

    def only(self, row: Any) -> Any:
        """(1, 1, 1, S): 1 at the place that the vector [row] names, 0 elsewhere."""
        same = mb.equal(x=np.arange(self._length, dtype=np.int32), y=row)
        return mb.reshape(x=mb.cast(x=same, dtype="fp16"), shape=[1, 1, 1, self._length])

    def edges(self, layer: int) -> tuple[Any, Any]:
        """Where a layer's new rows begin and end in a state: the vectors [layer, 0, position, 0] and one behind."""
        end = self._once("end", lambda: mb.add(x=self._position, y=np.array([self._length], np.int32)))
        return _edge(layer, self._position), _edge(layer + 1, end)

    def _mask(self, rows: int, window: int | None, groups: int) -> Any:
        if groups > 1:
            return mb.tile(x=self.mask(rows, window, 1), reps=[1, 1, groups, 1])
        keys = np.arange(rows, dtype=np.int32)[None]
        queries = mb.add(x=np.arange(self._length, dtype=np.int32), y=self._position)
        queries = mb.expand_dims(x=queries, axes=[1])
        hidden = mb.greater(x=keys, y=queries)
        if window is not None:
            hidden = mb.logical_or(x=hidden, y=mb.less_equal(x=keys, y=mb.sub(x=queries, y=np.int32(window))))
        added = mb.mul(x=mb.cast(x=hidden, dtype="fp16"), y=_HALF(MASKED))
        return mb.expand_dims(x=added, axes=[0, 1])

    def _tables(self, rope: Rope, name: str, context: int) -> list[Any]:
        """Kept in float32, so that only what is computed is rounded."""
        begin = mb.concat(values=[np.zeros(3, np.int32), self._position], axis=0)
        found = []
        for kind, table in zip(("cosines", "sines"), rope.tables(context)):
            columns = self._constants.exactly(f"{kind} {name}", np.ascontiguousarray(table.T)[None, None])
            size = [1, 1, rope.turned // 2, self._length]
            found.append(mb.cast(x=mb.slice_by_size(x=columns, begin=begin, size=size), dtype="fp16"))
        return found

    def _once(self, key: Any, build: Callable[[], Any]) -> Any:
        if key not in self._shared:
            self._shared[key] = build()
        return self._shared[key]


class FixedCache:
    """Keys and values of all layers in states (layers, kv_heads, R, head_dim), float16. A call writes S rows from its
    position on, in place; of rows behind them nothing is seen."""

    def __init__(self, states: Mapping[str, Any], places: Places, layers: int) -> None:
        self._states = states
        self._edges = [places.edges(layer) for layer in range(layers)]
        self._now = {name: mb.read_state(input=state) for name, state in states.items()}

    def extended(self, name: str, rows: Any, layer: int) -> Any:
        """`rows` (1, kv_heads, S, head_dim) put in their place; all that the layer holds (1, kv_heads, R, head_dim)."""
        begin, end = self._edges[layer]
        inner = [False, True, False, True]  # the axes that are taken whole
        written = mb.slice_update(
            x=self._now[name], update=rows, begin=begin, end=end, begin_mask=inner, end_mask=inner
        )
        self._now[name] = mb.coreml_update_state(state=self._states[name], value=written)
        whole = [False, True, True, True]
        return mb.slice_by_index(
            x=self._now[name], begin=[layer, 0, 0, 0], end=[layer + 1, 0, 0, 0], begin_mask=whole, end_mask=whole
        )


def _edge(layer: int, row: Any) -> Any:
    return mb.concat(values=[np.array([layer, 0], np.int32), row, np.zeros(1, np.int32)], axis=0)


def window_of(attention: CausalAttention, context: int) -> int | None:
    """None where the whole cache is seen."""
    window = attention.window
    return window if window is not None and window < context else None
