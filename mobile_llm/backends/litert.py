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
    `packed` is where XNNPACK finds packed weights, or puts them: a file, whose pages all have that open it, or memory.
    Raises IntegrityFailed for a file that cannot be opened, and BackendUnavailable without LiteRT."""

    def __init__(
        self,
        file: BinaryIO,
        threads: int | None,
        signatures: Collection[str] | None = None,
        packed: str = IN_MEMORY,
    ) -> None:
        self._mapped = MappedFile(file, signatures)
        begin = ctypes.addressof(ctypes.c_char.from_buffer(self._mapped.memory))
        try:
            self._model = Model(begin, len(self._mapped.memory))
            with native_stderr_silenced():  # XNNPACK says that it is there
                self._compiled = Compiled(self._model, threads, packed)
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
    """Signatures of a file that are opened when they are needed: one at a time where the packed weights of the file
    with this `sha256` are kept (`mobile_llm.backends.packed`). Where they are not, each opening packs a copy, so that
    all are in one, which is opened anew. For the rest see `CompiledFile`."""

    def __init__(self, path: Path, threads: int | None, sha256: str | None = None) -> None:
        self._source, self._threads, self._sha256 = path.open("rb"), threads, sha256
        self._size = path.stat().st_size
        self._open: dict[str, CompiledFile] = {}
        self._forgotten: frozenset[str] = frozenset()

    def have(self, needed: frozenset[str], expected: frozenset[str]) -> None:
        """Open what is needed, and what is expected with it where that is dearer later. Raises as `CompiledFile`."""
        self._forgotten -= needed
        if needed <= self._open.keys():
            return
        with packed_weights(self._sha256, self._size) as packed:
            kept = self._open.keys() - self._forgotten
            if packed == IN_MEMORY:
                missing = needed | expected | kept
                self._shut(self._open.keys())
            else:
                missing = needed - kept
                self._shut(self._forgotten)
            self._open |= dict.fromkeys(missing, CompiledFile(self._source, self._threads, missing, packed))
        self._forgotten = frozenset()

    def forget(self, names: frozenset[str]) -> None:
        """Do without these the next time that others are opened."""
        self._forgotten |= names

    def call(self, signature: str, inputs: Mapping[str, c_void_p], outputs: Mapping[str, c_void_p]) -> Call:
        """As `CompiledFile.call`. It stays good when others are opened."""
        return self._open[signature].call(signature, inputs, outputs)

    def run(self, call: Call) -> None:
        self._open[call.signature].run(call)

    def close(self) -> None:
        self._shut(self._open.keys())
        self._source.close()

    def _shut(self, names: Collection[str]) -> None:
        """Close the files that hold none but these."""
        left = {name: file for name, file in self._open.items() if name not in names}
        for file in set(self._open.values()) - set(left.values()):
            file.close()
        self._open = left


def _aligned(count: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros, each of `count` arrays in memory as LiteRT wants it."""
    size = math.prod(shape) * dtype.itemsize
    step = -(-size // ALIGNMENT) * ALIGNMENT
    memory = np.zeros(count * step + ALIGNMENT + _READ_AHEAD, np.uint8)
    first = -memory.ctypes.data % ALIGNMENT
    within = np.ndarray(shape, dtype, memory, first).strides
    return np.ndarray((count, *shape), dtype, memory, first, (step, *within))
