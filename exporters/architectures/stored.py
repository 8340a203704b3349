"""Finding a quantized weight among a converter's constants: converters rename and transpose them, but keep values."""

from __future__ import annotations

import hashlib

import numpy as np

from exporters.architectures.traced import Traced
from exporters.architectures.weights import Quantized

_LARGE = 256  # numbers; below that narrower storage saves nothing


def is_large(values: np.ndarray) -> bool:
    """Whether a constant is worth storing in fewer bits."""
    return values.dtype in (np.float32, np.float16) and values.ndim >= 2 and values.size >= _LARGE


class Integers:
    """The integers of a traced program, looked up by the values they stand for, in either orientation."""

    def __init__(self, traced: Traced, dtype: type[np.floating] = np.float32) -> None:
        self._dtype = dtype
        self._known: dict[str, tuple[Quantized, bool]] = {}
        for weight in traced.integers.values():
            values = weight.dequantized().astype(dtype)
            self._known[_key(values.T)] = (weight, True)
            self._known[_key(values)] = (weight, False)

    def find(self, values: np.ndarray) -> tuple[Quantized, bool] | None:
        """The weight with these values, and whether they are its transpose; None for other constants."""
        squeezed = values.astype(self._dtype, copy=False)
        return self._known.get(_key(squeezed))


def _key(values: np.ndarray) -> str:
    return f"{values.shape} {hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()}"
