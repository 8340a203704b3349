"""PCG32 (O'Neill, "PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms", 2014), written so that
Kotlin and Swift give the same numbers: 64-bit integers that wrap, no floating point before the last step."""

from __future__ import annotations

_MULTIPLIER = 6364136223846793005
_WRAP64 = (1 << 64) - 1
_WRAP32 = (1 << 32) - 1


class Pcg32:
    """A stream of numbers that depends on `seed` alone."""

    def __init__(self, seed: int, stream: int = 54) -> None:
        self._increment = (stream << 1 | 1) & _WRAP64
        self._state = 0
        self.next_uint32()
        self._state = (self._state + seed) & _WRAP64
        self.next_uint32()

    def next_uint32(self) -> int:
        """The next integer in [0, 2^32)."""
        old = self._state
        self._state = (old * _MULTIPLIER + self._increment) & _WRAP64
        shifted = ((old >> 18) ^ old) >> 27 & _WRAP32
        rotation = old >> 59
        return (shifted >> rotation | shifted << (-rotation & 31)) & _WRAP32

    def next_float(self) -> float:
        """The next number in [0, 1), a multiple of 2^-32."""
        return self.next_uint32() / 2.0**32
