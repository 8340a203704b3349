"""Decoders in TFLite: static signatures over a cache of rows, driven by the manifest's entry points alone.

The cache is as small as its text allows, and moved to a larger one as the text grows: a step costs what its cache
holds, not what the text does. Signatures are opened when a cache of their size is, so that loading and memory do not
grow with the context either. Prompts are read in chunks, the last padded. Rows from `position` on do not count, so that
rewinding only says where to go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobile_llm.backends.litert import Buffer, OpenSignatures
from mobile_llm.backends.rows import check_rows
from mobile_llm.bundle.manifest import Artifact, EntryPoint, TensorBinding


@dataclass(frozen=True)
class Cache:
    """Tensors by logical name with `size` places each, along the axis in `axes`: place j is the token at position j."""

    size: int
    axes: Mapping[str, int]
    buffers: dict[str, Buffer]

    def write(self, first: int, count: int, new: Mapping[str, np.ndarray]) -> None:
        """The first `count` places of `new` from place `first` on."""
        for name, axis in self.axes.items():
            before = (slice(None),) * axis
            self.buffers[name].array[(*before, slice(first, first + count))] = new[name][(*before, slice(count))]

    def read(self, count: int) -> dict[str, np.ndarray]:
        """Copies of the first `count` places."""
        return {
            name: self.buffers[name].array[(*(slice(None),) * axis, slice(count))].copy()
            for name, axis in self.axes.items()
        }

    def shapes(self, count: int) -> dict[str, tuple[int, ...]]:
        """Of so many places."""
        shapes = {name: self.buffers[name].array.shape for name in self.axes}
        return {
            name: (*shape[: self.axes[name]], count, *shape[self.axes[name] + 1 :]) for name, shape in shapes.items()
        }

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: buffer.array for name, buffer in self.buffers.items()}


@dataclass(frozen=True)
class Step:
    """A signature with buffers of its own for all but the caches."""

    entry: EntryPoint
    inputs: dict[str, Buffer]
    outputs: dict[str, Buffer]

    def feed(self, ids: Sequence[int], position: int) -> None:
        rows = length_of(self.entry)
        self.inputs["input_ids"].array[0] = [*ids, *([0] * (rows - len(ids)))]
        places = np.minimum(np.arange(rows), len(ids) - 1) + position
        self.inputs["position_ids"].array[0] = places
        if "last_row" in self.inputs:
            self.inputs["last_row"].array[0] = len(ids) - 1

    def results(self) -> dict[str, np.ndarray]:
        return {name: buffer.array for name, buffer in self.outputs.items()}


class TfliteDecoder:
    """Implements `Decoder` over the signatures of one file."""

    def __init__(self, signatures: OpenSignatures, artifact: Artifact) -> None:
        self._signatures = signatures
        self._prefills = sorted(artifact.entry_points["prefill"], key=length_of)
        self._decodes = sorted(artifact.entry_points["decode"], key=room_of)
        self._scores = sorted(artifact.entry_points.get("score", ()), key=length_of)
        self._steps: dict[str, Step] = {}
        self._position = 0
        self._axes = axes_of(self._decodes[-1])
        self._cache = self._new_cache(1)
        self._open(self._around_cache())

    @property
    def context(self) -> int:
        return room_of(self._decodes[-1])

    @property
    def position(self) -> int:
        return self._position

    def append(self, ids: Sequence[int]) -> np.ndarray:
        self._fit(self._position + len(ids))
        left = list(ids)
        while left:
            entry = self._entry(len(left))
            step = self._read(entry, left[: length_of(entry)])
            left = left[length_of(entry) :]
        return step.outputs["logits"].array.reshape(-1).copy()

    def score(self, ids: Sequence[int]) -> np.ndarray:
        self._fit(self._position + len(ids))
        entries = _of_room(self._scores, self._cache.size)
        self._open(entries)
        left, found = list(ids), []
        while left:
            entry = chunk_of(entries, len(left))
            chunk = left[: length_of(entry)]
            step = self._read(entry, chunk)
            left = left[len(chunk) :]
            found.append(step.outputs["logits"].array[: len(chunk)].copy())
        return np.concatenate(found)

    def rewind(self, position: int) -> None:
        self._position = min(position, self._position)

    def save_cache(self, position: int) -> dict[str, np.ndarray]:
        return self._cache.read(position)

    def load_cache(self, rows: Mapping[str, np.ndarray], position: int) -> None:
        check_rows(rows, self._cache.shapes(position))
        self._position = 0
        self._fit(position)
        self._cache.write(0, position, rows)
        self._position = position

    def close(self) -> None:
        self._steps.clear()
        self._cache.buffers.clear()
        self._signatures.close()

    def _read(self, entry: EntryPoint, ids: Sequence[int]) -> Step:
        """One signature over new tokens, whose rows go into the cache."""
        step = self._step(entry)
        step.feed(ids, self._position)
        inputs = {b.name: step.inputs.get(role) or self._cache.buffers[role] for role, b in entry.inputs.items()}
        outputs = {binding.name: step.outputs[role] for role, binding in entry.outputs.items()}
        self._signatures.run(entry.signature or "", inputs, outputs)
        self._cache.write(self._position, len(ids), step.results())
        self._position += len(ids)
        return step

    def _entry(self, count: int) -> EntryPoint:
        """The signature to go on with where `count` tokens are left."""
        if count == 1:
            return _of_room(self._decodes, self._cache.size)[0]
        return chunk_of(_of_room(self._prefills, self._cache.size if self._position else 0), count)

    def _step(self, entry: EntryPoint) -> Step:
        signature = entry.signature or ""
        if signature not in self._steps:
            own = {role: binding for role, binding in entry.inputs.items() if role not in self._axes}
            self._steps[signature] = Step(
                entry,
                {role: Buffer(binding) for role, binding in own.items()},
                {role: Buffer(binding) for role, binding in entry.outputs.items()},
            )
        return self._steps[signature]

    def _fit(self, tokens: int) -> None:
        """Move to the smallest cache with room for so many tokens."""
        if self._smallest(tokens) != self._cache.size:
            old, self._cache = self._cache, self._new_cache(tokens)
            self._cache.write(0, self._position, old.arrays())
            self._open(self._around_cache())

    def _around_cache(self) -> list[EntryPoint]:
        """What reads and writes text with the cache of now."""
        size = self._cache.size
        return [*_of_room(self._prefills, 0), *_of_room(self._prefills, size), *_of_room(self._decodes, size)]

    def _open(self, entries: Sequence[EntryPoint]) -> None:
        self._signatures.have(frozenset(entry.signature or "" for entry in entries))

    def _smallest(self, tokens: int) -> int:
        return room_of(next(entry for entry in self._decodes if room_of(entry) >= tokens))

    def _new_cache(self, tokens: int) -> Cache:
        entry = next(entry for entry in self._decodes if room_of(entry) >= tokens)
        buffers = {role: Buffer(entry.inputs[role]) for role in self._axes}
        return Cache(room_of(entry), self._axes, buffers)


def axes_of(decode: EntryPoint) -> dict[str, int]:
    """The caches, which go in and come out under one name, and along which axis their tokens are."""
    shared = {
        role: (binding.shape, decode.outputs[role].shape)
        for role, binding in decode.inputs.items()
        if role in decode.outputs
    }
    return {role: [a != b for a, b in zip(*shapes)].index(True) for role, shapes in shared.items()}


def length_of(entry: EntryPoint) -> int:
    """How many new tokens a signature takes."""
    return _size(entry.inputs["input_ids"], 1)


def room_of(entry: EntryPoint) -> int:
    """How many rows a signature's cache has; 0 without one."""
    return _size(entry.inputs["value.0"], 2) if "value.0" in entry.inputs else 0


def _of_room(entries: Sequence[EntryPoint], size: int) -> list[EntryPoint]:
    return [entry for entry in entries if room_of(entry) == size]


def chunk_of(entries: Sequence[EntryPoint], count: int) -> EntryPoint:
    """The signature for the next of `count` tokens, of those sorted by length: the shortest that takes all, unless
    more than half of it would be padding; then the longest that is filled."""
    whole = [entry for entry in entries if length_of(entry) >= count]
    filled = [entry for entry in entries if length_of(entry) <= count]
    if whole and (not filled or length_of(whole[0]) < 2 * count):
        return whole[0]
    return filled[-1]


def open_file(path: Path, artifact: Artifact, threads: int | None, sha256: str | None = None) -> TfliteDecoder:
    return TfliteDecoder(OpenSignatures(path, threads, sha256), artifact)


def _size(binding: TensorBinding, axis: int) -> int:
    return int(binding.shape[axis])
