"""A model without blocks: a graph that was traced, with names for what goes in and comes out.

Every plain torch module and Keras model arrives here as one `torch.export` program, which each format lowers by its
own converter. `batch` names the first dimension of all tensors where any size of it was traced.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from exporters.architectures.weights import Quantized
from mobile_llm.bundle.manifest import TensorBinding

BATCH = "batch"
LARGEST_BATCH = 64  # what the range of a flexible batch ends with; larger ones are run in turns


@dataclass(frozen=True)
class NamedTensor:
    """A logical tensor: `dtype` as numpy names it, `shape` with "batch" where any size goes."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def bound(self, name: str, dtype: str | None = None, batch: int | None = None) -> TensorBinding:
        """Its place in an artifact, under a physical name and type; `batch` fixes the first dimension."""
        shape = tuple(batch if size == BATCH and batch else size for size in self.shape)
        sizes = {BATCH: (1, LARGEST_BATCH)} if BATCH in shape else {}
        return TensorBinding(name, dtype or self.dtype, shape, sizes)


@dataclass(frozen=True)
class Traced:
    """A `torch.export.ExportedProgram` over the inputs in their order. `integers` are the parameters that are to be
    stored in 8 bits, by name, each as (channels, inputs) with a scale per channel; the program then holds the values
    they stand for. `columns` are those of them whose channels are the columns in the program."""

    program: Any
    inputs: tuple[NamedTensor, ...]
    outputs: tuple[NamedTensor, ...]
    integers: Mapping[str, Quantized] = field(default_factory=dict)
    columns: frozenset[str] = frozenset()

    @property
    def any_batch(self) -> bool:
        return any(BATCH in tensor.shape for tensor in self.inputs)

    def sample(self, batch: int) -> tuple[Any, ...]:
        """Zeros of the inputs' types, at a batch size."""
        import torch

        sizes = [[batch if size == BATCH else int(size) for size in tensor.shape] for tensor in self.inputs]
        return tuple(torch.zeros(size, dtype=getattr(torch, t.dtype)) for t, size in zip(self.inputs, sizes))

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The traced program's own answer."""
        import torch

        tensors = [torch.from_numpy(np.array(inputs[tensor.name])) for tensor in self.inputs]
        with torch.inference_mode():
            results = self.program.module()(*tensors)
        return {tensor.name: result.numpy() for tensor, result in zip(self.outputs, results)}


@contextmanager
def holding(program: Any, values: Mapping[str, np.ndarray]) -> Iterator[None]:
    """While the block runs, the program's parameters of these names have these values."""
    import torch

    state = program.state_dict
    originals = {name: state[name] for name in values}
    state.update({name: torch.nn.Parameter(torch.from_numpy(v), requires_grad=False) for name, v in values.items()})
    try:
        yield
    finally:
        state.update(originals)
