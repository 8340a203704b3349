"""What dynamic int8 kernels do to a linear layer's input, written in torch so that a twin can do the same.

Scale and zero point are taken from the values at run time. `per_tensor` is onnxruntime's DynamicQuantizeLinear
(ONNX operator specification); `per_row` is LiteRT's, one range for each token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Rounding = Callable[[Any], Any]


def per_tensor(x: Any) -> Any:
    """uint8 with one scale and zero point for the whole tensor, zero always representable."""
    low, high = x.min().clamp(max=0), x.max().clamp(min=0)
    return _through_uint8(x, low, high)


def per_row(x: Any) -> Any:
    """8 bits with a scale and zero point for each row along the last dimension."""
    low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    return _through_uint8(x, low, high)


def _through_uint8(x: Any, low: Any, high: Any) -> Any:
    scale = (high - low) / 255
    scale = scale.where(scale > 0, scale.new_ones(()))
    zero_point = (-low / scale).round()
    return ((x / scale).round() + zero_point).clamp(0, 255).sub(zero_point) * scale
