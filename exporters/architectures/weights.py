"""Parameters as every format receives them: named, and either floating point or integers with scales.

Covered: float32, float16, and symmetric integers per output channel or in blocks along the input dimension.
Not covered: zero points, codebooks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Quantized:
    """Symmetric integers of a two-dimensional weight: `value = integers * scale`.

    Attributes:
        integers: int8, shape (out, in), in [-127, 127] for 8 bits and [-8, 7] for 4.
        scale: float32 but exact in float16 so that every format holds the same number,
            shape (out, in // block); (out, 1) is per output channel.
        bits: 8 or 4.
    """

    integers: np.ndarray
    scale: np.ndarray
    bits: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.integers.shape

    @property
    def block(self) -> int:
        """How many neighbours of a row share a scale; the whole row for per-channel."""
        return self.integers.shape[1] // self.scale.shape[1]

    @property
    def per_channel(self) -> bool:
        return self.scale.shape[1] == 1

    def dequantized(self) -> np.ndarray:
        """The float32 values the integers stand for, shape (out, in)."""
        return self.integers.astype(np.float32) * np.repeat(self.scale, self.block, axis=1)


@dataclass(frozen=True, eq=False)
class Weight:
    """A parameter and its name in the checkpoint it came from (formats keep the name).

    Where a checkpoint fuses several, such as query, key and value, each is a weight of its own that knows the
    parameter it is rows of: `fused` is its name and the first row.
    """

    name: str
    value: np.ndarray | Quantized
    fused: tuple[str, int] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    @property
    def quantized(self) -> Quantized | None:
        return self.value if isinstance(self.value, Quantized) else None

    @property
    def floats(self) -> np.ndarray:
        """The values as they are stored. Raises TypeError for integers, which have scales beside them."""
        if isinstance(self.value, Quantized):
            raise TypeError(f"{self.name} is stored in integers")
        return self.value

    def float32(self) -> np.ndarray:
        """The values in float32, whatever they are stored as."""
        if isinstance(self.value, Quantized):
            return self.value.dequantized()
        return self.value.astype(np.float32, copy=False)

    def times(self, vector: np.ndarray) -> np.ndarray:
        """The product of a matrix (out, in) with float32 (in,): float32 (out,)."""
        values = self.value
        if not isinstance(values, Quantized):
            return values.astype(np.float32, copy=False) @ vector
        parts = vector.reshape(-1, values.block)
        by_block = np.stack(
            [values.integers[:, i * values.block : (i + 1) * values.block] @ part for i, part in enumerate(parts)],
            axis=1,
        )
        total: np.ndarray = (by_block * values.scale).sum(axis=1)
        return total
