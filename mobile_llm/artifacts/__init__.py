"""Readers of the three formats: a file in, one `ArtifactGraph` out, without any converter installed.

Files are untrusted: lengths are checked before anything is taken, references are checked before they are followed,
and what does not add up raises IntegrityFailed.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from mobile_llm.artifacts.graph import ArtifactGraph


def read(format_name: str, path: Path) -> ArtifactGraph:
    """Read the artifact at `path` ("onnx", "tflite": a file; "coreml": a package). Raises IntegrityFailed."""
    graph: ArtifactGraph = import_module(f"mobile_llm.artifacts.{format_name}").read(path)
    return graph


__all__ = ["ArtifactGraph", "read"]
