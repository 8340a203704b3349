"""A TFLite file with its integers replaced by the float32 values they stand for: int8 per channel, 4 bits in blocks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
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


def open_session(bundle: Path, artifact: Artifact, threads: int | None) -> TfliteSession:
    with widened(inside(bundle, artifact.path)) as path:
        return TfliteSession(CompiledFile(path, threads))


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
    import flatbuffers

    model = schema.ModelT.InitFromPackedBuf(source.read_bytes(), 0)
    widening = _Widening(model, schema)
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            widening.widen(graph, tensor)
    widening.forget_integers()
    size = sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)
    builder = flatbuffers.Builder(size + (1 << 22))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    target.write_bytes(memoryview(builder.Bytes)[builder.Head() :])


class _Widening:
    """Gives tensors of integers a buffer with their values; subgraphs that share integers go on sharing."""

    def __init__(self, model: Any, schema: Any) -> None:
        self._model, self._schema = model, schema
        self._known: dict[int, int] = {}

    def widen(self, graph: Any, tensor: Any) -> None:
        types = self._schema.TensorType
        if tensor.type not in (types.INT8, types.INT4) or self._model.buffers[tensor.buffer].data is None:
            return
        if tensor.buffer not in self._known:
            values = self._per_channel(tensor) if tensor.type == types.INT8 else self._in_blocks(graph, tensor)
            buffer = self._schema.BufferT()
            buffer.data = values.astype(np.float32, copy=False).view(np.uint8).reshape(-1)
            self._known[tensor.buffer] = len(self._model.buffers)
            self._model.buffers.append(buffer)
        tensor.buffer, tensor.type, tensor.quantization = self._known[tensor.buffer], types.FLOAT32, None

    def forget_integers(self) -> None:
        """They would be written, and held, once more."""
        for narrow in self._known:
            self._model.buffers[narrow].data = None

    def _per_channel(self, tensor: Any) -> np.ndarray:
        scale = np.asarray(tensor.quantization.scale, np.float32)
        along = [1] * len(tensor.shape)
        along[tensor.quantization.quantizedDimension] = -1
        return self._bytes(tensor).view(np.int8).reshape(tensor.shape) * scale.reshape(along)

    def _in_blocks(self, graph: Any, tensor: Any) -> np.ndarray:
        """Two integers are in a byte, the first in its lower half."""
        details = tensor.quantization.details
        scales = graph.tensors[details.scales]
        scale = self._bytes(scales).view(np.float16).reshape(scales.shape).astype(np.float32)
        pairs = self._bytes(tensor)
        halves = np.stack([pairs << 4, pairs & 0xF0], axis=-1).view(np.int8) >> 4
        return halves.reshape(tensor.shape) * np.repeat(scale, details.blockSize, axis=1)

    def _bytes(self, tensor: Any) -> np.ndarray:
        return np.asarray(self._model.buffers[tensor.buffer].data, np.uint8)
