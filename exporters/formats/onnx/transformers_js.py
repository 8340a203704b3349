"""What transformers.js has to be told beside the model's own settings: in config.json which ONNX files keep their
weights in a file beside them, since a browser cannot look; in tokenizer_config.json the chat template, since it reads
no other file for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobile_llm.generation.template import TEMPLATE_FILE

_SECTION = "transformers.js_config"


def with_external_data(config: Mapping[str, Any], bundle: Path) -> dict[str, Any]:
    """The contents of config.json, telling of every ONNX file in `bundle` that has such a file."""
    files = sorted(path.name.removesuffix("_data") for path in (bundle / "onnx").glob("*.onnx_data"))
    if not files:
        return dict(config)
    section = {**config.get(_SECTION, {}), "use_external_data_format": dict.fromkeys(files, 1)}
    return {**config, _SECTION: section}


def with_chat_template(tokenizer_config: Mapping[str, Any], bundle: Path) -> dict[str, Any]:
    """The contents of tokenizer_config.json, with the template that `bundle` has as a file of its own."""
    file = bundle / TEMPLATE_FILE
    if not file.is_file():
        return dict(tokenizer_config)
    return {**tokenizer_config, "chat_template": file.read_text(encoding="utf-8")}
