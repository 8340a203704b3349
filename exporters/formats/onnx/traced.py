"""A traced program as ONNX, by PyTorch's own exporter; weights are then stored as the recipe has them.

int8 and float16 are storage: a weight is widened once, when the file is loaded, and the arithmetic is float32.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from exporters.architectures.stored import Integers, is_large
from exporters.architectures.traced import BATCH, Traced
from exporters.formats.lowered import Lowered
from exporters.formats.onnx import _FILES
from mobile_llm.bundle.manifest import EntryPoint
from mobile_llm.errors import UnsupportedModel

_OPSET = 18  # the oldest that PyTorch's exporter writes
_MINIMUM = {"onnxruntime": "1.16", "android": "7.0", "ios": "13.0"}


def lower(traced: Traced, precision: str, bundle: Path) -> Lowered:
    """Write the program below `bundle/onnx`."""
    model = _converted(traced)
    _forget_where(model.graph)
    if precision != "fp32":
        narrow = _Narrow(model.graph, traced, precision)
        narrow.apply()
    path = f"onnx/{_FILES[precision]}"
    (bundle / path).parent.mkdir(parents=True, exist_ok=True)
    (bundle / path).write_bytes(model.SerializeToString(deterministic=True))
    inputs = {tensor.name: tensor.bound(tensor.name) for tensor in traced.inputs}
    outputs = {tensor.name: tensor.bound(tensor.name) for tensor in traced.outputs}
    return Lowered(path, {"run": (EntryPoint(inputs, outputs),)}, _MINIMUM)


def _converted(traced: Traced) -> Any:
    import torch

    try:
        with _quiet():
            program = torch.onnx.export(
                traced.program,
                dynamo=True,
                verbose=False,
                opset_version=_OPSET,
                input_names=[tensor.name for tensor in traced.inputs],
                output_names=[tensor.name for tensor in traced.outputs],
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error).strip().splitlines()[-1][:200]
        raise UnsupportedModel(f"PyTorch cannot write this model as ONNX: {reason}") from None
    assert program is not None  # None is given for a file alone
    return program.model_proto


def _forget_where(graph: Any) -> None:
    """The exporter notes source lines and paths of this machine; sizes get the name that the manifest uses."""
    for item in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = BATCH


class _Narrow:
    """Replaces large float weights by narrower ones and the operator that widens them."""

    def __init__(self, graph: Any, traced: Traced, precision: str) -> None:
        self._graph = graph
        self._integers = Integers(traced)
        self._precision = precision

    def apply(self) -> None:
        from onnx import numpy_helper

        added = []
        for tensor in list(self._graph.initializer):
            values = numpy_helper.to_array(tensor)
            if is_large(values):
                added += self._narrowed(tensor, values)
        nodes = [*added, *self._graph.node]
        del self._graph.node[:]
        self._graph.node.extend(nodes)

    def _narrowed(self, tensor: Any, values: np.ndarray) -> list[Any]:
        from onnx import helper, numpy_helper

        name = tensor.name
        if self._precision == "fp16":
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
            return [helper.make_node("Cast", [f"{name}.half"], [name], name=f"{name}/widen", to=1)]
        found = self._integers.find(values)
        if found is None:
            return []
        weight, transposed = found
        integers = np.ascontiguousarray(weight.integers.T if transposed else weight.integers)
        scale = weight.scale[:, 0].reshape((1, -1) if transposed else (-1, 1))
        tensor.CopyFrom(numpy_helper.from_array(integers, f"{name}.integers"))
        self._graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
        # A DequantizeLinear would be run for every answer, and onnxruntime fails where several nodes share its weight.
        cast = helper.make_node("Cast", [f"{name}.integers"], [f"{name}.float"], name=f"{name}/widen", to=1)
        return [cast, helper.make_node("Mul", [f"{name}.float", f"{name}.scale"], [name], name=f"{name}/scale")]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter remarks on packages that are not there, and prints."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
