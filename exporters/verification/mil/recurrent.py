"""The MIL operator `lstm`, in torch. Gates lie in the order input, forget, output, cell.

Not covered: peepholes, clipping, and activations other than sigmoid, tanh and relu; float16 is rounded to where the
operator ends, not between its steps.
"""

from __future__ import annotations

import torch

from mobile_llm.errors import UnsupportedModel

T = torch.Tensor
_ACTIVATIONS = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}


def lstm(
    x: T,
    initial_h: T,
    initial_c: T,
    weight_ih: T,
    weight_hh: T,
    bias: T | None = None,
    weight_ih_back: T | None = None,
    weight_hh_back: T | None = None,
    bias_back: T | None = None,
    direction: str = "forward",
    output_sequence: T | None = None,
    recurrent_activation: str = "sigmoid",
    cell_activation: str = "tanh",
    activation: str = "tanh",
) -> tuple[T, T, T]:
    """(sequence, batch, input) -> hidden states (sequence or 1, batch, hidden), the last of them, the last cell."""
    unknown = {recurrent_activation, cell_activation, activation} - set(_ACTIVATIONS)
    if unknown:
        raise UnsupportedModel(f"the evaluator does not know lstm with the activation {min(unknown)!r}")
    names = (recurrent_activation, cell_activation, activation)
    hidden = weight_hh.shape[1]
    runs = []
    if direction != "reverse":
        runs.append(_one_way(x, initial_h[:, :hidden], initial_c[:, :hidden], weight_ih, weight_hh, bias, names))
    if direction != "forward":
        weights = (weight_ih, weight_hh, bias)
        if direction == "bidirectional":
            assert weight_ih_back is not None  # the operator demands both
            assert weight_hh_back is not None
            weights = (weight_ih_back, weight_hh_back, bias_back)
        states, last, cell = _one_way(x.flip(0), initial_h[:, -hidden:], initial_c[:, -hidden:], *weights, names)
        runs.append((states.flip(0), last, cell))
    states, last, cell = (torch.cat(parts, -1) for parts in zip(*runs))
    return (states if output_sequence is not None and bool(output_sequence) else last[None]), last, cell


def _one_way(
    x: T, hidden: T, cell: T, weight_ih: T, weight_hh: T, bias: T | None, names: tuple[str, str, str]
) -> tuple[T, T, T]:
    gate, inner, outer = (_ACTIVATIONS[name] for name in names)
    if hidden.shape[0] != x.shape[1]:
        raise ValueError(f"lstm has an initial state for {hidden.shape[0]} rows, and its input has {x.shape[1]}")
    states = []
    for step in x:
        mixed = step @ weight_ih.T + hidden @ weight_hh.T + (bias if bias is not None else 0)
        take, forget, give, new = mixed.chunk(4, -1)
        cell = gate(forget) * cell + gate(take) * inner(new)
        hidden = gate(give) * outer(cell)
        states.append(hidden)
    return torch.stack(states), hidden, cell
