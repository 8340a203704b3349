"""Logits of a program in float16 counted from where the likeliest ones lie, and given from zero all the same.

Between 16 and 32 neighbouring numbers of float16 are 1/64 apart: of tokens as close as that, rounding would choose. The
head's bias takes the level off inside the product, which is summed before it is rounded; what is left is small, and
small numbers are fine. The level is added again in float32. Soft-capped logits count from zero.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb

from exporters.architectures.blocks import Linear
from exporters.architectures.decoders.blocks import DecoderModel
from exporters.architectures.weights import Weight


def counting_head(model: DecoderModel) -> Linear:
    """The head whose products are the logits less the model's level."""
    level, head = _level(model), model.head
    if not level:
        return head
    bias = head.bias.float32() if head.bias else np.zeros(model.vocabulary, np.float32)
    return replace(head, bias=Weight(f"{head.weight.name} from {level:g}", bias - np.float32(level)))


def in_float32(counted: Any, model: DecoderModel) -> Any:
    """The output `logits` float32 of what the counting head gave in float16."""
    level = _level(model)
    if not level:
        return mb.cast(x=counted, dtype="fp32", name="logits")
    return mb.add(x=mb.cast(x=counted, dtype="fp32"), y=np.float32(level), name="logits")


def _level(model: DecoderModel) -> float:
    return model.level if model.soft_cap is None else 0.0
