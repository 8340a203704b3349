"""How each architecture's modules and weights map onto blocks.

One small file per `model_type`, found by its name: `exporters/architectures/bert.py` offers
`describe(model, pooling) -> EncoderModel`. Adding an architecture is adding such a file.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from exporters.architectures.blocks import EncoderModel, Pooling
from mobile_llm.errors import UnsupportedModel

_SHARED = {"weights", "blocks", "encoder", "modules"}  # files here that are no architecture


def known() -> list[str]:
    """The `model_type`s that can be exported."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _SHARED)


def describe(model: Any, pooling: Pooling | None = None) -> EncoderModel:
    """The blocks of a transformers model: with a classification head, or with `pooling` as its head.

    Raises UnsupportedModel for a `model_type` or a setting of it that no file here covers.
    """
    model_type = model.config.model_type
    if model_type not in known():
        raise UnsupportedModel(
            f"architecture {model_type!r} is not covered; covered are {', '.join(known())}. "
            f"A new one is a file exporters/architectures/{model_type}.py"
        )
    module = importlib.import_module(f"{__name__}.{model_type}")
    return module.describe(model, pooling)
