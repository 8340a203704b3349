"""Several steps of one token at once, with the numbers that they give one after the other, to the last bit.

Tokens that were guessed are verified so, and LiteRT-LM's prompts read. Sums in another order would differ in their last
bits, which tip the rounding of what integer products take in, layer after layer, and with them one choice in ten. So
every token sees those before it in the cache, where they will be, and itself apart, as in a step; the kernels multiply
row by row, and what a row gives does not depend on how many there are (XNNPACK on x86, where it is tested; on Arm not
checked).
"""

from __future__ import annotations

from exporters.architectures.decoders.blocks import CausalAttention
from exporters.formats.tflite.cached import CachedAttention, groups_of
from exporters.formats.tflite.flatbuffer import Ops


class SteppedAttention(CachedAttention):
    """Over caches in which the new rows are written."""

    def _mask_of_cache(self, attention: CausalAttention) -> int:
        return self._positions.mask_of_cache(attention.window, groups_of(attention), each=True)

    def _scores_of_new(self, query: int, key: int, attention: CausalAttention) -> int:
        """Of each token with itself, (1, kv_heads, groups * rows, 1)."""
        n = self._nodes
        products = n.binary("Mul", self._by_row(query), self._by_row(key))
        return self._capped(self._below_each_other(n.reduce(Ops.SUM, products, 3)), attention)

    def _weighted_new(self, chances: int, value: int, attention: CausalAttention) -> int:
        weighted = self._nodes.binary("Mul", self._by_row(chances), self._by_row(value))
        return self._below_each_other(weighted)

    def _by_row(self, value: int) -> int:
        """(1, kv_heads, any * rows, size) -> (kv_heads, any, rows, size)"""
        _, heads, count, size = self._graph.shape(value)
        return self._nodes.reshape(value, (heads, count // self._rows, self._rows, size))

    def _below_each_other(self, value: int) -> int:
        heads, groups, rows, size = self._graph.shape(value)
        return self._nodes.reshape(value, (1, heads, groups * rows, size))
