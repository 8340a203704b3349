"""The TFLite model inside a LiteRT-LM file, with its integers replaced by the float32 values they stand for."""

from __future__ import annotations

from pathlib import Path

from exporters.verification.exact.tflite import widened
from mobile_llm.artifacts.litertlm import model_file
from mobile_llm.backends.litert import CompiledFile
from mobile_llm.backends.litertlm import WholeCacheDecoder
from mobile_llm.bundle.integrity import inside
from mobile_llm.bundle.manifest import Artifact


def open_decoder(bundle: Path, artifact: Artifact, threads: int | None) -> WholeCacheDecoder:
    with model_file(inside(bundle, artifact.path)) as model, widened(model) as path:
        return WholeCacheDecoder(CompiledFile.of(path, threads), artifact)
