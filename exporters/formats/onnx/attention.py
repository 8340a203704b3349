"""Attention of the encoder family in ONNX: MultiHeadAttention of onnxruntime, and what is added to its scores.

Query, key and value are one product where their weights allow it. A bias by distance, contents compared with
distances, and windows become one `attention_bias` (batch, heads, S, S); see `exporters.architectures.positions` for
how it is skewed. Rotary positions are onnxruntime's RotaryEmbedding.
"""

from __future__ import annotations

import numpy as np

from exporters.architectures.blocks import Attention, Disentangled, Linear, RelativeBias, Rotary
from exporters.architectures.positions import keys_by_distance, queries_by_distance, relative_bias, rotary_tables
from exporters.architectures.stacking import stacked
from exporters.formats.onnx.graph import CONTRIB, FLOAT, Graph

_MASKED = -1e4


def scores(
    graph: Graph, qkv: list[str], attention: Attention, masked: list[str], unpadded: str, length: str, limit: int
) -> str:
    """Query, key and value (B, S, hidden) -> context (B, S, hidden). `masked` is the mask, `unpadded` whether there is
    no padding, `length` the vector [S]."""
    query, key, value = qkv
    if isinstance(attention.positions, Rotary):
        query, key = (_rotated(graph, x, attention, attention.positions.theta, limit) for x in (query, key))
    bias = _bias(graph, query, key, attention, length, limit)
    without, with_mask = [query, key, value, "", "", bias], [query, key, value, "", *masked, bias]
    if not bias:
        without, with_mask = without[:3], with_mask[:5]
    settings = {"num_heads": attention.heads, "scale": attention.scale}
    return graph.either(unpadded, [without, with_mask], "MultiHeadAttention", **settings)


def packed(attention: Attention) -> Linear:
    """Query, key and value as one product: their rows one after the other, scales too."""
    parts = (attention.query, attention.key, attention.value)
    return stacked(parts, f"{attention.query.weight.name.rsplit('.', 2)[0]}.query_key_value")


def _rotated(graph: Graph, value: str, attention: Attention, theta: float, limit: int) -> str:
    cosines, sines = rotary_tables(theta, attention.head_dim, limit)
    tables = [graph.constant(f"cosines_{theta:g}", cosines), graph.constant(f"sines_{theta:g}", sines)]
    return graph.node("RotaryEmbedding", [value, graph.vector(0), *tables], domain=CONTRIB)


def _bias(graph: Graph, query: str, key: str, attention: Attention, length: str, limit: int) -> str:
    """What is added to scores; "" for nothing."""
    parts = []
    if isinstance(attention.positions, RelativeBias):
        parts.append(_by_distance(graph, attention.positions, length, limit))
    if isinstance(attention.positions, Disentangled):
        parts += _disentangled(graph, query, key, attention, attention.positions, length, limit)
    if attention.window is not None:
        parts.append(_window(graph, attention.window, length))
    return graph.node("Sum", parts) if len(parts) > 1 else parts[0] if parts else ""


def _by_distance(graph: Graph, bias: RelativeBias, length: str, limit: int) -> str:
    """(1, heads, S, S), once for all layers."""

    def build() -> str:
        table = graph.constant(f"{bias.table.name} by distance", relative_bias(bias)[None, :, None])
        rows = _distances(graph, table, length, limit, axis=3)
        wide = graph.node("Concat", [graph.vector(1, 1), length, graph.vector(1)], axis=0)
        return _skewed(graph, graph.node("Expand", [rows, wide]), length)

    return graph.shared(f"bias of {bias.table.name}", build)


def _disentangled(
    graph: Graph, query: str, key: str, attention: Attention, block: Disentangled, length: str, limit: int
) -> list[str]:
    found = []
    if block.key:
        product = _compared(graph, query, attention, keys_by_distance(block, attention), block.key, length, limit)
        found.append(_skewed(graph, product, length))
    if block.query:
        product = _compared(graph, key, attention, queries_by_distance(block, attention), block.query, length, limit)
        found.append(graph.node("Transpose", [_skewed(graph, product, length)], perm=[0, 1, 3, 2]))
    return found


def _compared(
    graph: Graph,
    value: str,
    attention: Attention,
    distances: tuple[np.ndarray, np.ndarray],
    linear: Linear,
    length: str,
    limit: int,
) -> str:
    """Contents (B, S, hidden) times the vectors of all distances: (B, heads, S, 2 S)."""
    vectors, rows = distances
    side = "reversed" if rows[0] > rows[-1] else "forward"
    index = _distances(graph, graph.constant(f"rows by distance, {side}", rows.astype(np.int64)), length, limit, axis=0)
    scaled = (vectors * np.float32(attention.scale)).transpose(0, 2, 1)
    table = graph.constant(f"{linear.weight.name} of distances", np.ascontiguousarray(scaled))
    chosen = graph.node("Gather", [table, index], axis=2)
    shape = graph.vector(0, 0, attention.heads, attention.head_dim)
    heads = graph.node("Transpose", [graph.node("Reshape", [value, shape])], perm=[0, 2, 1, 3])
    return graph.node("MatMul", [heads, chosen])


def _distances(graph: Graph, table: str, length: str, limit: int, axis: int) -> str:
    """The 2 S entries in the middle of an axis of 2 limit."""
    middle = graph.vector(limit)
    return graph.node(
        "Slice", [table, graph.node("Sub", [middle, length]), graph.node("Add", [middle, length]), graph.vector(axis)]
    )


def _skewed(graph: Graph, value: str, length: str) -> str:
    """(B, heads, S, 2 S) over distances -> (B, heads, S, S) over keys."""
    one = graph.vector(1)
    first = graph.shared("S - 1", lambda: graph.node("Sub", [length, one]))
    stride = graph.shared("2 S - 1", lambda: graph.node("Add", [length, first]))
    last = graph.shared("2 S^2 - 1", lambda: graph.node("Add", [first, graph.node("Mul", [length, stride])]))
    rows = graph.shared("skewed shape", lambda: graph.node("Concat", [graph.vector(0, 0), length, stride], axis=0))
    flat = graph.node("Reshape", [value, graph.vector(0, 0, -1)])
    cut = graph.node("Reshape", [graph.node("Slice", [flat, first, last, graph.vector(2)]), rows])
    return graph.node("Slice", [cut, graph.vector(0), length, graph.vector(3)])


def _window(graph: Graph, window: int, length: str) -> str:
    """(1, 1, S, S): 0 near, a large negative number further than `window` away; once for all layers."""

    def build() -> str:
        scalar = graph.node("Squeeze", [length])
        bounds = [graph.constant("zero", np.array(0, np.int64)), scalar, graph.constant("one", np.array(1, np.int64))]
        places = graph.node("Cast", [graph.node("Range", bounds)], to=FLOAT)
        apart = graph.node("Sub", [graph.node("Unsqueeze", [places, graph.vector(i)]) for i in (0, 1)])
        beyond = graph.node("Sub", [graph.node("Abs", [apart]), graph.number(float(window))])
        outside = graph.node("Clip", [beyond, graph.number(0.0), graph.number(1.0)])
        return graph.node("Unsqueeze", [graph.node("Mul", [outside, graph.number(_MASKED)]), graph.vector(0, 1)])

    return graph.shared(f"window of {window}", build)


def sequence_length(graph: Graph, ids: str) -> str:
    """The vector [S], int64."""
    return graph.shared(
        "sequence length",
        lambda: graph.node("Slice", [graph.node("Shape", [ids]), graph.vector(1), graph.vector(2)]),
    )
