"""LiteRT's compiled models with buffers that are arrays: caches are written in place, and signatures share them.

The packed weights are shared too, by XNNPACK's cache in memory: without it each signature would hold its own copy.
Python's own calls copy a whole buffer to read or write it; where its memory is, the C interface of the same package
says (`LiteRtLockTensorBuffer`). On the CPU that memory stays where it is for as long as the buffer lives.
What LiteRT reports at a process's end, that accelerators are taken down, cannot be silenced.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mobile_llm.backends.native import native_stderr_silenced
from mobile_llm.bundle.manifest import TensorBinding
from mobile_llm.errors import BackendUnavailable, IntegrityFailed

_READ_AND_WRITE = 2
_PACKED_IN_MEMORY = ":memory:"


class Buffer:
    """A tensor buffer and, as an array, its memory. The array must not outlive it."""

    def __init__(self, native: Any, binding: TensorBinding) -> None:
        self.native = native
        self.array = _memory(native.capsule, binding)
        self.array[...] = 0


class CompiledFile:
    """The signatures of a .tflite file on the CPU; `threads` None leaves their number to LiteRT."""

    def __init__(self, path: Path, threads: int | None) -> None:
        try:
            from ai_edge_litert.compiled_model import CompiledModel, CpuOptions, HardwareAccelerator, Options
        except ImportError:
            raise BackendUnavailable(
                'TFLite artifacts need LiteRT 2.3 or newer: pip install "mobile-llm[tflite]", or choose an ONNX one'
            ) from None
        self._reporting: Callable[[], AbstractContextManager[None]] = (
            native_stderr_silenced  # what it registers, at the first run
        )
        cpu = CpuOptions(num_threads=threads or 0, xnnpack_weight_cache_path=_PACKED_IN_MEMORY)
        options = Options(hardware_accelerators=HardwareAccelerator.CPU, cpu_options=cpu)
        try:
            with native_stderr_silenced():
                self._model = CompiledModel.from_file(str(path), options=options)
        except RuntimeError as error:
            raise IntegrityFailed(f"{path.name} is not a TFLite file that can be opened: {error}") from None

    def input(self, signature: str, binding: TensorBinding) -> Buffer:
        """A new buffer for an input, zeros; a signature whose input has the same shape takes it as well."""
        return Buffer(self._model.create_input_buffer_by_name(signature, binding.name), binding)

    def output(self, signature: str, binding: TensorBinding) -> Buffer:
        return Buffer(self._model.create_output_buffer_by_name(signature, binding.name), binding)

    def run(self, signature: str, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> None:
        """By physical names; results are in the arrays of `outputs`."""
        natives = ({name: buffer.native for name, buffer in side.items()} for side in (inputs, outputs))
        with self._reporting():
            self._model.run_by_name(signature, *natives)
        self._reporting = nullcontext

    def close(self) -> None:
        with native_stderr_silenced():
            self._model.close()
            del self._model


def _memory(capsule: Any, binding: TensorBinding) -> np.ndarray:
    handle, address = ctypes.c_void_p(_pointer(capsule)), ctypes.c_void_p()
    library = _library()
    if library.LiteRtLockTensorBuffer(handle, ctypes.byref(address), _READ_AND_WRITE) or not address.value:
        raise BackendUnavailable(f"LiteRT keeps {binding.name} where the CPU cannot write it; choose an ONNX artifact")
    library.LiteRtUnlockTensorBuffer(handle)
    dtype = np.dtype(binding.dtype)
    shape = tuple(int(size) for size in binding.shape)
    size = int(np.prod(shape)) * dtype.itemsize
    return np.ndarray(shape, dtype, memoryview((ctypes.c_byte * size).from_address(address.value)))


def _pointer(capsule: Any) -> int:
    """What a capsule holds."""
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    return int(api.PyCapsule_GetPointer(capsule, api.PyCapsule_GetName(capsule)))


@cache
def _library() -> Any:
    import ai_edge_litert

    for path in Path(ai_edge_litert.__file__).parent.glob("*LiteRt.*"):  # .so, .dylib or .dll
        return ctypes.CDLL(str(path))
    raise BackendUnavailable('this LiteRT has no C interface: pip install -U "mobile-llm[tflite]"')
