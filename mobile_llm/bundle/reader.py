"""Opening a bundle: the manifest is read and checked, artifacts are looked up, nothing else is touched."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mobile_llm.bundle.codec import from_json, read_json
from mobile_llm.bundle.integrity import check_files, inside, refuse_unlisted
from mobile_llm.bundle.layers import unfolded
from mobile_llm.bundle.manifest import SCHEMA_VERSION, Artifact, Manifest
from mobile_llm.errors import IntegrityFailed, InvalidInput, ModelNotFound, RuntimeTooOld

MANIFEST = "manifest.json"
_FORMATS = ("onnx", "tflite", "litertlm", "coreml")  # in the order in which one is chosen where none is named


@dataclass(frozen=True)
class Bundle:
    """A folder with a valid manifest. `folder` is absolute."""

    folder: Path
    manifest: Manifest

    @staticmethod
    def open(folder: str | Path) -> Bundle:
        """Raises ModelNotFound, IntegrityFailed for what is not a manifest, RuntimeTooOld for a newer major."""
        root = Path(folder).absolute()
        path = root / MANIFEST
        if not path.is_file():
            raise ModelNotFound(f"{folder} is not a bundle: it has no {MANIFEST}; make one with `mobile-llm export`")
        return Bundle(root, _parse(path))

    def choose(self, artifact_id: str | None = None) -> tuple[str, Artifact]:
        """An artifact by id, or the best default on this machine: ONNX, then TFLite, then Core ML."""
        artifacts = self.manifest.artifacts
        if artifact_id is None:
            artifact_id = self._default()
        if artifact_id not in artifacts:
            raise InvalidInput(f"no artifact {artifact_id!r} in {self.folder.name}; it has {', '.join(artifacts)}")
        return artifact_id, artifacts[artifact_id]

    def _default(self) -> str:
        defaults = self.manifest.defaults
        chosen = next((defaults[name] for name in _FORMATS if name in defaults), None)
        if chosen is None:
            raise InvalidInput(
                f"{self.folder.name} has a default for {', '.join(defaults)} alone, which this runtime does not have; "
                f"name one of its artifacts: {', '.join(self.manifest.artifacts)}"
            )
        return chosen

    def own_file(self, relative: str) -> Path:
        """The path of one of the bundle's own files. Raises IntegrityFailed where the manifest has no hash for it,
        so that `check_artifact` cannot have compared it."""
        if relative not in {file.path for file in self.manifest.files}:
            raise IntegrityFailed(f"{MANIFEST} has no hash for {relative}; export the bundle again")
        return self.path(relative)

    def path(self, relative: str) -> Path:
        """A member's path; raises IntegrityFailed where it would leave the folder."""
        return inside(self.folder, relative)

    def check_artifact(self, artifact: Artifact) -> None:
        """Compare the files of one artifact, and the bundle's own, with their hashes. Raises IntegrityFailed, also
        for a file that the artifact consists of and that has no hash."""
        check_files(self.folder, (*self.manifest.files, *artifact.files))
        refuse_unlisted(self.folder, artifact)


def _parse(path: Path) -> Manifest:
    try:
        data = read_json(path)
        manifest = from_json(Manifest, data, MANIFEST, ignore_unknown=_is_newer_minor(path, data))
    except InvalidInput as error:
        raise IntegrityFailed(f"{error}; fetch the bundle again") from None
    manifest = replace(manifest, artifacts={name: unfolded(artifact) for name, artifact in manifest.artifacts.items()})
    _check_references(manifest)
    return manifest


def _is_newer_minor(path: Path, data: Any) -> bool:
    version = str(data.get("schema_version", "")) if isinstance(data, dict) else ""
    parts = version.split(".")
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise IntegrityFailed(f"{path} does not state a schema_version such as {SCHEMA_VERSION}; it is not a manifest")
    major, minor = map(int, parts)
    known_major, known_minor = map(int, SCHEMA_VERSION.split("."))
    if major > known_major:
        raise RuntimeTooOld(
            f"{path} has schema {version}, this runtime reads up to {known_major}.x; upgrade mobile-llm"
        )
    return major == known_major and minor > known_minor


def _check_references(manifest: Manifest) -> None:
    for name, artifact_id in manifest.defaults.items():
        if artifact_id not in manifest.artifacts:
            raise IntegrityFailed(f"{MANIFEST} makes {artifact_id!r} the default of {name}, but has no such artifact")
    if not manifest.artifacts or not manifest.defaults:
        raise IntegrityFailed(f"{MANIFEST} lists no artifact or no default; export the bundle again")
    for artifact_id, artifact in manifest.artifacts.items():
        listed = [file.path for file in artifact.files]
        if not any(p == artifact.path or p.startswith(f"{artifact.path}/") for p in listed):
            raise IntegrityFailed(f"{MANIFEST} lists no file for {artifact_id}'s path {artifact.path!r}")
        _check_entries(artifact_id, artifact)


def _check_entries(artifact_id: str, artifact: Artifact) -> None:
    for role, entries in artifact.entry_points.items():
        if not entries or not all(entry.inputs and entry.outputs for entry in entries):
            raise IntegrityFailed(f"{MANIFEST} binds no inputs or no outputs to {role!r} of {artifact_id}")
        for binding in (b for entry in entries for b in entry.inputs.values()):
            unbounded = [name for name in binding.shape[1:] if isinstance(name, str) and name not in binding.range]
            if unbounded:
                raise IntegrityFailed(f"{MANIFEST} gives no range for {unbounded[0]!r} of {artifact_id} {role!r}")
