"""Which stored constants stand behind a name of a graph, and how wide a computed value is.

Covered: constants handed on unchanged or only unpacked (Cast, DEQUANTIZE, constexpr_*, Transpose, Identity).
Not covered: weights put together from several constants that are not scales or zero points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mobile_llm.artifacts.graph import Function, Op, Tensor

_UNPACKING = {"Cast", "Transpose", "Identity", "DequantizeLinear", "DEQUANTIZE", "TRANSPOSE", "transpose", "cast"}


@dataclass(frozen=True)
class Weight:
    """A constant as its file stores it: `stored` are the tensors that are read (scales included), `shape` and
    `dtype` those of the largest."""

    shape: tuple[int, ...]
    dtype: str
    stored: tuple[Tensor, ...]
    unpacked: bool = False

    @property
    def elements(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def stored_bytes(self) -> int:
        return sum(tensor.stored_bytes for tensor in self.stored)


class Names:
    """Looks names up in a function, then in the one around it (branches of control flow see both)."""

    def __init__(self, function: Function, around: Names | None = None) -> None:
        self._tensors: Mapping[str, Tensor] = function.tensors
        self._makers: Mapping[str, Op] = {name: op for op in function.ops for name in op.outputs}
        self._around = around
        self._widths: dict[str, int | None] = {}

    def tensor(self, name: str) -> Tensor | None:
        found = self._tensors.get(name)
        return found if found or not self._around else self._around.tensor(name)

    def weight(self, name: str) -> Weight | None:
        """The constant behind a name; None for what depends on the input."""
        tensor, maker = self._tensors.get(name), self._makers.get(name)
        if tensor is not None and tensor.constant:
            shape = tuple(int(size) for size in tensor.shape or ())
            return Weight(shape, tensor.dtype, (tensor,))
        if maker is not None:
            return self._unpacked(maker)
        return self._around.weight(name) if self._around else None

    def _unpacked(self, maker: Op) -> Weight | None:
        if maker.type not in _UNPACKING and not maker.type.startswith("constexpr_"):
            return None
        behind = [self.weight(name) for name in maker.inputs if name]
        constants = [weight for weight in behind if weight is not None]
        if not constants or len(constants) != len(behind):
            return None
        largest = max(constants, key=lambda weight: weight.elements)
        stored = tuple(tensor for weight in constants for tensor in weight.stored)
        return Weight(largest.shape, largest.dtype, stored, unpacked=True)

    def width(self, name: str) -> int | None:
        """The last dimension of a computed value, followed back to a weight where the file does not state it."""
        if name not in self._widths:
            self._widths[name] = None  # until it is known, so that a circle ends
            self._widths[name] = self._width(name)
        return self._widths[name]

    def _width(self, name: str) -> int | None:
        tensor, maker = self._tensors.get(name), self._makers.get(name)
        if tensor is not None and tensor.shape and isinstance(tensor.shape[-1], int):
            return tensor.shape[-1]
        if maker is None:
            return self._around.width(name) if self._around else None
        if maker.type.endswith("MatMulNBits"):
            return int(maker.attributes["N"])
        if "MatMul" in maker.type and (weight := self.weight(maker.inputs[1])):
            return weight.shape[-1]
        if maker.type == "Split" and (sizes := self._constant(maker.inputs[1:2])) is not None:
            return int(sizes[maker.outputs.index(name)])
        widths = (self.width(source) for source in maker.inputs if source)
        first = next((width for width in widths if width and width > 1), None)
        return first // len(maker.outputs) if first and maker.type == "Split" else first

    def _constant(self, names: tuple[str, ...]) -> np.ndarray | None:
        """The values of the one constant among `names`, if it is one."""
        tensor = self.tensor(names[0]) if names else None
        return tensor.read() if tensor is not None and tensor.constant else None
