"""One picture of an artifact, whichever format it is stored in: functions of operators over named tensors.

The readers beside this file build it from the file's bytes alone: no converter, no framework. Contents of
tensors stay on disk until `Tensor.read()`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

Dimension: TypeAlias = "int | str"


@dataclass(frozen=True)
class Tensor:
    """A named value of a function.

    Attributes:
        dtype: as numpy names it ("float32", "int8"), or "int4", "uint4", "bool", "string".
        shape: sizes; a name or "?" stands for what is only known at run time. None: not stated in the file.
        stored_bytes: bytes on disk of a constant, 0 for anything else.
        load: reads the constant (4-bit integers as int8); None for what is computed at run time.
        quantization: for formats that keep it beside the tensor (TFLite): scale, zero_point, axis, block.
    """

    name: str
    dtype: str
    shape: tuple[Dimension, ...] | None
    stored_bytes: int = 0
    load: Callable[[], np.ndarray] | None = field(default=None, repr=False)
    quantization: Mapping[str, Any] = field(default_factory=dict)

    @property
    def constant(self) -> bool:
        return self.load is not None

    def read(self) -> np.ndarray:
        """The constant's values. Raises ValueError for a value that is computed at run time."""
        if self.load is None:
            raise ValueError(f"{self.name} is computed at run time")
        return self.load()


@dataclass(frozen=True)
class Op:
    """An operator. `arguments` maps a parameter to the names of its tensors; formats with positional inputs
    (ONNX, TFLite) have the single parameter "inputs", where "" is an input left out."""

    type: str
    arguments: Mapping[str, tuple[str, ...]]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    @property
    def inputs(self) -> tuple[str, ...]:
        """All its tensors, in the order of the parameters."""
        return tuple(name for names in self.arguments.values() for name in names)


@dataclass(frozen=True)
class Function:
    """One callable of an artifact: the graph of ONNX, a subgraph with its signature in TFLite, a function of
    a MIL program. `ops` are in an order in which they can be run. `inputs` and `outputs` name tensors;
    `signature` maps those tensors to the names a caller uses where the two differ; `states` names tensors that the
    artifact keeps from one call to the next, which are no inputs; `overridable` names constants that a caller may feed.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ops: tuple[Op, ...]
    tensors: Mapping[str, Tensor]
    signature: Mapping[str, str] = field(default_factory=dict)
    states: tuple[str, ...] = ()
    overridable: tuple[str, ...] = ()

    def constants(self) -> Iterator[Tensor]:
        return (tensor for tensor in self.tensors.values() if tensor.constant)


@dataclass(frozen=True)
class ArtifactGraph:
    """A whole artifact. `versions` are what the file says of itself, such as {"ai.onnx": 21} or {"spec": 8}."""

    format: str
    functions: Mapping[str, Function]
    versions: Mapping[str, int]
