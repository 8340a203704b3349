"""TFLite artifacts in LiteRT, on the CPU through XNNPACK. The signatures of a file share its packed weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mobile_llm.backends.litert import Buffer, CompiledFile
from mobile_llm.backends.tflite_decoder import TfliteDecoder, open_file
from mobile_llm.bundle.integrity import inside
from mobile_llm.bundle.manifest import Artifact, EntryPoint

ONLY = "serving_default"  # the signature of a file that has no other
_Sides = tuple[dict[str, Buffer], dict[str, Buffer]]


class TfliteSession:
    """Runs signatures of a file; each gets its buffers when it is first used."""

    def __init__(self, file: CompiledFile) -> None:
        self._file = file
        self._buffers: dict[str, _Sides] = {}

    def run(self, entry: EntryPoint, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        signature = entry.signature or ONLY
        if signature not in self._buffers:
            self._buffers[signature] = _reserved(entry)
        given, found = self._buffers[signature]
        for role, binding in entry.inputs.items():
            given[binding.name].array[...] = inputs[role]
        self._file.run(signature, given, found)
        return {role: found[binding.name].array.copy() for role, binding in entry.outputs.items()}

    def close(self) -> None:
        self._buffers.clear()
        self._file.close()


def open_session(bundle: Path, artifact: Artifact, threads: int | None) -> TfliteSession:
    return TfliteSession(CompiledFile.of(inside(bundle, artifact.path), threads))


def open_decoder(bundle: Path, artifact: Artifact, threads: int | None) -> TfliteDecoder:
    return open_file(inside(bundle, artifact.path), artifact, threads, _hash_to_keep(bundle, artifact))


def _reserved(entry: EntryPoint) -> _Sides:
    given = {binding.name: Buffer(binding) for binding in entry.inputs.values()}
    return given, {binding.name: Buffer(binding) for binding in entry.outputs.values()}


def _hash_to_keep(bundle: Path, artifact: Artifact) -> str | None:
    """Of the file whose packed weights are worth keeping. A bundle that has not been compared yet may never exist."""
    if not (bundle / "verification.json").exists():
        return None
    return next(file.sha256 for file in artifact.files if file.path == artifact.path)
