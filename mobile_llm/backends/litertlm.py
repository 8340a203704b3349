"""The decoder inside a LiteRT-LM file, in LiteRT, read as LiteRT-LM's executor for the CPU reads it.

Caches go in and come out whole, through the same memory. A prompt but for its last token goes through `prefill` in
chunks, the longest that are filled and then the shortest that takes the rest, padded with zeros; the last token through
`decode`. The sampler, the tokenizer and the chat template are this package's: those in the file are for LiteRT-LM.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobile_llm.artifacts.litertlm import model_file
from mobile_llm.backends import Decoder
from mobile_llm.backends.litert import Buffer, Call, CompiledFile
from mobile_llm.backends.rows import check_rows
from mobile_llm.bundle.integrity import inside
from mobile_llm.bundle.manifest import Artifact, EntryPoint
from mobile_llm.errors import IntegrityFailed

_TOKENS = ("input_ids", "position_ids")


@dataclass(frozen=True)
class _Step:
    """A signature with buffers of its own for all but the caches, by physical names, and the call over all."""

    ids: np.ndarray
    positions: np.ndarray
    own: Mapping[str, Buffer]
    call: Call

    def feed(self, ids: Sequence[int], position: int) -> None:
        self.ids[0], self.positions[0] = 0, 0
        self.ids[0, : len(ids)] = ids
        self.positions[0, : len(ids)] = np.arange(position, position + len(ids))


class WholeCacheDecoder:
    """Implements `Decoder` over a file with one `decode` and several `prefill` signatures over one size of cache."""

    def __init__(self, file: CompiledFile, artifact: Artifact) -> None:
        (decode,) = artifact.entry_points["decode"]
        if artifact.cache is None or artifact.cache.kind != "whole":
            raise IntegrityFailed(f"{artifact.path} has no whole cache in its manifest; export the bundle again")
        self._file = file
        self._context = artifact.cache.context
        self._prefills = sorted(artifact.entry_points["prefill"], key=_length)
        caches = (binding for role, binding in decode.inputs.items() if role not in _TOKENS)
        self._caches = {binding.name: Buffer(binding) for binding in caches}
        self._steps: dict[str, _Step] = {}
        self._decode = self._step(decode)
        self._logits = self._decode.own[decode.outputs["logits"].name].array
        self._position = 0

    @property
    def context(self) -> int:
        return self._context

    @property
    def position(self) -> int:
        return self._position

    def append(self, ids: Sequence[int]) -> np.ndarray:
        rest = list(ids[:-1])
        while rest:
            entry = self._chunk(len(rest))
            self._run(self._step(entry), rest[: _length(entry)])
            rest = rest[_length(entry) :]
        self._run(self._decode, ids[-1:])
        return self._logits.reshape(-1).copy()

    def score(self, ids: Sequence[int]) -> np.ndarray:
        """One by one: the file has no entry for more."""
        return np.stack([self.append([token]) for token in ids])

    def rewind(self, position: int) -> None:
        self._position = min(position, self._position)

    def save_cache(self, position: int) -> dict[str, np.ndarray]:
        return {name: buffer.array[:, :, :position].copy() for name, buffer in self._caches.items()}

    def load_cache(self, rows: Mapping[str, np.ndarray], position: int) -> None:
        shapes = {name: buffer.array.shape for name, buffer in self._caches.items()}
        check_rows(rows, {name: (*shape[:2], position, shape[3]) for name, shape in shapes.items()})
        for name, buffer in self._caches.items():
            buffer.array[:, :, :position] = rows[name]
        self._position = position

    def close(self) -> None:
        self._steps.clear()
        self._caches.clear()
        del self._decode, self._logits
        self._file.close()

    def _run(self, step: _Step, ids: Sequence[int]) -> None:
        step.feed(ids, self._position)
        self._file.run(step.call)
        self._position += len(ids)

    def _chunk(self, count: int) -> EntryPoint:
        """The signature for the next of `count` tokens."""
        longest = self._prefills[-1]
        return next((entry for entry in self._prefills if _length(entry) >= count), longest)

    def _step(self, entry: EntryPoint) -> _Step:
        signature = entry.signature or ""
        if signature not in self._steps:
            own = {role: Buffer(entry.inputs[role]) for role in _TOKENS}
            outputs = [binding for binding in entry.outputs.values() if binding.name not in self._caches]
            found = {binding.name: Buffer(binding) for binding in outputs}
            given = {entry.inputs[role].name: buffer for role, buffer in own.items()}
            sides = ({name: b.handle for name, b in {**side, **self._caches}.items()} for side in (given, found))
            ids, positions = (own[role].array for role in _TOKENS)
            self._steps[signature] = _Step(ids, positions, {**given, **found}, self._file.call(signature, *sides))
        return self._steps[signature]


def open_decoder(bundle: Path, artifact: Artifact, threads: int | None) -> Decoder:
    with model_file(inside(bundle, artifact.path)) as path:
        return WholeCacheDecoder(CompiledFile.of(path, threads), artifact)


def _length(entry: EntryPoint) -> int:
    """How many new tokens a signature takes."""
    return int(entry.inputs["input_ids"].shape[1])
