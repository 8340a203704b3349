"""Activations as onnxruntime has them."""

from __future__ import annotations

from exporters.architectures.blocks import Activation
from exporters.formats.onnx.graph import CONTRIB, Graph

_CONTRIB = {"gelu": "Gelu", "gelu_tanh": "FastGelu"}
_STANDARD = {"relu": "Relu", "tanh": "Tanh"}


def activation(graph: Graph, hidden: str, kind: Activation) -> str:
    if kind == "silu":
        return graph.node("Mul", [hidden, graph.node("Sigmoid", [hidden])])
    if kind in _CONTRIB:
        return graph.node(_CONTRIB[kind], [hidden], domain=CONTRIB)
    return graph.node(_STANDARD[kind], [hidden])
