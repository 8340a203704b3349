"""Integers for a traced program: the weights of its linear layers and lookups, by the rule all models share.

A weight counts as one where the graph says so: the second argument of a `linear`, of a matrix product or of its
transpose, or the table of an `embedding`. Convolutions and whatever else a module computes stay in float.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from exporters.architectures.stored import is_large
from exporters.architectures.traced import Traced
from exporters.quantization.integers import quantize_per_channel

_TRANSPOSES = {"permute", "t", "transpose"}
_CHECKS = {"_assert_tensor_metadata"}  # computes nothing
# Which argument is the weight, and whether its rows are the output channels (or what a lookup returns).
_USES = {"linear": (1, True), "embedding": (0, True), "matmul": (1, False), "mm": (1, False), "addmm": (2, False)}


def to_int8(traced: Traced) -> Traced:
    """The same program with integers for its large weights; `held_values` are what it then has to hold."""
    found, columns = {}, set()
    for name, values, node in _parameters(traced):
        by_rows = _channels_in_rows(node)
        if by_rows is None or values.ndim != 2 or not is_large(values):
            continue
        found[name] = quantize_per_channel(np.ascontiguousarray(values if by_rows else values.T))
        if not by_rows:
            columns.add(name)
    return replace(traced, integers=found, columns=frozenset(columns))


def held_values(traced: Traced) -> dict[str, np.ndarray]:
    """What the integers stand for, in the orientation of the program's parameters."""
    values = {name: weight.dequantized() for name, weight in traced.integers.items()}
    return {name: np.ascontiguousarray(v.T) if name in traced.columns else v for name, v in values.items()}


def _parameters(traced: Traced) -> Iterator[tuple[str, np.ndarray, Any]]:
    """Name, values and graph node of every parameter."""
    names = traced.program.graph_signature.inputs_to_parameters
    for node in traced.program.graph.nodes:
        if node.op == "placeholder" and node.name in names:
            yield names[node.name], traced.program.state_dict[names[node.name]].detach().numpy(), node


def _channels_in_rows(node: Any, flipped: bool = False) -> bool | None:
    """How a parameter is used: None where not all uses agree on what a channel is."""
    verdicts = set()
    for user in node.users:
        kind = user.target.__name__.split(".")[0] if user.op == "call_function" else ""
        if kind in _CHECKS:
            continue
        if kind in _TRANSPOSES or (kind == "to" and user.meta["val"].dtype == node.meta["val"].dtype):
            verdicts.add(_channels_in_rows(user, flipped != (kind in _TRANSPOSES)))
            continue
        place, rows = _USES.get(kind, (-1, False))
        fits = 0 <= place < len(user.args) and user.args[place] is node
        verdicts.add(rows != flipped if fits else None)
    return verdicts.pop() if len(verdicts) == 1 else None
