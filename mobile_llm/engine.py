"""One opened artifact: the bundle's entry points by role, whatever the format, its static shapes and batches.

One engine is one owner of native state: used by two threads at once it raises Busy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np

from mobile_llm import registry
from mobile_llm.artifacts import FORMATS, read_ends
from mobile_llm.artifacts.bindings import check_bindings
from mobile_llm.backends import Session
from mobile_llm.bundle import Artifact, Bundle, EntryPoint, Manifest
from mobile_llm.errors import BackendUnavailable, InvalidInput
from mobile_llm.owner import Owner


class Engine(Owner):
    """An artifact, opened once its files are checked. Use as a context manager or `close()` it."""

    def __init__(self, bundle: Bundle, artifact_id: str, artifact: Artifact, session: Session) -> None:
        super().__init__()
        self.bundle = bundle
        self.artifact_id = artifact_id
        self.artifact = artifact
        self._session = session

    @classmethod
    def open(
        cls,
        bundle: str | Path | Bundle,
        artifact: str | None = None,
        threads: int | None = None,
        backend: str | None = None,
    ) -> Engine:
        """Open an artifact by id (`onnx/int8`), or the default one.

        `backend` is by default the one named as the format. Raises ModelNotFound, InvalidInput,
        IntegrityFailed, RuntimeTooOld, BackendUnavailable.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        artifact_id, chosen = opened.choose(artifact)
        module = find_backend(opened, chosen, backend)
        return cls(opened, artifact_id, chosen, module.open_session(opened.folder, chosen, threads))

    @property
    def manifest(self) -> Manifest:
        return self.bundle.manifest

    def run(self, role: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the entry point `role` on logical tensors (batch, sequence) and return the logical outputs.

        Of several static shapes the smallest that fits is used: shorter inputs are padded with zeros (their
        attention mask too), larger batches go in turns, and rows keep their order.
        """
        with self._owned():
            wanted = {name: self._given(inputs, name) for name in self._entries(role)[0].inputs}
            batch, length = next(iter(wanted.values())).shape
            entry = self._smallest(role, length)
            step = _static_batch(entry) or batch
            parts = [
                self._padded(entry, {n: t[i : i + step] for n, t in wanted.items()}, length)
                for i in range(0, batch, step)
            ]
            return {name: np.concatenate([part[name] for part in parts]) for name in entry.outputs}

    def run_text(self, text: str, *roles: str) -> dict[str, np.ndarray]:
        """The outputs of one or more roles of an artifact that takes a string, by one run."""
        entries = [self._entries(role)[0] for role in roles]
        outputs = {name: binding for entry in entries for name, binding in entry.outputs.items()}
        with self._owned():
            return self._session.run(replace(entries[0], outputs=outputs), {"text": np.array([text], object)})

    def run_tensors(self, role: str, inputs: Mapping[str, np.ndarray], largest: int | None) -> dict[str, np.ndarray]:
        """Run the entry point `role` on tensors of any rank, nothing padded: `largest` rows at a time, or as they are
        where their first dimension is no batch (None)."""
        (entry,) = self._entries(role)
        with self._owned():
            if largest is None:
                return self._session.run(entry, inputs)
            parts = [
                self._session.run(entry, {name: t[i : i + largest] for name, t in inputs.items()})
                for i in range(0, len(next(iter(inputs.values()))), largest)
            ]
            return {name: np.concatenate([part[name] for part in parts]) for name in entry.outputs}

    def run_entry(self, entry: EntryPoint, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one physical entry point (of `artifact.entry_points`) on inputs no longer than its shape."""
        return self._padded(entry, inputs, next(iter(inputs.values())).shape[1])

    def close(self) -> None:
        """Free native memory."""
        self._session.close()

    def _entries(self, role: str) -> tuple[EntryPoint, ...]:
        if role not in self.artifact.entry_points:
            has = ", ".join(self.artifact.entry_points)
            raise InvalidInput(f"{self.artifact_id} has no entry point {role!r}; it has {has}")
        return self.artifact.entry_points[role]

    def _given(self, inputs: Mapping[str, np.ndarray], name: str) -> np.ndarray:
        if name not in inputs:
            raise InvalidInput(f"{self.artifact_id} wants the input {name!r}; given are {', '.join(inputs)}")
        return inputs[name]

    def _smallest(self, role: str, length: int) -> EntryPoint:
        fitting = [entry for entry in self._entries(role) if longest(entry) >= length]
        if not fitting:
            most = max(longest(entry) for entry in self._entries(role))
            raise InvalidInput(f"{length} tokens do not fit {self.artifact_id}, which takes up to {most}")
        return min(fitting, key=longest)

    def _padded(self, entry: EntryPoint, inputs: Mapping[str, np.ndarray], length: int) -> dict[str, np.ndarray]:
        static = static_length(entry)
        if static is not None:
            inputs = {name: np.pad(t, ((0, 0), (0, static - length))) for name, t in inputs.items()}
        outputs = self._session.run(entry, inputs)
        # Outputs with three axes have one row for each token; those of padding are cut off.
        return {name: t[:, :length] if t.ndim == 3 else t for name, t in outputs.items()}


def find_backend(bundle: Bundle, artifact: Artifact, backend: str | None) -> ModuleType:
    """The backend that opens an artifact, once its files are those of the manifest. Raises IntegrityFailed,
    BackendUnavailable."""
    bundle.check_artifact(artifact)
    if artifact.format in FORMATS:
        check_bindings(artifact, read_ends(artifact.format, bundle.path(artifact.path)))
    try:
        return registry.find("mobile_llm.backends", backend or artifact.format)
    except KeyError:
        known = ", ".join(registry.names("mobile_llm.backends"))
        raise BackendUnavailable(f"no backend {backend or artifact.format!r}; installed are {known}") from None


def static_length(entry: EntryPoint) -> int | None:
    """The sequence length an entry point is fixed to; None where it is dynamic."""
    size = next(iter(entry.inputs.values())).shape[1]
    return size if isinstance(size, int) else None


def longest(entry: EntryPoint) -> int:
    """The longest sequence an entry point takes."""
    binding = next(iter(entry.inputs.values()))
    size = binding.shape[1]
    return size if isinstance(size, int) else binding.range[size][1]


def _static_batch(entry: EntryPoint) -> int | None:
    size = next(iter(entry.inputs.values())).shape[0]
    return size if isinstance(size, int) else None
