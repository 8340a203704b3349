"""Linear layers of one input as one layer, their rows one after the other: a runtime starts one kernel, not several.

Only what is stored alike can be one: in the same bits and blocks, or as the same floats.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np

from exporters.architectures.blocks import Linear
from exporters.architectures.weights import Quantized, Weight


def neighbours(linears: Sequence[Linear]) -> Iterator[tuple[Linear, ...]]:
    """Those that are next to each other and stored alike, together."""
    for _, group in groupby(linears, _stored_as):
        yield tuple(group)


def stacked(linears: Sequence[Linear], name: str = "") -> Linear:
    """Layers that are stored alike as one of this name, by default of all of theirs; where one alone has a bias, the
    others get zeros. A single one stays as it is."""
    if len(linears) == 1:
        return linears[0]
    name = name or "+".join(linear.weight.name.removesuffix(".weight") for linear in linears)
    weight = Weight(f"{name}.weight", _rows([linear.weight.value for linear in linears]))
    return replace(linears[0], weight=weight, bias=_biases(name, linears))


def _stored_as(linear: Linear) -> tuple[object, ...]:
    value = linear.weight.value
    return (value.bits, value.block) if isinstance(value, Quantized) else (value.dtype,)


def _rows(values: Sequence[np.ndarray | Quantized]) -> np.ndarray | Quantized:
    integers = [value for value in values if isinstance(value, Quantized)]
    if not integers:
        return np.concatenate([value for value in values if not isinstance(value, Quantized)])
    return replace(
        integers[0],
        integers=np.concatenate([value.integers for value in integers]),
        scale=np.concatenate([value.scale for value in integers]),
    )


def _biases(name: str, linears: Sequence[Linear]) -> Weight | None:
    if not any(linear.bias for linear in linears):
        return None
    zeros = (np.zeros(linear.weight.shape[0], np.float32) for linear in linears)
    found = [linear.bias.floats if linear.bias else none for linear, none in zip(linears, zeros)]
    return Weight(f"{name}.bias", np.concatenate(found))
