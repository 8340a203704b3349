"""What a module is asked: its example inputs, and random draws in their range at batch sizes nothing was traced at."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from exporters.architectures.traced import BATCH, NamedTensor, Traced
from mobile_llm.bundle.golden_tensors import Probe, Tensors

_BATCHES = (1, 5, 13)
_DRAWS = 3  # where every shape is fixed


def make_probes(traced: Traced, examples: Tensors, seed: int = 0) -> tuple[tuple[Probe, ...], tuple[Tensors, ...]]:
    """Probes and their inputs, the examples first."""
    random = np.random.default_rng(seed)
    given = len(next(iter(examples.values()))) if traced.any_batch else 0
    batches = [size for size in _BATCHES if size != given] if traced.any_batch else [0] * _DRAWS
    drawn = [{t.name: _drawn(random, t, examples[t.name], size) for t in traced.inputs} for size in batches]
    probes = [Probe(traced=True), *(Probe(traced=not traced.any_batch) for _ in drawn)]
    return tuple(probes), (dict(_plain(examples)), *drawn)


def _plain(examples: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    return {name: np.ascontiguousarray(array) for name, array in examples.items()}


def _drawn(random: np.random.Generator, tensor: NamedTensor, example: np.ndarray, batch: int) -> np.ndarray:
    """Uniform between the example's smallest and largest value, so that ids stay inside a vocabulary."""
    shape = tuple(batch if size == BATCH else int(size) for size in tensor.shape)
    low, high = example.min(), example.max()
    if tensor.dtype == "float32":
        return random.uniform(low, high, shape).astype(np.float32)
    return random.integers(low, high, shape, dtype=example.dtype, endpoint=True)
