"""TFLite artifacts in LiteRT, on the CPU through XNNPACK. The signatures of a file share its packed weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobile_llm.backends.litert import Buffer, Call, CompiledFile
from mobile_llm.backends.tflite_decoder import TfliteDecoder, open_file
from mobile_llm.bundle.integrity import inside
from mobile_llm.bundle.manifest import Artifact, EntryPoint

ONLY = "serving_default"  # the signature of a file that has no other


class TfliteSession:
    """Runs signatures of a file; each gets its buffers when it is first used."""

    def __init__(self, file: CompiledFile) -> None:
        self._file = file
        self._calls: dict[str, _Reserved] = {}

    def run(self, entry: EntryPoint, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        signature = entry.signature or ONLY
        if signature not in self._calls:
            self._calls[signature] = _Reserved.of(self._file, signature, entry)
        reserved = self._calls[signature]
        for role, buffer in reserved.inputs.items():
            buffer.array[...] = inputs[role]
        self._file.run(reserved.call)
        return {role: buffer.array.copy() for role, buffer in reserved.outputs.items()}

    def close(self) -> None:
        self._calls.clear()
        self._file.close()


@dataclass(frozen=True)
class _Reserved:
    """A signature's buffers by role, and the call over them."""

    inputs: Mapping[str, Buffer]
    outputs: Mapping[str, Buffer]
    call: Call

    @staticmethod
    def of(file: CompiledFile, signature: str, entry: EntryPoint) -> _Reserved:
        inputs, outputs = ({role: Buffer(b) for role, b in side.items()} for side in (entry.inputs, entry.outputs))
        given = {binding.name: inputs[role].handle for role, binding in entry.inputs.items()}
        found = {binding.name: outputs[role].handle for role, binding in entry.outputs.items()}
        return _Reserved(inputs, outputs, file.call(signature, given, found))


def open_session(bundle: Path, artifact: Artifact, threads: int | None) -> TfliteSession:
    return TfliteSession(CompiledFile.of(inside(bundle, artifact.path), threads))


def open_decoder(bundle: Path, artifact: Artifact, threads: int | None) -> TfliteDecoder:
    return open_file(inside(bundle, artifact.path), artifact, threads, _hash_to_keep(bundle, artifact))


def _hash_to_keep(bundle: Path, artifact: Artifact) -> str | None:
    """Of the file whose packed weights are worth keeping. A bundle that has not been compared yet may never exist."""
    if not (bundle / "verification.json").exists():
        return None
    return next(file.sha256 for file in artifact.files if file.path == artifact.path)
