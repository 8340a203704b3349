"""How each architecture's modules and weights map onto blocks.

One small file per `model_type`, found by its name: `exporters/architectures/bert.py` offers `ARCHITECTURE`, which
describes a model in blocks. Adding one is adding such a file (`ADDING.md` beside this file shows how).
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from exporters.architectures.blocks import EncoderModel, Pooling
from mobile_llm.errors import UnsupportedModel

# What lies here and is no encoder's architecture
_SHARED = {"weights", "blocks", "stacking", "encoder", "modules", "layout", "positions", "traced", "stored", "decoders"}


def known() -> list[str]:
    """The `model_type`s that can be exported."""
    return sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__) if m.name not in _SHARED)


def describe(model: Any, task: str, pooling: Pooling | None = None) -> EncoderModel:
    """The blocks of a transformers model: with the classification head of `task`, or with `pooling` as its head.

    Raises UnsupportedModel for a `model_type` or a setting of it that no file here covers.
    """
    model_type = model.config.model_type
    if model_type not in known():
        file = model_type.replace("-", "_")
        raise UnsupportedModel(
            f"architecture {model_type!r} is not covered; covered are {', '.join(known())}. "
            f"A new one is a file exporters/architectures/{file}.py"
        )
    module = importlib.import_module(f"{__name__}.{model_type.replace('-', '_')}")
    described: EncoderModel = module.ARCHITECTURE.describe(model, task, pooling)
    return described
