"""Attention of the encoder family as MIL operators, for any length: products of (1, heads, S, head_dim), an additive
mask, and what is added to scores (see `exporters.architectures.positions`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb

from exporters.architectures.blocks import Attention, Disentangled, RelativeBias, Rotary
from exporters.architectures.positions import keys_by_distance, queries_by_distance, relative_bias, rotary_tables

_MASKED = -1e4


class Scores:
    """Built once for a program, so that layers share what depends on the length alone. `length` is the vector [S]."""

    def __init__(self, dtype: type[np.floating[Any]], limit: int) -> None:
        self._dtype = dtype
        self._limit = limit
        self._length: Any = None
        self._shared: dict[str, Any] = {}

    def set_length(self, length: Any) -> None:
        self._length = length

    def context(self, query: Any, key: Any, value: Any, attention: Attention, mask: Any) -> Any:
        """(1, S, hidden) three times -> (1, S, hidden); the mask is (1, 1, 1, S)."""
        scaled = mb.mul(x=query, y=self._dtype(attention.scale))
        query, key, value = (_heads(x, attention) for x in (scaled, key, value))
        if isinstance(attention.positions, Rotary):
            query, key = (self._rotated(x, attention, attention.positions.theta) for x in (query, key))
        scores = mb.add(x=mb.matmul(x=query, y=key, transpose_y=True), y=mask)
        for bias in self._biases(query, key, attention):
            scores = mb.add(x=scores, y=bias)
        context = mb.matmul(x=mb.softmax(x=scores, axis=-1), y=value)
        return mb.reshape(
            x=mb.transpose(x=context, perm=[0, 2, 1, 3]), shape=[1, -1, attention.heads * attention.head_dim]
        )

    def _rotated(self, value: Any, attention: Attention, theta: float) -> Any:
        first, second = mb.split(x=value, num_splits=2, axis=-1)
        cosines, sines = self._tables(theta, attention.head_dim)
        left = mb.sub(x=mb.mul(x=first, y=cosines), y=mb.mul(x=second, y=sines))
        right = mb.add(x=mb.mul(x=second, y=cosines), y=mb.mul(x=first, y=sines))
        return mb.concat(values=[left, right], axis=-1)

    def _tables(self, theta: float, head_dim: int) -> list[Any]:
        tables = zip(("cosines", "sines"), rotary_tables(theta, head_dim, self._limit))
        return [self._once(f"{name}_{theta:g}", partial(self._first_rows, table)) for name, table in tables]

    def _first_rows(self, table: np.ndarray) -> Any:
        end = mb.concat(values=[self._length, np.array([table.shape[1]], np.int32)], axis=0)
        return mb.slice_by_index(x=table.astype(self._dtype), begin=[0, 0], end=end)

    def _biases(self, query: Any, key: Any, attention: Attention) -> list[Any]:
        found, positions = [], attention.positions
        if isinstance(positions, RelativeBias):
            found.append(self._once(f"{positions.table.name} by distance", lambda: self._by_distance(positions)))
        if isinstance(positions, Disentangled) and positions.key:
            # Queries are scaled already, keys are not.
            found.append(self._skewed(self._compared(query, *keys_by_distance(positions, attention)), attention.heads))
        if isinstance(positions, Disentangled) and positions.query:
            vectors, rows = queries_by_distance(positions, attention)
            compared = self._compared(key, vectors * np.float32(attention.scale), rows)
            found.append(mb.transpose(x=self._skewed(compared, attention.heads), perm=[0, 1, 3, 2]))
        if attention.window is not None:
            window = attention.window
            found.append(self._once(f"window of {window}", lambda: self._window(window)))
        return found

    def _by_distance(self, bias: RelativeBias) -> Any:
        """(1, heads, S, S), once for all layers."""
        table = relative_bias(bias)[None, :, None].astype(self._dtype)
        heads = table.shape[1]
        one, from_start = np.array([1], np.int32), [True, True, True, False]
        rows = mb.slice_by_index(
            x=table,
            begin=mb.concat(values=[np.zeros(3, np.int32), self._shifted(-1)], axis=0),
            end=mb.concat(values=[np.zeros(3, np.int32), self._shifted(1)], axis=0),
            begin_mask=from_start,
            end_mask=from_start,
        )
        reps = mb.concat(values=[one, one, self._length, one], axis=0)
        return self._skewed(mb.tile(x=rows, reps=reps), heads)

    def _compared(self, value: Any, vectors: np.ndarray, rows: np.ndarray) -> Any:
        """(1, heads, S, head_dim) with the vectors of all distances: (1, heads, S, 2 S)."""
        index = mb.slice_by_index(x=rows.astype(np.int32), begin=self._shifted(-1), end=self._shifted(1))
        chosen = mb.gather(x=vectors[None].astype(self._dtype), indices=index, axis=2)
        return mb.matmul(x=value, y=chosen, transpose_y=True)

    def _shifted(self, sign: int) -> Any:
        """The vector [limit ± S]."""
        middle = np.array([self._limit], np.int32)
        return self._once(f"limit {sign:+}", lambda: (mb.add if sign > 0 else mb.sub)(x=middle, y=self._length))

    def _skewed(self, value: Any, heads: int) -> Any:
        """(1, heads, S, 2 S) over distances -> (1, heads, S, S) over keys."""
        flat = mb.reshape(x=value, shape=[1, heads, -1])
        cut = mb.slice_by_index(
            x=flat,
            begin=self._once("skew begin", lambda: self._vector(0, 0, self._less_one())),
            end=self._once("skew end", lambda: self._vector(1, heads, self._last())),
        )
        rows = self._once("skew rows", lambda: self._vector(1, heads, self._length, self._stride()))
        stop = self._once("skew stop", lambda: self._vector(1, heads, self._length, self._length))
        return mb.slice_by_index(x=mb.reshape(x=cut, shape=rows), begin=[0, 0, 0, 0], end=stop)

    def _window(self, window: int) -> Any:
        """(1, 1, S, S): 0 near, a large negative number further than `window` away."""
        size = mb.squeeze(x=self._length)
        places = mb.cast(x=mb.range_1d(start=0, end=size, step=1), dtype="fp32")
        across, down = mb.expand_dims(x=places, axes=[0]), mb.expand_dims(x=places, axes=[1])
        beyond = mb.sub(x=mb.abs(x=mb.sub(x=across, y=down)), y=np.float32(window))
        penalty = mb.mul(x=mb.clip(x=beyond, alpha=np.float32(0), beta=np.float32(1)), y=np.float32(_MASKED))
        if self._dtype != np.float32:
            penalty = mb.cast(x=penalty, dtype="fp16")
        return mb.expand_dims(x=penalty, axes=[0, 1])

    def _less_one(self) -> Any:
        return self._once("S - 1", lambda: mb.sub(x=self._length, y=np.array([1], np.int32)))

    def _stride(self) -> Any:
        return self._once("2 S - 1", lambda: mb.add(x=self._length, y=self._less_one()))

    def _last(self) -> Any:
        return mb.add(x=self._less_one(), y=mb.mul(x=self._length, y=self._stride()))

    def _vector(self, *sizes: Any) -> Any:
        return mb.concat(values=[np.array([s], np.int32) if isinstance(s, int) else s for s in sizes], axis=0)

    def _once(self, key: str, build: Callable[[], Any]) -> Any:
        if key not in self._shared:
            self._shared[key] = build()
        return self._shared[key]


def _heads(value: Any, attention: Attention) -> Any:
    """(1, S, hidden) -> (1, heads, S, head_dim)."""
    split = mb.reshape(x=value, shape=[1, -1, attention.heads, attention.head_dim])
    return mb.transpose(x=split, perm=[0, 2, 1, 3])
