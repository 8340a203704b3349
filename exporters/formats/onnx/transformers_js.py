"""What transformers.js reads in config.json beside the model's own settings: which ONNX files keep their weights in a
file beside them, since a browser cannot look."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SECTION = "transformers.js_config"


def with_external_data(config: Mapping[str, Any], bundle: Path) -> dict[str, Any]:
    """The contents of config.json, telling of every ONNX file in `bundle` that has such a file."""
    files = sorted(path.name.removesuffix("_data") for path in (bundle / "onnx").glob("*.onnx_data"))
    if not files:
        return dict(config)
    section = {**config.get(_SECTION, {}), "use_external_data_format": dict.fromkeys(files, 1)}
    return {**config, _SECTION: section}
