"""LiteRT's C interface as far as the CPU needs it, which is what Kotlin and Swift call too.

Three kinds of handle, each closed by its owner: a `Model` over a file in memory, a `Compiled` model, and tensor buffers
over memory of ours. The one environment lives as long as the process and keeps LiteRT's own log to errors.
Layouts of structures and numbers of enumerations: litert/c/*.h of LiteRT 2.3.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mobile_llm.errors import BackendUnavailable

ALIGNMENT = 64  # of a buffer's memory
_CPU = 1
_LOG_LEVEL, _ERRORS, _INTEGER = 25, 3, 2
_MOST_AXES = 8
_TYPES = {"float32": 1, "int32": 2, "int64": 4, "bool": 6, "int8": 9, "float16": 10}


class _Any(ctypes.Structure):
    _fields_ = (("type", c_int), ("value", c_int64))


class _EnvironmentOption(ctypes.Structure):
    _fields_ = (("tag", c_int), ("value", _Any))


class _TensorType(ctypes.Structure):
    """Its layout too: a rank in seven bits of a word, and whether strides follow in the eighth."""

    _fields_ = (
        ("element", c_int),
        ("rank", c_uint32),
        ("sizes", c_int32 * _MOST_AXES),
        ("strides", c_uint32 * _MOST_AXES),
    )


class LiteRtError(Exception):
    """A call that failed; the status is LiteRT's."""


@dataclass(frozen=True)
class Signature:
    """Names in the order in which buffers are handed over."""

    index: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Model:
    """A .tflite file in memory, `size` bytes from `address` on, which stay where they are until it is closed. Raises
    LiteRtError for anything else."""

    def __init__(self, address: int, size: int) -> None:
        self.handle = c_void_p()
        _call("CreateModelFromBuffer", _environment(), c_void_p(address), c_size_t(size), byref(self.handle))
        self.signatures = dict(_signature(self.handle, index) for index in range(_signatures(self.handle)))

    def close(self) -> None:
        _library().LiteRtDestroyModel(self.handle)


class Compiled:
    """A model prepared for the CPU; `threads` None leaves their number to LiteRT. `packed` says where XNNPACK keeps
    packed weights: a file, or ":memory:"."""

    def __init__(self, model: Model, threads: int | None, packed: str) -> None:
        self._handle, options = c_void_p(), c_void_p()
        wishes = f'weight_cache_file_path = "{packed}"\n' + (f"num_threads = {threads}\n" if threads else "")
        text = ctypes.create_string_buffer(wishes.encode())  # read while the model is compiled
        _call("CreateOptions", byref(options))
        try:
            _call("SetOptionsHardwareAccelerators", options, _CPU)
            _call("AddOpaqueOptions", options, _opaque(b"xnnpack", text))
            _call("CreateCompiledModel", _environment(), model.handle, options, byref(self._handle))
        finally:
            _library().LiteRtDestroyOptions(options)

    def run(self, signature: Signature, inputs: Any, outputs: Any) -> None:
        """Inputs and outputs are `handles` in the signature's order."""
        _call("RunCompiledModel", self._handle, signature.index, len(inputs), inputs, len(outputs), outputs)

    def close(self) -> None:
        _library().LiteRtDestroyCompiledModel(self._handle)


def tensor_buffer(array: np.ndarray) -> c_void_p:
    """A buffer over the memory of a contiguous array, which begins at a multiple of `ALIGNMENT` and outlives it."""
    kind, handle = _TensorType(), c_void_p()
    kind.element, kind.rank = _TYPES[array.dtype.name], array.ndim
    kind.sizes[: array.ndim] = array.shape
    memory = c_void_p(array.ctypes.data), c_size_t(array.nbytes)
    _call("CreateTensorBufferFromHostMemory", byref(kind), *memory, None, byref(handle))
    return handle


def handles(buffers: Sequence[c_void_p]) -> Any:
    """As an array of C."""
    return (c_void_p * len(buffers))(*(buffer.value for buffer in buffers))


def destroy_buffers(buffers: Sequence[c_void_p]) -> None:
    for buffer in buffers:
        _library().LiteRtDestroyTensorBuffer(buffer)


def _signatures(model: c_void_p) -> int:
    count = c_size_t()
    _call("GetNumModelSignatures", model, byref(count))
    return count.value


def _signature(model: c_void_p, index: int) -> tuple[str, Signature]:
    handle, key = c_void_p(), c_char_p()
    _call("GetModelSignature", model, c_size_t(index), byref(handle))
    _call("GetSignatureKey", handle, byref(key))
    return _text(key), Signature(index, _names(handle, "Input"), _names(handle, "Output"))


def _names(signature: c_void_p, side: str) -> tuple[str, ...]:
    count, name, found = c_size_t(), c_char_p(), []
    _call(f"GetNumSignature{side}s", signature, byref(count))
    for index in range(count.value):
        _call(f"GetSignature{side}Name", signature, c_size_t(index), byref(name))
        found.append(_text(name))
    return tuple(found)


def _text(value: c_char_p) -> str:
    return (value.value or b"").decode(errors="replace")


def _opaque(name: bytes, text: Any) -> c_void_p:
    handle = c_void_p()
    _call("CreateOpaqueOptions", name, ctypes.cast(text, c_void_p), _kept, byref(handle))
    return handle


@ctypes.CFUNCTYPE(None, c_void_p)
def _kept(_: int) -> None:
    """Frees nothing: the text is Python's."""


@cache
def _environment() -> c_void_p:
    handle = c_void_p()
    quiet = (_EnvironmentOption * 1)(_EnvironmentOption(_LOG_LEVEL, _Any(_INTEGER, _ERRORS)))
    _call("CreateEnvironment", 1, quiet, byref(handle))
    return handle


def _call(name: str, *arguments: Any) -> None:
    status = getattr(_library(), f"LiteRt{name}")(*arguments)
    if status:
        raise LiteRtError(f"LiteRt{name}: status {status}")


@cache
def _library() -> Any:
    try:
        import ai_edge_litert
    except ImportError:
        raise BackendUnavailable(
            'TFLite artifacts need LiteRT 2.3 or newer: pip install "mobile-llm[tflite]", or choose an ONNX one'
        ) from None
    for path in Path(ai_edge_litert.__file__).parent.glob("*LiteRt.*"):  # .so, .dylib or .dll
        return _declared(ctypes.CDLL(str(path)))
    raise BackendUnavailable('this LiteRT has no C interface: pip install -U "mobile-llm[tflite]"')


def _declared(library: Any) -> Any:
    """With the arguments declared that are passed as they are."""
    for name in ("Model", "CompiledModel", "Options", "TensorBuffer"):
        destroy = getattr(library, f"LiteRtDestroy{name}")
        destroy.restype, destroy.argtypes = None, [c_void_p]
    library.LiteRtRunCompiledModel.argtypes = [c_void_p, c_size_t, *(c_size_t, POINTER(c_void_p)) * 2]
    return library
