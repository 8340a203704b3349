"""Norms over the last dimension, and the sums before them, as onnxruntime has them."""

from __future__ import annotations

from exporters.architectures.blocks import Norm
from exporters.architectures.decoders.blocks import AnyNorm, RmsNorm
from exporters.formats.onnx.graph import CONTRIB, Graph


def normalized(graph: Graph, hidden: str, norm: AnyNorm) -> str:
    if isinstance(norm, Norm):
        parts = [graph.constant(part.name, part.float32()) for part in (norm.weight, norm.bias) if part]
        return graph.node("LayerNormalization", [hidden, *parts], epsilon=norm.eps, axis=-1)
    inputs = [hidden, _gain(graph, norm)]
    return graph.node("SimplifiedLayerNormalization", inputs, epsilon=norm.eps, axis=-1, stash_type=1)


def sum_and_normalized(graph: Graph, hidden: str, added: str, norm: AnyNorm) -> tuple[str, str]:
    if isinstance(norm, Norm):
        # A Sum, since an Add would be fused into SkipLayerNormalization, which takes longer than the two.
        total = graph.node("Sum", [hidden, added])
        return total, normalized(graph, total, norm)
    total, result = f"{norm.weight.name}.sum", f"{norm.weight.name}.normed"
    graph.nodes(
        "SkipSimplifiedLayerNormalization",
        [hidden, added, _gain(graph, norm)],
        [result, "", "", total],
        result,
        CONTRIB,
        epsilon=norm.eps,
    )
    return total, result


def _gain(graph: Graph, norm: RmsNorm) -> str:
    return graph.constant(norm.weight.name, norm.gain())
