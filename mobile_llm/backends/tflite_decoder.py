"""Decoders in TFLite: static signatures over a cache of rows, driven by the manifest's entry points alone.

The cache is as small as its text allows, and moved to a larger one as the text grows: a step costs what its cache
holds, not what the text does. Signatures are opened when a cache of their size is, so that loading and memory do not
grow with the context either. Prompts are read in chunks, the last padded. Rows from `position` on do not count, so that
rewinding only says where to go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ctypes import c_void_p
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobile_llm.backends.litert import Buffer, BufferStack, Call, OpenSignatures
from mobile_llm.backends.rows import check_rows
from mobile_llm.bundle.manifest import Artifact, EntryPoint, TensorBinding
from mobile_llm.errors import IntegrityFailed


@dataclass(frozen=True)
class Rows:
    """What a signature takes or gives of every layer: by kind ("key"), a stack (layers, …) whose tensors have their
    places along the axis in `axes`."""

    axes: Mapping[str, int]
    stacks: Mapping[str, BufferStack]

    @staticmethod
    def of(bindings: Mapping[str, TensorBinding], axes: Mapping[str, int]) -> Rows:
        """New ones, zeros."""
        layers = {kind: sum(_kind(role) == kind for role in bindings) for kind in axes}
        return Rows(axes, {kind: BufferStack(bindings[f"{kind}.0"], count) for kind, count in layers.items()})

    def write(self, first: int, count: int, new: Mapping[str, np.ndarray]) -> None:
        """The first `count` places of `new`, stacks too, from place `first` on."""
        for kind, axis in self.axes.items():
            before = (slice(None),) * (axis + 1)
            self.stacks[kind].array[(*before, slice(first, first + count))] = new[kind][(*before, slice(count))]

    def arrays(self) -> dict[str, np.ndarray]:
        return {kind: stack.array for kind, stack in self.stacks.items()}

    def first(self, count: int) -> dict[str, np.ndarray]:
        """By role, views of the first `count` places of each layer."""
        return {
            f"{kind}.{layer}": array[(*(slice(None),) * self.axes[kind], slice(count))]
            for kind, stack in self.stacks.items()
            for layer, array in enumerate(stack.array)
        }

    def shapes(self, count: int) -> dict[str, tuple[int, ...]]:
        """Of so many places of each layer."""
        views = self.first(0).items()
        return {role: tuple(size or count for size in view.shape) for role, view in views}

    def handle(self, role: str) -> c_void_p:
        kind, layer = role.rsplit(".", 1)
        return self.stacks[kind].handles[int(layer)]


@dataclass(frozen=True)
class Step:
    """A signature with buffers of its own, and the call that reads one cache."""

    entry: EntryPoint
    inputs: Mapping[str, Buffer]
    logits: Buffer
    rows: Rows
    call: Call

    def feed(self, ids: Sequence[int], position: int) -> None:
        rows = length_of(self.entry)
        self.inputs["input_ids"].array[0] = [*ids, *([0] * (rows - len(ids)))]
        places = np.minimum(np.arange(rows), len(ids) - 1) + position
        self.inputs["position_ids"].array[0] = places
        if "last_row" in self.inputs:
            self.inputs["last_row"].array[0] = len(ids) - 1


class TfliteDecoder:
    """Implements `Decoder` over the signatures of one file."""

    def __init__(self, signatures: OpenSignatures, artifact: Artifact) -> None:
        if artifact.cache is None or artifact.cache.kind != "rows":
            raise IntegrityFailed(f"{artifact.path} has no cache of rows in its manifest; export the bundle again")
        self._signatures, self._head_dim = signatures, artifact.cache.head_dim
        self._prefills = sorted(artifact.entry_points["prefill"], key=length_of)
        self._decodes = sorted(artifact.entry_points["decode"], key=self._room)
        self._scores = sorted(artifact.scoring, key=length_of)
        self._steps: dict[str, Step] = {}
        self._position = 0
        self._axes = axes_of(self._decodes[-1])
        self._move(1)

    @property
    def context(self) -> int:
        return self._room(self._decodes[-1])

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
        return step.logits.array.reshape(-1).copy()

    def score(self, ids: Sequence[int]) -> np.ndarray:
        left, found = list(ids), []
        while left:
            self._fit(self._position + 1)  # as steps would: every token is read with the cache that it would have
            entries = self._of_room(self._scores, self._size)
            self._open(entries)
            fitting = left[: self._size - self._position]
            entry = chunk_of(entries, len(fitting))
            chunk = fitting[: length_of(entry)]
            step = self._read(entry, chunk)
            left = left[len(chunk) :]
            found.append(step.logits.array[: len(chunk)].copy())
        return np.concatenate(found) if len(found) > 1 else found[0]  # large: a second copy is felt

    def rewind(self, position: int) -> None:
        self._position = min(position, self._position)

    def save_cache(self, position: int) -> dict[str, np.ndarray]:
        return {role: rows.copy() for role, rows in self._cache.first(position).items()}

    def load_cache(self, rows: Mapping[str, np.ndarray], position: int) -> None:
        check_rows(rows, self._cache.shapes(position))
        self._position = 0
        self._fit(position)
        for role, view in self._cache.first(position).items():
            view[...] = rows[role]
        self._position = position

    def close(self) -> None:
        self._steps.clear()
        self._signatures.close()

    def _read(self, entry: EntryPoint, ids: Sequence[int]) -> Step:
        """One signature over new tokens, whose rows go into the cache."""
        step = self._step(entry)
        step.feed(ids, self._position)
        self._signatures.run(step.call)
        self._cache.write(self._position, len(ids), step.rows.arrays())
        self._position += len(ids)
        return step

    def _entry(self, count: int) -> EntryPoint:
        """The signature to go on with where `count` tokens are left."""
        if count == 1:
            return self._of_room(self._decodes, self._size)[0]
        return chunk_of(self._of_room(self._prefills, self._size if self._position else 0), count)

    def _step(self, entry: EntryPoint) -> Step:
        signature = entry.signature or ""
        if signature not in self._steps:
            own = {role: Buffer(binding) for role, binding in entry.inputs.items() if _kind(role) not in self._axes}
            logits, rows = Buffer(entry.outputs["logits"]), Rows.of(entry.outputs, self._axes)
            given = {
                binding.name: own[role].handle if role in own else self._cache.handle(role)
                for role, binding in entry.inputs.items()
            }
            found = {
                binding.name: logits.handle if role == "logits" else rows.handle(role)
                for role, binding in entry.outputs.items()
            }
            self._steps[signature] = Step(entry, own, logits, rows, self._signatures.call(signature, given, found))
        return self._steps[signature]

    def _fit(self, tokens: int) -> None:
        """Move to the smallest cache with room for so many tokens. A text that has outgrown one does not come back to
        it; where a shorter text does, both are kept open."""
        if self._smallest(tokens) != self._size:
            old = self._cache
            if tokens > self._size:
                self._signatures.forget(_names([*self._around_cache(), *self._of_room(self._scores, self._size)]))
            self._move(tokens)
            self._cache.write(0, self._position, old.arrays())

    def _move(self, tokens: int) -> None:
        """To a cache of zeros. Steps read one cache, and are made anew."""
        entry = next(entry for entry in self._decodes if self._room(entry) >= tokens)
        self._size, self._cache = self._room(entry), Rows.of(entry.inputs, self._axes)
        self._steps.clear()
        self._open(self._around_cache())

    def _around_cache(self) -> list[EntryPoint]:
        """What reads and writes text with the cache of now."""
        size = self._size
        return [
            *self._of_room(self._prefills, 0),
            *self._of_room(self._prefills, size),
            *self._of_room(self._decodes, size),
        ]

    def _of_room(self, entries: Sequence[EntryPoint], size: int) -> list[EntryPoint]:
        return [entry for entry in entries if self._room(entry) == size]

    def _room(self, entry: EntryPoint) -> int:
        """How many rows a signature's cache has; 0 without one."""
        if "key.0" not in entry.inputs:
            return 0
        key = entry.inputs["key.0"]
        return _size(key, 2) * _size(key, 3) // self._head_dim

    def _open(self, entries: Sequence[EntryPoint]) -> None:
        self._signatures.have(_names(entries))

    def _smallest(self, tokens: int) -> int:
        return self._room(next(entry for entry in self._decodes if self._room(entry) >= tokens))


def _names(entries: Sequence[EntryPoint]) -> frozenset[str]:
    return frozenset(entry.signature or "" for entry in entries)


def axes_of(decode: EntryPoint) -> dict[str, int]:
    """The kinds of caches, which go in and come out under one name, and along which axis their places are."""
    shared = {
        _kind(role): (binding.shape, decode.outputs[role].shape)
        for role, binding in decode.inputs.items()
        if role in decode.outputs
    }
    return {kind: [a != b for a, b in zip(*shapes)].index(True) for kind, shapes in shared.items()}


def _kind(role: str) -> str:
    """Of a tensor that each layer has."""
    return role.rsplit(".", 1)[0]


def length_of(entry: EntryPoint) -> int:
    """How many new tokens a signature takes."""
    return _size(entry.inputs["input_ids"], 1)


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
