"""A TFLite file with its integers replaced by the float32 values they stand for: int8 per channel, 4 bits in blocks."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mobile_llm.backends.litert import CompiledFile
from mobile_llm.backends.tflite import TfliteSession
from mobile_llm.backends.tflite_decoder import TfliteDecoder, open_file
from mobile_llm.bundle.integrity import inside
from mobile_llm.bundle.manifest import Artifact
from mobile_llm.errors import BackendUnavailable

Values = Callable[[], np.ndarray]


def open_session(bundle: Path, artifact: Artifact, threads: int | None) -> TfliteSession:
    with widened(inside(bundle, artifact.path)) as path:
        return TfliteSession(CompiledFile.of(path, threads))


def open_decoder(bundle: Path, artifact: Artifact, threads: int | None) -> TfliteDecoder:
    with widened(inside(bundle, artifact.path)) as path:
        return open_file(path, artifact, threads)


@contextmanager
def widened(source: Path) -> Iterator[Path]:
    """The rewritten file, there while the block runs: what opened it keeps its contents."""
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError:
        raise BackendUnavailable('this comparison needs LiteRT: pip install "mobile-llm[export-tflite]"') from None
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "exact.tflite"
        _write_widened(source, path, schema)
        yield path


def _write_widened(source: Path, target: Path, schema: Any) -> None:
    from exporters.late import LateBuilder

    model = schema.ModelT.InitFromPackedBuf(source.read_bytes(), 0)
    widening = _Widening(model, schema)
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            widening.widen(graph, tensor)
    builder = LateBuilder(widening.size + (1 << 22))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    builder.write(target)


def _when_written(size: int, values: Values, schema: Any) -> Any:
    """A buffer of `size` bytes that makes its contents as they are written."""

    class Late(schema.BufferT):
        def Pack(self, builder: Any) -> int:  # noqa: N802 (the schema's name)
            data = builder.late(size, lambda: values().astype(np.float32, copy=False))
            schema.BufferStart(builder)
            schema.BufferAddData(builder, data)
            return int(schema.BufferEnd(builder))

    return Late()


class _Widening:
    """Gives tensors of integers a buffer with their values; subgraphs that share integers go on sharing."""

    def __init__(self, model: Any, schema: Any) -> None:
        self._model, self._schema = model, schema
        self._known: dict[int, int] = {}
        self._widened = 0

    def widen(self, graph: Any, tensor: Any) -> None:
        types = self._schema.TensorType
        known = tensor.buffer in self._known or self._model.buffers[tensor.buffer].data is not None
        if tensor.type not in (types.INT8, types.INT4) or not known:
            return
        if tensor.buffer not in self._known:
            values = self._per_channel(tensor) if tensor.type == types.INT8 else self._in_blocks(graph, tensor)
            self._model.buffers[tensor.buffer].data = None  # they would be written once more
            self._known[tensor.buffer] = len(self._model.buffers)
            size = 4 * math.prod(tensor.shape)
            self._model.buffers.append(_when_written(size, values, self._schema))
            self._widened += size
        tensor.buffer, tensor.type, tensor.quantization = self._known[tensor.buffer], types.FLOAT32, None

    @property
    def size(self) -> int:
        """Bytes of all contents."""
        return self._widened + sum(len(buffer.data) for buffer in self._model.buffers if buffer.data is not None)

    def _per_channel(self, tensor: Any) -> Values:
        scale = np.asarray(tensor.quantization.scale, np.float32)
        along = [1] * len(tensor.shape)
        along[tensor.quantization.quantizedDimension] = -1
        integers = self._bytes(tensor).view(np.int8).reshape(tensor.shape)
        return lambda: integers * scale.reshape(along)

    def _in_blocks(self, graph: Any, tensor: Any) -> Values:
        """Two integers are in a byte, the first in its lower half."""
        details = tensor.quantization.details
        scales = graph.tensors[details.scales]
        scale = self._bytes(scales).view(np.float16).reshape(scales.shape).astype(np.float32)
        pairs, shape = self._bytes(tensor), tensor.shape

        def values() -> np.ndarray:
            halves = np.stack([pairs << 4, pairs & 0xF0], axis=-1).view(np.int8) >> 4
            return halves.reshape(shape) * np.repeat(scale, details.blockSize, axis=1)

        return values

    def _bytes(self, tensor: Any) -> np.ndarray:
        return np.asarray(self._model.buffers[tensor.buffer].data, np.uint8)
