"""Files in LiteRT with buffers that are arrays: caches are written in place, and signatures share them.

The packed weights are shared too, by XNNPACK's cache: without it each signature would hold its own copy.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from collections.abc import Collection, Mapping
from ctypes import c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mobile_llm.backends.litert_c import (
    ALIGNMENT,
    Compiled,
    LiteRtError,
    Model,
    destroy_buffers,
    handles,
    tensor_buffer,
)
from mobile_llm.backends.narrowed import MappedFile
from mobile_llm.backends.native import native_stderr_silenced
from mobile_llm.backends.packed import IN_MEMORY, packed_weights
from mobile_llm.bundle.manifest import TensorBinding
from mobile_llm.errors import IntegrityFailed

_READ_AHEAD = 64  # kernels read up to so many bytes behind what they use


class Buffer:
    """A tensor buffer over an array of zeros; any signature whose tensor has its shape and dtype takes it."""

    def __init__(self, binding: TensorBinding) -> None:
        stack = BufferStack(binding, 1)
        self.array, (self.handle,) = stack.array[0], stack.handles
        self._stack = stack


class BufferStack:
    """Tensor buffers of one shape and dtype over one array of zeros (count, *shape)."""

    def __init__(self, binding: TensorBinding, count: int) -> None:
        self.array = _aligned(count, tuple(int(size) for size in binding.shape), np.dtype(binding.dtype))
        self.handles = [tensor_buffer(array) for array in self.array]
        weakref.finalize(self, destroy_buffers, self.handles)


@dataclass(frozen=True)
class Call:
    """A signature with its buffers, which the caller keeps alive, to be run any number of times."""

    signature: str
    inputs: Any
    outputs: Any


class CompiledFile:
    """Signatures of a .tflite file on the CPU, those asked for or all; `threads` None leaves their number to LiteRT.
    With the file's `sha256`, packed weights are kept for the next time (`mobile_llm.backends.packed`), and where they
    are, `shares_weights`, all that open them have the same pages.
    Raises IntegrityFailed for a file that cannot be opened, and BackendUnavailable without LiteRT."""

    def __init__(
        self,
        file: BinaryIO,
        threads: int | None,
        signatures: Collection[str] | None = None,
        sha256: str | None = None,
    ) -> None:
        self._mapped = MappedFile(file, signatures)
        size = len(self._mapped.memory)
        begin = ctypes.addressof(ctypes.c_char.from_buffer(self._mapped.memory))
        try:
            self._model = Model(begin, size)
            # XNNPACK says that it is there
            with packed_weights(sha256, size) as packed, native_stderr_silenced():
                self._compiled = Compiled(self._model, threads, packed)
                self.shares_weights = packed != IN_MEMORY
        except LiteRtError as error:
            raise IntegrityFailed(f"{file.name} is not a TFLite file that can be opened: {error}") from None
        self._mapped.forget()

    @staticmethod
    def of(path: Path, threads: int | None) -> CompiledFile:
        """All of a file."""
        with path.open("rb") as file:
            return CompiledFile(file, threads)

    def call(self, signature: str, inputs: Mapping[str, c_void_p], outputs: Mapping[str, c_void_p]) -> Call:
        """Handles of buffers by physical names."""
        known = self._model.signatures[signature]
        given, found = (
            [side[name] for name in names] for side, names in ((inputs, known.inputs), (outputs, known.outputs))
        )
        return Call(signature, handles(given), handles(found))

    def run(self, call: Call) -> None:
        """Results are in the arrays of the outputs."""
        self._compiled.run(self._model.signatures[call.signature], call.inputs, call.outputs)

    def close(self) -> None:
        self._compiled.close()
        self._model.close()
        self._mapped.close()


class OpenSignatures:
    """Those signatures of a file that were asked for. Others are opened beside them where packed weights are shared,
    and else all are opened again at once: each set would hold its own copy. For the rest see `CompiledFile`."""

    def __init__(self, path: Path, threads: int | None, sha256: str | None = None) -> None:
        self._source, self._threads, self._sha256 = path.open("rb"), threads, sha256
        self._wanted: frozenset[str] = frozenset()
        self._open: dict[str, CompiledFile] = {}

    def have(self, names: frozenset[str]) -> None:
        """Open these too. Raises as `CompiledFile` does."""
        self._wanted |= names
        missing = self._wanted - set(self._open)
        if not missing:
            return
        if set(self._open) - self._wanted or not all(file.shares_weights for file in self._open.values()):
            self._shut()
            missing = self._wanted
        self._open |= dict.fromkeys(missing, CompiledFile(self._source, self._threads, missing, self._sha256))

    def forget(self, names: frozenset[str]) -> None:
        """Do without these the next time that others are opened."""
        self._wanted -= names

    def call(self, signature: str, inputs: Mapping[str, c_void_p], outputs: Mapping[str, c_void_p]) -> Call:
        """As `CompiledFile.call`. It stays good when others are opened."""
        return self._open[signature].call(signature, inputs, outputs)

    def run(self, call: Call) -> None:
        self._open[call.signature].run(call)

    def close(self) -> None:
        self._shut()
        self._source.close()

    def _shut(self) -> None:
        for file in set(self._open.values()):
            file.close()
        self._open = {}


def _aligned(count: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros, each of `count` arrays in memory as LiteRT wants it."""
    size = math.prod(shape) * dtype.itemsize
    step = -(-size // ALIGNMENT) * ALIGNMENT
    memory = np.zeros(count * step + ALIGNMENT + _READ_AHEAD, np.uint8)
    first = -memory.ctypes.data % ALIGNMENT
    within = np.ndarray(shape, dtype, memory, first).strides
    return np.ndarray((count, *shape), dtype, memory, first, (step, *within))
