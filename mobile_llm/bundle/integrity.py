"""Nothing of a bundle is opened before its place and its hash are right."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from mobile_llm.artifacts import members
from mobile_llm.bundle.manifest import Artifact, FileEntry
from mobile_llm.errors import IntegrityFailed

_CHUNK = 1 << 20


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def inside(bundle: Path, relative: str) -> Path:
    """The path of a bundle's member. Raises IntegrityFailed where it would leave the folder, by `..`, by an
    absolute path or through a link."""
    pure = PurePosixPath(relative)
    escapes = pure.is_absolute() or ".." in pure.parts or "\\" in relative or ":" in relative or not pure.parts
    path = bundle / pure
    if escapes or not path.resolve().is_relative_to(bundle.resolve()):
        raise IntegrityFailed(
            f"{bundle.name}/manifest.json names {relative!r}, which lies outside the bundle; do not use it"
        )
    return path


def describe_file(bundle: Path, path: Path) -> FileEntry:
    """The manifest's entry for a file that was just written."""
    return FileEntry(path.relative_to(bundle).as_posix(), path.stat().st_size, sha256_of(path))


def check_files(bundle: Path, files: Iterable[FileEntry]) -> None:
    """Raises IntegrityFailed at the first file that is missing, of another size, or of another hash."""
    for entry in files:
        path = inside(bundle, entry.path)
        if not path.is_file():
            raise IntegrityFailed(f"{entry.path} is missing from the bundle {bundle.name}; fetch it again")
        size = path.stat().st_size
        if size != entry.bytes:
            raise IntegrityFailed(
                f"{entry.path} has {size} bytes, the manifest says {entry.bytes}; fetch the bundle again"
            )
        if sha256_of(path) != entry.sha256:
            raise IntegrityFailed(f"{entry.path} differs from the manifest's sha256; fetch the bundle again")


def refuse_unlisted(bundle: Path, artifact: Artifact) -> None:
    """Raises IntegrityFailed where an artifact consists of a file that the manifest has no hash for."""
    path = inside(bundle, artifact.path)
    listed = {bundle / file.path for file in artifact.files}
    for member in members(artifact.format, path):
        if member not in listed:
            name = member.relative_to(path.parent).as_posix()
            raise IntegrityFailed(
                f"{artifact.path} keeps data in {name}, for which the manifest has no hash; fetch the bundle again"
            )
