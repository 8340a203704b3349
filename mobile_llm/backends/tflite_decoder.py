"""Decoders in TFLite: static signatures over a cache of rows, driven by the manifest's entry points alone.

The cache is as small as its text allows, and moved to a larger one as the text grows: a step costs what its cache
holds, not what the text does. Prompts are read in chunks, the last padded. Rows from `position` on do not count, so
that rewinding only says where to go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mobile_llm.backends.litert import Buffer, CompiledFile
from mobile_llm.bundle.manifest import Artifact, EntryPoint, TensorBinding


@dataclass(frozen=True)
class Cache:
    """Keys and values by logical name, `size` rows each: row j is the token at position j."""

    size: int
    buffers: dict[str, Buffer]

    def write(self, first: int, rows: dict[str, np.ndarray]) -> None:
        """Rows (1, kv_heads, count, head_dim) from row `first` on."""
        for name, new in rows.items():
            self.buffers[name].array[:, :, first : first + new.shape[2]] = new

    def rows(self, count: int) -> dict[str, np.ndarray]:
        return {name: buffer.array[:, :, :count] for name, buffer in self.buffers.items()}


@dataclass(frozen=True)
class Step:
    """A signature with buffers of its own for all but the caches."""

    entry: EntryPoint
    inputs: dict[str, Buffer]
    outputs: dict[str, Buffer] = field(default_factory=dict)

    def feed(self, ids: Sequence[int], position: int) -> None:
        rows = length_of(self.entry)
        self.inputs["input_ids"].array[0] = [*ids, *([0] * (rows - len(ids)))]
        places = np.minimum(np.arange(rows), len(ids) - 1) + position
        self.inputs["position_ids"].array[0] = places
        if "last_row" in self.inputs:
            self.inputs["last_row"].array[0] = len(ids) - 1

    def new_rows(self, count: int) -> dict[str, np.ndarray]:
        return {name: b.array[:, :, :count] for name, b in self.outputs.items() if name != "logits"}


class TfliteDecoder:
    """Implements `Decoder` over the signatures of one file."""

    def __init__(self, file: CompiledFile, artifact: Artifact) -> None:
        self._file = file
        self._prefills = sorted(artifact.entry_points["prefill"], key=length_of)
        self._decodes = sorted(artifact.entry_points["decode"], key=room_of)
        self._steps: dict[str, Step] = {}
        self._position = 0
        self._cache = self._new_cache(1)

    @property
    def context(self) -> int:
        return room_of(self._decodes[-1])

    @property
    def position(self) -> int:
        return self._position

    def append(self, ids: Sequence[int]) -> np.ndarray:
        left = list(ids)
        while left:
            step = self._step(self._entry(len(left)))
            chunk = left[: length_of(step.entry)]
            left = left[len(chunk) :]
            self._read(step, chunk)
        return step.outputs["logits"].array.reshape(-1).copy()

    def rewind(self, position: int) -> None:
        self._position = min(position, self._position)

    def close(self) -> None:
        self._steps.clear()
        self._cache.buffers.clear()
        self._file.close()

    def _read(self, step: Step, ids: Sequence[int]) -> None:
        """One signature over new tokens, whose rows go into the cache."""
        step.feed(ids, self._position)
        entry = step.entry
        inputs = {b.name: step.inputs.get(role) or self._cache.buffers[role] for role, b in entry.inputs.items()}
        outputs = {binding.name: step.outputs[role] for role, binding in entry.outputs.items()}
        self._file.run(entry.signature or "", inputs, outputs)
        self._fit(self._position + len(ids))
        self._cache.write(self._position, step.new_rows(len(ids)))
        self._position += len(ids)

    def _entry(self, count: int) -> EntryPoint:
        """The signature to go on with where `count` tokens are left. What it reads is made to fit."""
        if self._position or count == 1:
            self._fit(max(self._position, 1))
        if count == 1:
            return next(entry for entry in self._decodes if room_of(entry) == self._cache.size)
        room = self._cache.size if self._position else 0
        return chunk_of([entry for entry in self._prefills if room_of(entry) == room], count)

    def _step(self, entry: EntryPoint) -> Step:
        signature = entry.signature or ""
        if signature not in self._steps:
            own = {role: binding for role, binding in entry.inputs.items() if not is_cache(role)}
            self._steps[signature] = Step(
                entry,
                {role: self._file.input(signature, binding) for role, binding in own.items()},
                {role: self._file.output(signature, binding) for role, binding in entry.outputs.items()},
            )
        return self._steps[signature]

    def _fit(self, tokens: int) -> None:
        """Move to the smallest cache with room for so many tokens."""
        if self._smallest(tokens) != self._cache.size:
            old, self._cache = self._cache, self._new_cache(tokens)
            self._cache.write(0, old.rows(self._position))

    def _smallest(self, tokens: int) -> int:
        return room_of(next(entry for entry in self._decodes if room_of(entry) >= tokens))

    def _new_cache(self, tokens: int) -> Cache:
        entry = next(entry for entry in self._decodes if room_of(entry) >= tokens)
        caches = {role: binding for role, binding in entry.inputs.items() if is_cache(role)}
        signature = entry.signature or ""
        return Cache(room_of(entry), {role: self._file.input(signature, b) for role, b in caches.items()})


def is_cache(role: str) -> bool:
    return role.startswith(("key.", "value."))


def length_of(entry: EntryPoint) -> int:
    """How many new tokens a signature takes."""
    return _size(entry.inputs["input_ids"], 1)


def room_of(entry: EntryPoint) -> int:
    """How many rows a signature's cache has; 0 without one."""
    return _size(entry.inputs["key.0"], 2) if "key.0" in entry.inputs else 0


def chunk_of(entries: Sequence[EntryPoint], count: int) -> EntryPoint:
    """The signature for the next of `count` tokens, of those sorted by length: the shortest that takes all, unless
    more than half of it would be padding; then the longest that is filled."""
    whole = [entry for entry in entries if length_of(entry) >= count]
    filled = [entry for entry in entries if length_of(entry) <= count]
    if whole and (not filled or length_of(whole[0]) < 2 * count):
        return whole[0]
    return filled[-1]


def open_file(path: Path, artifact: Artifact, threads: int | None) -> TfliteDecoder:
    return TfliteDecoder(CompiledFile(path, threads), artifact)


def _size(binding: TensorBinding, axis: int) -> int:
    return int(binding.shape[axis])
