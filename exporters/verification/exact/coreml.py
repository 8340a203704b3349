"""A Core ML program evaluated without rounding to float16."""

from __future__ import annotations

from pathlib import Path

from exporters.verification.mil import MilSession, decoder
from mobile_llm.backends import Decoder
from mobile_llm.bundle.integrity import inside
from mobile_llm.bundle.manifest import Artifact


def open_session(bundle: Path, artifact: Artifact, threads: int | None) -> MilSession:
    return MilSession(inside(bundle, artifact.path), float32=True)


def open_decoder(bundle: Path, artifact: Artifact, threads: int | None) -> Decoder:
    return decoder(inside(bundle, artifact.path), artifact, float32=True)
