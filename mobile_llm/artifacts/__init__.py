"""Readers of the formats: a file in, one `ArtifactGraph` out, without any converter installed.

Files are untrusted: lengths are checked before anything is taken, references are checked before they are followed,
and what does not add up raises IntegrityFailed.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from mobile_llm.artifacts import onnx
from mobile_llm.artifacts.graph import ArtifactGraph

FORMATS = ("onnx", "tflite", "coreml", "litertlm")


def read(format_name: str, path: Path) -> ArtifactGraph:
    """Read the artifact at `path` ("coreml": a package; the others: a file). Raises IntegrityFailed."""
    graph: ArtifactGraph = import_module(f"mobile_llm.artifacts.{format_name}").read(path)
    return graph


def read_ends(format_name: str, path: Path) -> ArtifactGraph:
    """The same with nothing but what goes into its functions and comes out of them: no operators, no constants. Takes
    for granted that `members` has looked at the file."""
    graph: ArtifactGraph = import_module(f"mobile_llm.artifacts.{format_name}").read_ends(path)
    return graph


def members(format_name: str, path: Path) -> list[Path]:
    """Every file that a runtime opens for the artifact at `path`. Raises IntegrityFailed for one that leads out."""
    if path.is_dir():
        return sorted(member for member in path.rglob("*") if member.is_symlink() or not member.is_dir())
    beside = onnx.external_data(path) if format_name == "onnx" else ()
    return [path, *(path.parent / name for name in beside)]


__all__ = ["FORMATS", "ArtifactGraph", "members", "read", "read_ends"]
