"""Weights of blocks in the torch model that they were taken from, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from exporters.architectures.blocks import weights_of


@contextmanager
def holding(model: Any, blocks: object) -> Iterator[None]:
    """While the block runs, a torch model holds the weights of its blocks, dequantized."""
    with ExitStack() as undo:
        for name, values in _parameters(blocks).items():
            undo.enter_context(replaced(model.get_parameter(name), values))
        yield


def _parameters(model: object) -> dict[str, np.ndarray]:
    """The checkpoint's parameters as the blocks hold them, those that it fuses put together again."""
    parts: dict[str, dict[int, np.ndarray]] = {}
    for weight in weights_of(model).values():
        name, first = weight.fused or (weight.name, 0)
        parts.setdefault(name, {})[first] = weight.float32()
    return {name: rows[0] if len(rows) == 1 else _stacked(rows) for name, rows in parts.items()}


def _stacked(rows: dict[int, np.ndarray]) -> np.ndarray:
    return np.concatenate([rows[first] for first in sorted(rows)])


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
