"""States of a MIL program: boxes that a session keeps from one run to the next, and their operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from mobile_llm.artifacts.graph import Function, Op

T = torch.Tensor
_COPYING = ("slice_by_index", "slice_update")  # operators whose results share no memory with what they read
IN_PLACE = "slice_update in place"  # no file can name it: operators have no spaces


@dataclass
class State:
    """What a state holds now. Floats are float32, rounded like any other value."""

    value: T


def new_states(function: Function) -> dict[str, State]:
    """Zeros, as Core ML begins."""
    return {name: State(torch.zeros(function.tensors[name].shape)) for name in function.states}  # type: ignore[arg-type]


def read_state(input: State) -> T:
    return input.value


def write_state(input: State, data: T) -> tuple[T, ...]:
    input.value = data
    return ()


def written_in_place(ops: Sequence[Op], outputs: Sequence[str]) -> list[Op]:
    """The same operators, where writing a part of a state does not copy the whole: a cache is far larger than the
    rows that a call adds. Only where nobody can see the old value afterwards."""
    uses: dict[str, list[tuple[int, Op]]] = {}
    for place, op in enumerate(ops):
        for name in op.inputs:
            uses.setdefault(name, []).append((place, op))
    sharing: dict[str, list[str]] = {}  # values that may lie in a state's memory
    changed = list(ops)
    for place, op in enumerate(ops):
        if op.type == "read_state":
            sharing.setdefault(op.arguments["input"][0], []).append(op.outputs[0])
        elif op.type == "write_state":
            (state,), (data,) = op.arguments["input"], op.arguments["data"]
            before, shared = ops[place - 1], sharing.setdefault(state, [])
            updates = before.type == "slice_update" and before.outputs == (data,) and before.arguments["x"][0] in shared
            seen = [use for name in shared for use in uses.get(name, ())]
            if updates and not set(shared) & set(outputs) and all(_is_over(*use, place, state) for use in seen):
                changed[place - 1] = replace(before, type=IN_PLACE)
            shared.append(data)
    return changed


def _is_over(at: int, user: Op, place: int, state: str) -> bool:
    """Whether an operator before `place` left no second name for what it used."""
    return at < place and (
        user.type in _COPYING or (user.type == "write_state" and user.arguments["input"] == (state,))
    )
