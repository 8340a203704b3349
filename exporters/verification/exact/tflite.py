"""A TFLite file with its per-channel integers replaced by the float32 values they stand for."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mobile_llm.backends.native import native_stderr_silenced
from mobile_llm.backends.tflite import TfliteSession
from mobile_llm.bundle.integrity import inside
from mobile_llm.bundle.manifest import Artifact
from mobile_llm.errors import BackendUnavailable


def open_session(bundle: Path, artifact: Artifact, threads: int | None) -> TfliteSession:
    try:
        from ai_edge_litert import schema_py_generated as schema
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise BackendUnavailable('this comparison needs LiteRT: pip install "mobile-llm[export-tflite]"') from None
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "exact.tflite"
        _write_widened(inside(bundle, artifact.path), path, schema)
        with native_stderr_silenced():
            return TfliteSession(Interpreter(model_path=str(path), num_threads=threads))


def _write_widened(source: Path, target: Path, schema: Any) -> None:
    import flatbuffers

    model = schema.ModelT.InitFromPackedBuf(source.read_bytes(), 0)
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tensor.type == schema.TensorType.INT8 and model.buffers[tensor.buffer].data is not None:
                tensor.buffer = _widened(model, tensor, schema)
                tensor.type = schema.TensorType.FLOAT32
                tensor.quantization = None
    for widened in model.__dict__.get("widened", ()):
        model.buffers[widened].data = None  # the integers would be written, and held, once more
    size = sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)
    builder = flatbuffers.Builder(size + (1 << 22))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    target.write_bytes(memoryview(builder.Bytes)[builder.Head() :])


def _widened(model: Any, tensor: Any, schema: Any) -> int:
    """The buffer with the values; subgraphs that share integers go on sharing."""
    known = model.__dict__.setdefault("widened", {})
    if tensor.buffer not in known:
        scale = np.asarray(tensor.quantization.scale, np.float32)
        integers = np.asarray(model.buffers[tensor.buffer].data).view(np.int8).reshape(tensor.shape)
        along = [1] * integers.ndim
        along[tensor.quantization.quantizedDimension] = -1
        buffer = schema.BufferT()
        buffer.data = (integers * scale.reshape(along)).astype(np.float32, copy=False).view(np.uint8).reshape(-1)
        known[tensor.buffer] = len(model.buffers)
        model.buffers.append(buffer)
    return known[tensor.buffer]
