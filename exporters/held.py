"""Weights of blocks in the torch model that they were taken from, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from exporters.architectures.blocks import weights_of
from exporters.architectures.weights import Weight


@contextmanager
def holding(model: Any, blocks: object) -> Iterator[None]:
    """While the block runs, a torch model holds the weights of its blocks, dequantized."""
    with ExitStack() as undo:
        for name, weights in by_parameter(blocks).items():
            undo.enter_context(replaced(model.get_parameter(name), _together(weights)))
        yield


def by_parameter(blocks: object) -> dict[str, list[Weight]]:
    """The weights that each parameter of the checkpoint is made of, by its name: one, or those that it fuses, in their
    order in it."""
    parts: dict[str, dict[int, Weight]] = {}
    for weight in weights_of(blocks).values():
        name, first = weight.fused or (weight.name, 0)
        parts.setdefault(name, {})[first] = weight
    return {name: [rows[first] for first in sorted(rows)] for name, rows in parts.items()}


def _together(weights: list[Weight]) -> np.ndarray:
    values = [weight.float32() for weight in weights]
    return values[0] if len(values) == 1 else np.concatenate(values)


@contextmanager
def replaced(parameter: Any, values: np.ndarray) -> Iterator[None]:
    """The parameter's own storage is left alone, since blocks look into it."""
    import torch

    original = parameter.data
    parameter.data = torch.from_numpy(values)
    try:
        yield
    finally:
        parameter.data = original
