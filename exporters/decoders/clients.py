"""What other clients look for beside the ONNX artifacts of a model that writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exporters.architectures.decoders.blocks import DecoderModel
from exporters.formats.onnx.genai import write_genai_config
from exporters.formats.onnx.transformers_js import with_external_data
from exporters.sources.huggingface import HuggingFaceSource
from mobile_llm.bundle import Artifact
from mobile_llm.bundle.codec import read_json


def write_for_clients(
    source: HuggingFaceSource,
    blocks: DecoderModel,
    stop: Sequence[int],
    artifacts: Mapping[str, Artifact],
    folder: Path,
) -> None:
    """genai_config.json for the coarsest ONNX artifact, and in config.json what transformers.js has to be told."""
    onnx = [artifact for artifact in artifacts.values() if artifact.format == "onnx"]
    if not onnx:
        return
    if stop:
        smallest = min(onnx, key=lambda artifact: artifact.size)
        write_genai_config(blocks, source.config.model_type, smallest, _generation(source, stop), folder)
    config = with_external_data(read_json(folder / "config.json"), folder)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _generation(source: HuggingFaceSource, stop: Sequence[int]) -> dict[str, Any]:
    stated = {name: value for name, value in source.model.generation_config.to_dict().items() if value is not None}
    return {**stated, "eos_token_id": list(stop)}
