"""What the layouts of a decoder compute, as MIL operators."""

from __future__ import annotations

from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

from exporters.architectures.blocks import Activation
from exporters.architectures.decoders.blocks import CausalAttention

# What hidden scores get added: exp(-10000) is 0, and float16 can still hold the sum.
MASKED = -1e4
_GELU = {"gelu": "EXACT", "gelu_tanh": "TANH_APPROXIMATION"}
# Below it float16 numbers lose digits: no row is scaled up to less.
_SMALLEST_NORMAL = 2.0**-14


def in_type(value: Any, dtype: type[np.floating[Any]]) -> Any:
    name = "fp32" if dtype == np.float32 else "fp16"
    return value if types.builtin_to_string(value.dtype) == name else mb.cast(x=value, dtype=name)


def root_mean_square(value: Any, gain: Any, eps: float) -> Any:
    """value / sqrt(mean(value^2) + eps) * gain along the last axis, in float32."""
    mean = mb.reduce_mean(x=mb.mul(x=value, y=value), axes=[-1], keep_dims=True)
    return mb.mul(x=mb.mul(x=value, y=mb.rsqrt(x=mean, epsilon=np.float32(eps))), y=gain)


def root_mean_square_in_float16(value: Any, gain: Any, eps: float, axis: int) -> Any:
    """The same where float16 has to hold it: value and sqrt(eps) are divided by the same number first."""
    root = np.float16(eps**0.5)
    largest = mb.reduce_max(x=mb.abs(x=value), axes=[axis], keep_dims=True)
    largest = mb.maximum(x=largest, y=max(root, np.float16(_SMALLEST_NORMAL)))
    part = mb.real_div(x=value, y=largest)
    mean = mb.reduce_mean(x=mb.mul(x=part, y=part), axes=[axis], keep_dims=True)
    share = mb.real_div(x=root, y=largest)
    inverse = mb.rsqrt(x=mb.add(x=mean, y=mb.mul(x=share, y=share)), epsilon=np.float16(0))
    scaled = mb.mul(x=value, y=mb.real_div(x=inverse, y=largest))
    return mb.mul(x=scaled, y=gain)


def centred(value: Any, axis: int) -> Any:
    """Layer normalization is that of root mean squares about the mean, and as safe."""
    return mb.sub(x=value, y=mb.reduce_mean(x=value, axes=[axis], keep_dims=True))


def activated(value: Any, kind: Activation) -> Any:
    if kind in _GELU:
        return mb.gelu(x=value, mode=_GELU[kind])
    return {"relu": mb.relu, "silu": mb.silu, "tanh": mb.tanh}[kind](x=value)


def soft_capped(value: Any, cap: float, dtype: type[np.floating[Any]]) -> Any:
    """cap * tanh(value / cap)."""
    return mb.mul(x=mb.tanh(x=mb.mul(x=value, y=dtype(1 / cap))), y=dtype(cap))


def scaled(value: Any, factor: float, dtype: type[np.floating[Any]]) -> Any:
    return value if abs(factor - 1) < 1e-6 else mb.mul(x=value, y=dtype(factor))


def weighed(
    query: Any, key: Any, value: Any, mask: Any, attention: CausalAttention, dtype: type[np.floating[Any]]
) -> Any:
    """Attention as two products: (1, kv_heads, groups * S, head_dim) over (1, kv_heads, T, head_dim)."""
    cap = attention.soft_cap
    scores = mb.matmul(x=scaled(query, attention.scale / (cap or 1), dtype), y=key, transpose_y=True)
    if cap is not None:
        scores = mb.mul(x=mb.tanh(x=scores), y=dtype(cap))
    return mb.matmul(x=mb.softmax(x=mb.add(x=scores, y=mask), axis=-1), y=value)
