"""An int8 ONNX file with its integer products replaced by products of the float32 values the integers stand for."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mobile_llm.backends.onnx import OnnxSession
from mobile_llm.bundle.integrity import inside
from mobile_llm.bundle.manifest import Artifact
from mobile_llm.errors import BackendUnavailable


def open_session(bundle: Path, artifact: Artifact, threads: int | None) -> OnnxSession:
    try:
        import onnx
    except ImportError:
        raise BackendUnavailable('this comparison needs onnx: pip install "mobile-llm[export-onnx]"') from None
    model = onnx.load(str(inside(bundle, artifact.path)))
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [new for node in model.graph.node for new in _widened(node, constants)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "exact.onnx"
        onnx.save(model, str(path))
        del model, constants, nodes  # the session makes its own copies
        return OnnxSession(path, threads)


def _widened(node: Any, constants: dict[str, Any]) -> Iterator[Any]:
    """DynamicQuantizeMatMul (activations, integers, scale, zero point, bias) as a product of floats and a sum. The
    weight is widened here: onnxruntime would turn a DequantizeLinear back into an integer product."""
    from onnx import helper, numpy_helper

    if node.op_type != "DynamicQuantizeMatMul":
        yield node
        return
    activations, weight, scale, zero_point, bias = [*node.input, "", ""][:5]
    integers = numpy_helper.to_array(constants[weight]).astype(np.float32)
    if zero_point:
        integers = integers - numpy_helper.to_array(constants[zero_point])
    values = integers * numpy_helper.to_array(constants[scale])
    constants[weight].CopyFrom(numpy_helper.from_array(values, weight))
    product = f"{node.output[0]}/product" if bias else node.output[0]
    yield helper.make_node("MatMul", [activations, weight], [product])
    if bias:
        yield helper.make_node("Add", [product, bias], [node.output[0]])
