"""MIL operators that take or replace a part of a tensor, in torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

T = torch.Tensor


def ints(values: T) -> list[int]:
    return [int(v) for v in values.reshape(-1)]


def slice_by_index(
    x: T,
    begin: T,
    end: T,
    stride: T | None = None,
    begin_mask: T | None = None,
    end_mask: T | None = None,
    squeeze_mask: T | None = None,
) -> T:
    """A copy: what is written into `x` later does not change it."""
    part, backwards, squeezed = _part(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    taken = part.flip(backwards) if backwards else part.clone()
    return taken.squeeze(squeezed) if squeezed else taken


def slice_update(
    x: T,
    update: T,
    begin: T,
    end: T,
    stride: T | None = None,
    begin_mask: T | None = None,
    end_mask: T | None = None,
    squeeze_mask: T | None = None,
) -> T:
    """`x` with the part that `slice_by_index` would take replaced. iOS 18."""
    return slice_update_in_place(x.clone(), update, begin, end, stride, begin_mask, end_mask, squeeze_mask)


def slice_update_in_place(
    x: T,
    update: T,
    begin: T,
    end: T,
    stride: T | None = None,
    begin_mask: T | None = None,
    end_mask: T | None = None,
    squeeze_mask: T | None = None,
) -> T:
    """The same in the memory of `x`: for a cache that nobody else reads in between."""
    part, backwards, squeezed = _part(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    for axis in squeezed:
        update = update.unsqueeze(axis)
    if part.shape != update.shape:
        raise ValueError(f"slice_update of {list(part.shape)} with {list(update.shape)}")
    part.copy_(update.flip(backwards) if backwards else update)
    return x


def slice_by_size(x: T, begin: T, size: T) -> T:
    index = []
    for axis, (first, count) in enumerate(zip(ints(begin), ints(size))):
        index.append(slice(first, x.shape[axis] if count == -1 else first + count))
    return x[tuple(index)]


def _part(
    x: T,
    begin: T,
    end: T,
    stride: T | None,
    begin_mask: T | None,
    end_mask: T | None,
    squeeze_mask: T | None,
) -> tuple[T, list[int], tuple[int, ...]]:
    """A view of the part with every axis kept and running forwards, the axes that run backwards in truth, and those
    of size one to drop."""
    strides = ints(stride) if stride is not None else [1] * x.ndim
    from_start, to_end, dropped = (_flags(mask, x.ndim) for mask in (begin_mask, end_mask, squeeze_mask))
    squeezed = tuple(axis for axis in range(x.ndim) if dropped[axis])
    spans = []
    for axis, (first, last, step) in enumerate(zip(ints(begin), ints(end), strides)):
        whole = range(x.shape[axis])
        cut = slice(None if from_start[axis] else first, None if to_end[axis] else last, step)
        spans.append(range(whole[first], whole[first] + 1) if dropped[axis] else whole[cut])
    view = x[tuple(_forwards(span) for span in spans)]
    return view, [axis for axis, span in enumerate(spans) if span.step < 0], squeezed


def _flags(mask: T | None, rank: int) -> Sequence[int]:
    return ints(mask) if mask is not None else [0] * rank


def _forwards(span: range) -> slice:
    if not span:
        return slice(0, 0)
    low, high = sorted((span[0], span[-1]))
    return slice(low, high + 1, abs(span.step))
