"""Writing an ONNX file node by node: names, constants stored once, contrib operators beside standard ones.

Operator semantics: https://onnx.ai/onnx/operators and, for `com.microsoft`, onnxruntime's ContribOperators.md.
A file stops at 2 GB, protobuf's limit. A graph that keeps its large constants beside it, in one file that a runtime
maps into memory instead of reading it, has no such limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from mobile_llm.errors import UnsupportedModel

# LayerNormalization came with opset 17; nothing here needs a newer one, and old runtimes read it.
OPSET = 17
CONTRIB = "com.microsoft"
EXTENSIONS = "ai.onnx.contrib"  # of onnxruntime-extensions
_LARGEST = 2**31 - 1
_BESIDE = 1024  # bytes from which a constant is worth a place beside the file
_PAGE = 4096  # what a mapping starts at


class Graph:
    """A graph under construction. Values are their names. With `beside` large constants go into a file of their own:
    of those the arrays are kept as they are given, which may be views, and copied only as they are written."""

    def __init__(self, name: str, beside: bool = False) -> None:
        self._model = onnx.ModelProto(ir_version=8, producer_name="mobile_llm")
        self._graph = self._model.graph
        self._graph.name = name
        self._constants: set[str] = set()
        self._domains = {""}
        self._shared: dict[str, str] = {}
        self._beside = beside
        self._large: dict[str, _Large] = {}

    def input(self, name: str, dtype: int, shape: Sequence[int | str]) -> str:
        self._graph.input.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, name: str, dtype: int, shape: Sequence[int | str]) -> None:
        self._graph.output.append(helper.make_tensor_value_info(name, dtype, shape))

    def constant(self, name: str, values: np.ndarray) -> str:
        """Store `values` under `name`; the same name again means the same constant."""
        if name not in self._constants:
            self._constants.add(name)
            tensor = self._graph.initializer.add(name=name, dims=values.shape)
            tensor.data_type = helper.np_dtype_to_tensor_dtype(values.dtype)
            if self._beside and values.nbytes >= _BESIDE:
                self._large[name] = _Large(values, [_View(tensor, 0, values.nbytes)])
            else:
                tensor.raw_data = np.ascontiguousarray(values).tobytes()
        return name

    def reshaped(self, constant: str, *sizes: int) -> str:
        """A constant in another shape. Beside the file it is the same bytes: what a Reshape gives would be computed as
        the file is opened, and stay in memory as a copy."""
        if constant not in self._large:
            return self.node("Reshape", [constant, self.vector(*sizes)])
        return self._view(constant, f"{constant}.{'x'.join(map(str, sizes))}", sizes)

    def rows(self, constant: str, rows: range) -> str:
        """Neighbouring rows of a constant beside the file: the same bytes."""
        values = self._large[constant].values
        name, sizes = f"{constant}.{rows.start}_{rows.stop}", (len(rows), *values.shape[1:])
        return self._view(constant, name, sizes, rows.start * values[0].nbytes)

    def _view(self, constant: str, name: str, sizes: Sequence[int], offset: int = 0) -> str:
        """A constant of bytes that another one has beside the file."""
        if name not in self._constants:
            self._constants.add(name)
            values, views = self._large[constant].values, self._large[constant].views
            tensor = self._graph.initializer.add(name=name, dims=sizes, data_type=views[0].tensor.data_type)
            views.append(_View(tensor, offset, math.prod(sizes) * values.itemsize))
        return name

    def overridable(self, name: str, values: np.ndarray) -> str:
        """A constant that a caller may replace: an input to those who know of it, and to nobody else."""
        self.input(name, helper.np_dtype_to_tensor_dtype(values.dtype), values.shape)
        return self.constant(name, values)

    def vector(self, *sizes: int) -> str:
        """A constant vector of int64, such as a shape or axes."""
        return self.constant(f"vector_{'_'.join(map(str, sizes))}", np.array(sizes, np.int64))

    def number(self, value: float) -> str:
        """A constant float32 scalar."""
        return self.constant(f"number_{value!r}", np.array(value, np.float32))

    def strings(self, *texts: str) -> str:
        """A constant vector of strings."""
        name = f"strings_{len(self._graph.initializer)}"
        tensor = self._graph.initializer.add(name=name, dims=[len(texts)], data_type=TensorProto.STRING)
        tensor.string_data.extend(text.encode() for text in texts)
        return name

    def shared(self, key: str, build: Callable[[], str]) -> str:
        """What `build` adds, added the first time it is asked for by this key."""
        if key not in self._shared:
            self._shared[key] = build()
        return self._shared[key]

    def node(
        self,
        op: str,
        inputs: Sequence[str],
        output: str = "",
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """Add an operator with one output, which is returned."""
        return self.nodes(op, inputs, 1, output, domain, **attributes)[0]

    def nodes(
        self,
        op: str,
        inputs: Sequence[str],
        outputs: int | Sequence[str],
        output: str = "",
        domain: str = "",
        **attributes: Any,
    ) -> list[str]:
        """Add an operator with several outputs, which are named after the operator and its place, or as given; "" is
        one that is not wanted."""
        self._domains.add(domain)
        base = output or f"{op}_{len(self._graph.node)}"
        if isinstance(outputs, int):
            outputs = [base] if outputs == 1 else [f"{base}.{i}" for i in range(outputs)]
        names = list(outputs)
        node = helper.make_node(op, inputs, names, name=f"{base}/node", domain=domain, **attributes)
        self._graph.node.append(node)
        return names

    def either(self, condition: str, branches: Sequence[Sequence[str]], op: str, **attributes: Any) -> str:
        """One contrib operator with other inputs where the scalar `condition` holds than where it does not."""
        self._domains.add(CONTRIB)
        base = f"{op}_{len(self._graph.node)}"
        graphs = []
        for branch, inputs in zip(("then", "else"), branches):
            result = helper.make_empty_tensor_value_info(f"{base}.{branch}")
            node = helper.make_node(op, inputs, [result.name], name=f"{result.name}/node", domain=CONTRIB, **attributes)
            graphs.append(helper.make_graph([node], f"{base}/{branch}", [], [result]))
        return self.node("If", [condition], base, then_branch=graphs[0], else_branch=graphs[1])

    def save(self, path: Path) -> None:
        """Serialize, deterministically. Raises UnsupportedModel above 2 GB."""
        model = self.model()
        if model.ByteSize() > _LARGEST:
            raise UnsupportedModel(f"{path.name} would exceed 2 GB, ONNX's limit for one file; choose int8")
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._large:
            _write_beside(path.with_name(f"{path.name}_data"), self._large.values())
        path.write_bytes(model.SerializeToString(deterministic=True))

    def model(self) -> onnx.ModelProto:
        """The finished graph, without constants that nothing reads; nothing is added after."""
        read, stored = _read(self._graph), self._graph.initializer
        for place in reversed([i for i, tensor in enumerate(stored) if tensor.name not in read]):
            del stored[place]
        self._model.opset_import.append(helper.make_opsetid("", OPSET))
        for domain in (CONTRIB, EXTENSIONS):
            if domain in self._domains:
                self._model.opset_import.append(helper.make_opsetid(domain, 1))
        return self._model


def _read(graph: onnx.GraphProto) -> set[str]:
    """Names that nodes read, in branches too."""
    branches = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return {name for node in graph.node for name in node.input}.union(*map(_read, branches))


@dataclass(frozen=True)
class _View:
    """A constant, and which bytes of what lies beside the file it is."""

    tensor: TensorProto
    offset: int
    length: int


@dataclass(frozen=True)
class _Large:
    """What lies beside the file, and the constants that are in it."""

    values: np.ndarray
    views: list[_View]


def _write_beside(path: Path, constants: Iterable[_Large]) -> None:
    """One after the other in the order in which they came, each on a page of its own."""
    with path.open("wb") as file:
        for large in constants:
            file.write(bytes(-file.tell() % _PAGE))
            for view in large.views:
                place = {"location": path.name, "offset": file.tell() + view.offset, "length": view.length}
                entries = [onnx.StringStringEntryProto(key=key, value=str(value)) for key, value in place.items()]
                view.tensor.data_location = TensorProto.EXTERNAL
                view.tensor.external_data.extend(entries)
            file.write(np.ascontiguousarray(large.values).data)


FLOAT = TensorProto.FLOAT
INT64 = TensorProto.INT64
INT32 = TensorProto.INT32
BOOL = TensorProto.BOOL
