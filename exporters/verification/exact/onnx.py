"""An int8 ONNX file with its integer products replaced by products of the float32 values the integers stand for."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mobile_llm.backends.onnx import EXTENSIONS, OnnxSession
from mobile_llm.bundle.integrity import inside
from mobile_llm.bundle.manifest import Artifact
from mobile_llm.errors import BackendUnavailable


def open_session(bundle: Path, artifact: Artifact, threads: int | None) -> OnnxSession:
    try:
        import onnx
    except ImportError:
        raise BackendUnavailable('this comparison needs onnx: pip install "mobile-llm[export-onnx]"') from None
    model = onnx.load(str(inside(bundle, artifact.path)))
    widening = _Widening(model.graph)
    nodes = [new for node in model.graph.node for new in widening.replaced(node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "exact.onnx"
        onnx.save(model, str(path))
        del model, widening, nodes  # the session makes its own copies
        return OnnxSession(path, threads, extensions=EXTENSIONS in artifact.minimum)


class _Widening:
    """Turns integer products of a graph into float ones; a weight that several layers share is widened once."""

    def __init__(self, graph: Any) -> None:
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._copied = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Slice"}
        self._done: set[str] = set()

    def replaced(self, node: Any) -> Iterator[Any]:
        """DynamicQuantizeMatMul (activations, integers, scale, zero point, bias) as a product of floats and a sum.
        The weight is widened here: onnxruntime would turn a DequantizeLinear back into an integer product."""
        from onnx import helper

        if node.op_type != "DynamicQuantizeMatMul":
            yield node
            return
        activations, weight, scale, zero_point, bias = [*node.input, "", ""][:5]
        self._widen(weight, scale, zero_point)
        product = f"{node.output[0]}/product" if bias else node.output[0]
        yield helper.make_node("MatMul", [activations, weight], [product])
        if bias:
            yield helper.make_node("Add", [product, bias], [node.output[0]])

    def _widen(self, weight: str, scale: str, zero_point: str) -> None:
        from onnx import numpy_helper

        name = self._copied.get(weight, weight)
        if name in self._done:
            return
        self._done.add(name)
        integers = numpy_helper.to_array(self._constants[name]).astype(np.float32)
        if zero_point:
            integers = integers - numpy_helper.to_array(self._constants[zero_point])
        values = integers * numpy_helper.to_array(self._constants[scale])
        self._constants[name].CopyFrom(numpy_helper.from_array(values, name))
