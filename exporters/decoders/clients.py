"""What other clients look for beside the ONNX artifacts of a model that writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exporters.architectures.decoders.blocks import DecoderModel
from exporters.formats.onnx.genai import write_genai_config
from exporters.formats.onnx.transformers_js import with_chat_template, with_external_data
from exporters.sources.huggingface import HuggingFaceSource
from mobile_llm.bundle import Artifact
from mobile_llm.bundle.codec import read_json

# What transformers 5 calls what transformers 4, and clients built on it, know by the other name
_TOKENIZERS = {"TokenizersBackend": "PreTrainedTokenizerFast"}


def write_for_clients(
    source: HuggingFaceSource,
    blocks: DecoderModel,
    stop: Sequence[int],
    artifacts: Mapping[str, Artifact],
    folder: Path,
) -> None:
    """genai_config.json for the coarsest ONNX artifact, and what transformers.js and optimum have to be told."""
    onnx = [artifact for artifact in artifacts.values() if artifact.format == "onnx"]
    if not onnx:
        return
    if stop:
        smallest = min(onnx, key=lambda artifact: artifact.size)
        write_genai_config(blocks, source.config.model_type, smallest, _generation(source, stop), folder)
    for name, completed in (("config.json", with_external_data), ("tokenizer_config.json", tokenizer_settings)):
        if (folder / name).is_file():
            settings = completed(read_json(folder / name), folder)
            (folder / name).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def tokenizer_settings(config: Mapping[str, Any], bundle: Path) -> dict[str, Any]:
    """The contents of tokenizer_config.json, with the chat template and a class that others know."""
    named = config.get("tokenizer_class")
    renamed = {"tokenizer_class": _TOKENIZERS[named]} if named in _TOKENIZERS else {}
    return {**with_chat_template(config, bundle), **renamed}


def _generation(source: HuggingFaceSource, stop: Sequence[int]) -> dict[str, Any]:
    stated = {name: value for name, value in source.model.generation_config.to_dict().items() if value is not None}
    return {**stated, "eos_token_id": list(stop)}
