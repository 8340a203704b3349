"""How each decoder's modules and weights map onto blocks.

One small file per `model_type`, found by its name: `llama.py` offers `ARCHITECTURE`, which describes a model.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from exporters.architectures.decoders.blocks import DecoderModel
from mobile_llm.errors import UnsupportedModel

_SHARED = {"blocks", "walk", "layout"}  # files here that are no architecture


def known() -> list[str]:
    """The `model_type`s that can be exported."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _SHARED)


def describe_decoder(model: Any) -> DecoderModel:
    """The blocks of a transformers model with a head for the next token.

    Raises UnsupportedModel for a `model_type` or a setting of it that no file here covers.
    """
    model_type = model.config.model_type
    if model_type not in known():
        raise UnsupportedModel(
            f"decoder {model_type!r} is not covered; covered are {', '.join(known())}. "
            f"A new one is a file exporters/architectures/decoders/{model_type}.py"
        )
    described: DecoderModel = importlib.import_module(f"{__name__}.{model_type}").ARCHITECTURE.describe(model)
    return described
