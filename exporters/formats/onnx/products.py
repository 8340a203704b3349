"""Products with stored weights, and lookups in stored tables, in the form that onnxruntime's kernels take them.

Covered: float32 and float16 (stored so, computed in float32), int8 per channel, integers in blocks of a power of two
from 16 on. Not covered: other blocks, zero points.

int8 per channel has two forms. As a product of whole rows it is the better one on CPUs that cannot multiply bytes
(Cortex-A53), and in prompts; in blocks that share their row's scale it decodes faster on those that can (ARMv8.2 with
dot products, x86 with VNNI), and activations, rounded block by block, are closer to the model's. On a Cortex-A53
blocks of 8 bits take five times the instructions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from exporters.architectures.blocks import Linear
from exporters.architectures.stacking import neighbours, stacked
from exporters.architectures.weights import Quantized, Weight
from exporters.formats.onnx.graph import CONTRIB, FLOAT, Graph
from mobile_llm.errors import UnsupportedModel

_SMALLEST_BLOCK, _LARGEST_BLOCK = 16, 128
_SMALLEST_RANGE = 1e-20
_PIECE = 16 << 20  # bytes of a head that are one product
_PIECE_ROWS = 64  # a piece has a multiple of so many
_INT8_ACTIVATIONS = 4  # the accuracy level at which MatMulNBits rounds activations to int8, block by block


class Products:
    """Adds products and lookups to `graph`; values are (batch, sequence, width). `in_blocks`: int8 per channel too,
    where rows divide into blocks."""

    def __init__(self, graph: Graph, in_blocks: bool) -> None:
        self._graph = graph
        self._in_blocks = in_blocks

    def linear(self, hidden: str, linear: Linear) -> str:
        return self._around(hidden, linear, self._product)

    def several(self, hidden: str, prefix: str, **linears: Linear) -> list[str]:
        """The outputs of layers with one input; neighbours that are stored alike are one product, named after them."""
        found: list[str] = []
        for group in neighbours(tuple(linears.values())):
            names = list(linears)[len(found) : len(found) + len(group)]
            product = self.linear(hidden, stacked(group, f"{prefix}.{'_'.join(names)}"))
            found += self._apart(product, [layer.weight.shape[0] for layer in group])
        return found

    def logits(self, hidden: str, head: Linear, tied: bool) -> str:
        """The product with a head; one that is tied is a table whose rows are looked up too, and stored once."""
        if head.weight.quantized and self._block(head.weight.quantized):
            return self._around(hidden, head, self._product_in_pieces)
        return self._around(hidden, head, self._table_product if tied else self._product)

    def rows(self, table: Weight, ids: str) -> str:
        """Rows of a table; of what is not float32 the few that are looked up are widened."""
        g, quantized = self._graph, table.quantized
        if quantized and self._block(quantized):
            return self._block_rows(table.name, quantized, ids)
        found = self._widened(g.node("Gather", [self._table(table), ids], axis=0), table)
        if not quantized:
            return found
        scale = g.node("Gather", [self._channel_scale(table.name, quantized), ids], axis=0)
        return g.node("Mul", [found, g.node("Unsqueeze", [scale, g.vector(-1)])])

    def floats(self, weight: Weight) -> str:
        """A constant of a few numbers, such as a bias, in float32."""
        return self._graph.constant(weight.name, weight.float32())

    def _around(self, hidden: str, linear: Linear, product: Callable[[str, Weight], str]) -> str:
        """A product and its bias. Inputs that are rounded token by token leave their center out, and their outliers
        apart; in blocks their ranges are small as it is."""
        g, weight = self._graph, linear.weight
        by_token = weight.quantized is not None and not self._block(weight.quantized)
        center = linear.center if by_token else None
        if center is not None:
            hidden = g.node("Sub", [hidden, g.constant(f"{weight.name}.center", center)])
        if by_token and linear.outliers_beyond is not None:
            rows = self._outliers_behind(hidden, linear.outliers_beyond)
            found = g.node("Add", g.nodes("Split", [product(rows, weight)], 2, axis=1))
        else:
            found = product(hidden, weight)
        if center is not None:
            return g.node("Add", [found, g.constant(f"{weight.name}.at_center", linear.at_center)])
        return g.node("Add", [found, self.floats(linear.bias)]) if linear.bias else found

    def _outliers_behind(self, hidden: str, bound: float) -> str:
        """As many rows again, whose sum with the first is what came in."""
        g = self._graph
        within = g.node("Clip", [hidden, g.number(-bound), g.number(bound)])
        return g.node("Concat", [within, g.node("Sub", [hidden, within])], axis=1)

    def _apart(self, product: str, widths: list[int]) -> list[str]:
        if len(widths) == 1:
            return [product]
        return self._graph.nodes("Split", [product, self._graph.vector(*widths)], len(widths), axis=-1)

    def _table_product(self, hidden: str, table: Weight) -> str:
        g, quantized = self._graph, table.quantized
        if quantized:
            transposed = g.node("Transpose", [self._table(table)], perm=[1, 0])
            return self._token_product(hidden, transposed, table.name, quantized)
        # Transposed in the product: a Transpose would be a second copy in memory while the file is opened.
        inputs = [hidden, self._widened(self._table(table), table)]
        return g.node("FusedMatMul", inputs, domain=CONTRIB, transB=1)

    def _product(self, hidden: str, weight: Weight) -> str:
        g, quantized = self._graph, weight.quantized
        if not quantized:
            stored = g.constant(f"{weight.name}.T", weight.floats.T)
            return g.node("MatMul", [hidden, self._widened(stored, weight)])
        if self._block(quantized):
            return self._block_product(hidden, weight.name, quantized, range(weight.shape[0]))
        integers = g.constant(f"{weight.name}.T", quantized.integers.T)
        return self._token_product(hidden, integers, weight.name, quantized)

    def _token_product(self, hidden: str, integers: str, name: str, weight: Quantized) -> str:
        """A product whose int8 activations are rounded token by token: rows are divided by their largest entry before
        it and multiplied by that after it. A decoder's first token carries far larger values than the others: with one
        range for all in a prompt, SmolLM2's answers diverge by .45 nats instead of .03."""
        g = self._graph
        largest = g.node("ReduceMax", [g.node("Abs", [hidden])], axes=[-1], keepdims=1)
        scale = g.node("Max", [largest, g.number(_SMALLEST_RANGE)])
        return g.node("Mul", [self._integer_product(g.node("Div", [hidden, scale]), integers, name, weight), scale])

    def _integer_product(self, hidden: str, integers: str, name: str, weight: Quantized) -> str:
        inputs = [hidden, integers, self._channel_scale(name, weight)]
        return self._graph.node("DynamicQuantizeMatMul", inputs, domain=CONTRIB)

    def _channel_scale(self, name: str, weight: Quantized) -> str:
        return self._scale(name, weight.scale[:, 0], range(weight.shape[0]))

    def _product_in_pieces(self, hidden: str, head: Weight) -> str:
        """The product with a large head in blocks, some rows at a time. onnxruntime lays weights out anew as it opens a
        file, and holds what it reads of one beside all that it has laid out: the head, which is the last, or a piece of
        it. With one of Gemma 3's size (262,144 x 640 in 8 bits) the peak is 244 MB for 376; with SmolLM2's 28 MB it is
        13 MB lower, for .6 % of a step. Logits of many positions are in memory twice for it."""
        quantized = head.quantized
        assert quantized is not None
        rows, stored = head.shape[0], quantized.integers.size * quantized.bits // 8
        size = -(-rows // -(-stored // _PIECE))
        step = -(-size // _PIECE_ROWS) * _PIECE_ROWS
        parts = [range(first, min(first + step, rows)) for first in range(0, rows, step)]
        pieces = [self._block_product(hidden, head.name, quantized, part) for part in parts]
        return self._graph.node("Concat", pieces, axis=-1) if len(pieces) > 1 else pieces[0]

    def _block_product(self, hidden: str, name: str, weight: Quantized, rows: range) -> str:
        return self._graph.node(
            "MatMulNBits",
            [hidden, *self._blocks(name, weight, rows)],
            domain=CONTRIB,
            K=weight.shape[1],
            N=len(rows),
            bits=weight.bits,
            block_size=self._block(weight),
            accuracy_level=_INT8_ACTIVATIONS,
        )

    def _block_rows(self, name: str, weight: Quantized, ids: str) -> str:
        """One scale to a row is that of a block as long as the row, so that onnxruntime keeps it once."""
        g, (count, width) = self._graph, weight.shape
        block = 1 << (width - 1).bit_length() if weight.per_channel else self._block(weight)
        return g.node(
            "GatherBlockQuantized",
            [
                g.reshaped(self._stored_blocks(name, weight), count, width * weight.bits // 8),
                ids,
                self._scale(name, weight.scale, range(count)),
            ],
            domain=CONTRIB,
            bits=weight.bits,
            block_size=block,
            gather_axis=0,
            quantize_axis=1,
        )

    def _blocks(self, name: str, weight: Quantized, rows: range) -> tuple[str, str]:
        """Of some rows uint8 (rows, blocks, bytes of a block), and scales (rows, blocks)."""
        integers = self._part(self._stored_blocks(name, weight), weight.shape[0], rows)
        return integers, self._block_scale(name, weight, rows)

    def _stored_blocks(self, name: str, weight: Quantized) -> str:
        """uint8 (out, blocks, bytes of a block), with the middle of the range for zero."""
        g, block = self._graph, self._block(weight)
        if block < _SMALLEST_BLOCK or block & (block - 1):
            raise UnsupportedModel(
                f"{name} has {block} integers to a scale; onnxruntime takes 16, 32, 64 …: quantize in such blocks"
            )
        return g.shared(name, lambda: g.constant(name, _packed(weight, block)))

    def _block_scale(self, name: str, weight: Quantized, rows: range) -> str:
        """A row's one scale is repeated by onnxruntime when it opens the file."""
        g, blocks = self._graph, weight.shape[1] // self._block(weight)
        scale = self._scale(name, weight.scale, rows)
        if weight.scale.shape[1] == blocks:
            return scale
        return g.shared(f"{scale}/blocks", lambda: g.node("Expand", [scale, g.vector(len(rows), blocks)]))

    def _scale(self, name: str, scale: np.ndarray, rows: range) -> str:
        """Stored in float16, where that loses nothing. onnxruntime widens constants once, when it opens the file."""
        g, half = self._graph, scale.astype(np.float16)
        exact = bool((half == scale).all())
        stored = self._part(g.constant(f"{name}.scale", half if exact else scale), len(scale), rows)
        return g.shared(f"{stored}/float32", lambda: g.node("Cast", [stored], to=FLOAT)) if exact else stored

    def _part(self, constant: str, count: int, rows: range) -> str:
        """Some or all of a constant's `count` rows."""
        return constant if len(rows) == count else self._graph.rows(constant, rows)

    def _block(self, weight: Quantized) -> int:
        """How many neighbours are a block; 0 for a product of whole rows."""
        if weight.bits != 8 or not weight.per_channel:
            return weight.block
        largest = int(np.gcd(weight.shape[1], _LARGEST_BLOCK)) if self._in_blocks else 0
        return largest if largest >= _SMALLEST_BLOCK else 0

    def _table(self, table: Weight) -> str:
        return self._graph.constant(table.name, table.quantized.integers if table.quantized else table.floats)

    def _widened(self, value: str, weight: Weight) -> str:
        """float32 of what is stored in fewer bits."""
        narrow = weight.quantized or weight.floats.dtype != np.float32
        return self._graph.node("Cast", [value], to=FLOAT) if narrow else value


def _packed(weight: Quantized, block: int) -> np.ndarray:
    """uint8 (out, blocks, bytes of a block), with the middle of the range for zero."""
    stored = (weight.integers + np.int16(1 << (weight.bits - 1))).astype(np.uint8)
    packed = stored[:, 0::2] | stored[:, 1::2] << 4 if weight.bits == 4 else stored
    return packed.reshape(weight.shape[0], weight.shape[1] // block, -1)
