"""Opening a bundle: the manifest is read and checked, artifacts are looked up, nothing else is touched."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobile_llm.bundle.codec import from_json
from mobile_llm.bundle.integrity import check_files, inside
from mobile_llm.bundle.manifest import SCHEMA_VERSION, Artifact, Manifest
from mobile_llm.errors import IntegrityFailed, InvalidInput, ModelNotFound, RuntimeTooOld

MANIFEST = "manifest.json"


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
            artifact_id = next(d for f in ("onnx", "tflite", "coreml") if (d := self.manifest.defaults.get(f)))
        if artifact_id not in artifacts:
            raise InvalidInput(f"no artifact {artifact_id!r} in {self.folder.name}; it has {', '.join(artifacts)}")
        return artifact_id, artifacts[artifact_id]

    def path(self, relative: str) -> Path:
        """A member's path; raises IntegrityFailed where it would leave the folder."""
        return inside(self.folder, relative)

    def check_artifact(self, artifact: Artifact) -> None:
        """Compare the files of one artifact, and the bundle's own, with their hashes."""
        check_files(self.folder, (*self.manifest.files, *artifact.files))


def _parse(path: Path) -> Manifest:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise IntegrityFailed(f"{path} is not JSON ({error}); fetch the bundle again") from None
    newer = _is_newer_minor(path, data)
    try:
        manifest = from_json(Manifest, data, MANIFEST, ignore_unknown=newer)
    except InvalidInput as error:
        raise IntegrityFailed(f"{error}; fetch the bundle again") from None
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
    return minor > known_minor


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
