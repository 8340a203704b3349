"""An ONNX file with its integer products replaced by products of the float32 values the integers stand for."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mobile_llm.backends.onnx import EXTENSIONS, OnnxSession, opened_decoder
from mobile_llm.backends.onnx_decoder import OnnxDecoder, decoder_of
from mobile_llm.bundle.integrity import inside
from mobile_llm.bundle.manifest import Artifact
from mobile_llm.errors import BackendUnavailable

Opened = TypeVar("Opened")
_DATA = "exact.onnx_data"  # large models do not fit one file


def open_session(bundle: Path, artifact: Artifact, threads: int | None) -> OnnxSession:
    extensions = EXTENSIONS in artifact.minimum
    return _open_widened(bundle, artifact, lambda path: OnnxSession(path, threads, extensions))


def open_decoder(bundle: Path, artifact: Artifact, threads: int | None) -> OnnxDecoder:
    return _open_widened(bundle, artifact, lambda path: decoder_of(opened_decoder(path, threads), artifact))


def _open_widened(bundle: Path, artifact: Artifact, open_file: Callable[[Path], Opened]) -> Opened:
    try:
        import onnx
    except ImportError:
        raise BackendUnavailable('this comparison needs onnx: pip install "mobile-llm[export-onnx]"') from None
    model = onnx.load(str(inside(bundle, artifact.path)))
    _Widening(model.graph).apply()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "exact.onnx"
        onnx.save(model, str(path), save_as_external_data=True, location=_DATA)
        del model  # the session makes its own copies
        return open_file(path)


class _Widening:
    """Turns integer products of a graph into float ones; a weight that several layers share is widened once. It is
    widened here: onnxruntime would turn a DequantizeLinear back into an integer product."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        # Copies of a constant, a table that is turned for the product while rows of it are looked up, scales that are
        # stored in float16, and one scale for several blocks, which is that of each without being repeated.
        self._made = {n.output[0]: n for n in graph.node if n.op_type in ("Slice", "Transpose", "Cast", "Expand")}
        self._done: dict[str, str] = {}

    def apply(self) -> None:
        kinds = {"DynamicQuantizeMatMul": self._by_channel, "MatMulNBits": self._by_block}
        nodes = [new for n in self._graph.node for new in kinds.get(n.op_type, lambda node: [node])(n)]
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        self._drop_unused()

    def _by_channel(self, node: Any) -> list[Any]:
        """(activations, integers, scale, zero point, bias) as a product and a sum."""
        activations, weight, scale, zero_point, bias = [*node.input, "", ""][:5]

        def values() -> np.ndarray:
            integers = self._array(weight).astype(np.float32)
            return (integers - (self._array(zero_point) if zero_point else 0)) * self._array(scale)

        return self._product(node, activations, self._widened(self._source(weight), values), bias)

    def _by_block(self, node: Any) -> list[Any]:
        """(activations, integers (out, blocks, bytes), scale (out, blocks)), symmetric."""
        activations, weight, scale = node.input
        settings = {attribute.name: attribute.i for attribute in node.attribute}

        def values() -> np.ndarray:
            stored = self._array(weight)
            if settings["bits"] == 4:
                stored = np.stack([stored & 15, stored >> 4], axis=-1).reshape(*stored.shape[:2], -1)
            middle = 1 << (settings["bits"] - 1)
            blocks = (stored.astype(np.float32) - middle) * self._array(scale)[:, :, None]
            return np.ascontiguousarray(blocks.reshape(len(blocks), -1).T)

        return self._product(node, activations, self._widened(weight, values), "")

    def _product(self, node: Any, activations: str, weight: str, bias: str) -> list[Any]:
        from onnx import helper

        (result,) = node.output
        product = helper.make_node("MatMul", [activations, weight], [f"{result}/product" if bias else result])
        return [product, helper.make_node("Add", [f"{result}/product", bias], [result])] if bias else [product]

    def _widened(self, name: str, values: Callable[[], np.ndarray]) -> str:
        from onnx import numpy_helper

        if name not in self._done:
            self._done[name] = f"{name}/float32"
            self._graph.initializer.append(numpy_helper.from_array(values(), self._done[name]))
        return self._done[name]

    def _source(self, value: str) -> str:
        return self._source(self._made[value].input[0]) if value in self._made else value

    def _array(self, value: str) -> np.ndarray:
        from onnx import numpy_helper

        if value not in self._made:
            return numpy_helper.to_array(self._constants[value])
        node = self._made[value]
        array = self._array(node.input[0])
        return array.T if node.op_type == "Transpose" else array.astype(np.float32) if node.op_type == "Cast" else array

    def _drop_unused(self) -> None:
        """What only made the copies, and the integers that nothing reads any more."""
        read = _read(self._graph.node) | {output.name for output in self._graph.output}
        nodes = [node for node in self._graph.node if read.intersection(node.output)]
        read = _read(nodes)
        constants = [tensor for tensor in self._graph.initializer if tensor.name in read]
        for field, left in ((self._graph.node, nodes), (self._graph.initializer, constants)):
            del field[:]
            field.extend(left)


def _read(nodes: Iterable[Any]) -> set[str]:
    """What nodes read, in branches too."""
    inner = [inner for node in nodes for attribute in node.attribute for inner in attribute.g.node]
    return {name for node in [*nodes, *inner] for name in node.input}
