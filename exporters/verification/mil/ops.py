"""What each MIL operator computes (coremltools' documentation of `Builder`), in torch.

Functions take the operator's parameters by name: tensors, strings, and for `values` a list. Floats are float32; the
caller rounds results to what the program declares. Not covered: padding of convolutions to the same size, control
flow, images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from exporters.verification.mil.recurrent import lstm
from exporters.verification.mil.slices import ints, slice_by_index, slice_by_size, slice_update, slice_update_in_place
from exporters.verification.mil.states import IN_PLACE, read_state, write_state
from mobile_llm.errors import UnsupportedModel

T = torch.Tensor

_CASTS = {
    "fp16": torch.float32, "fp32": torch.float32, "int8": torch.int8, "uint8": torch.uint8, "int16": torch.int16,
    "int32": torch.int32, "bool": torch.bool,
}  # fmt: skip


def _unary(function: Callable[[T], T]) -> Callable[[T], T]:
    return lambda x: function(x)


def _binary(function: Callable[..., T]) -> Callable[[T, T], T]:
    return lambda x, y: function(x, y)


def _reduction(function: Callable[[T, list[int], bool], T]) -> Callable[..., T]:
    def reduce(x: T, axes: T | None = None, keep_dims: T | None = None) -> T:
        chosen = ints(axes) if axes is not None else list(range(x.ndim))
        return function(x, chosen, bool(keep_dims))

    return reduce


def _argmax(x: T, axis: T, keep_dims: T | None = None, output_dtype: str = "int32") -> T:
    return x.argmax(int(axis), bool(keep_dims)).to(_CASTS[output_dtype])


def _cast(x: T, dtype: str) -> T:
    return x.to(_CASTS[dtype])


def _linear(x: T, weight: T, bias: T | None = None) -> T:
    return functional.linear(x, weight, bias)


def _conv(
    x: T,
    weight: T,
    bias: T | None = None,
    pad_type: str = "valid",
    strides: T | None = None,
    pad: T | None = None,
    dilations: T | None = None,
    groups: T | None = None,
) -> T:
    """Over one to three spatial axes; `pad` counts before and after each and matters where `pad_type` is custom."""
    axes = x.ndim - 2
    if pad_type not in ("valid", "custom"):
        raise UnsupportedModel(f"the evaluator does not know conv with pad_type {pad_type!r}")
    if pad_type == "custom" and pad is not None:
        edges = ints(pad)
        x = functional.pad(x, [edge for axis in reversed(range(axes)) for edge in edges[2 * axis : 2 * axis + 2]])
    function = (functional.conv1d, functional.conv2d, functional.conv3d)[axes - 1]
    steps, gaps = (ints(given) if given is not None else [1] * axes for given in (strides, dilations))
    return function(x, weight, bias, stride=steps, dilation=gaps, groups=int(groups) if groups is not None else 1)


def _matmul(x: T, y: T, transpose_x: T | None = None, transpose_y: T | None = None) -> T:
    return (x.mT if transpose_x else x) @ (y.mT if transpose_y else y)


def _layer_norm(x: T, axes: T, epsilon: T, gamma: T | None = None, beta: T | None = None) -> T:
    return functional.layer_norm(x, [x.shape[axis] for axis in ints(axes)], gamma, beta, float(epsilon))


def _softmax(x: T, axis: T) -> T:
    return x.softmax(int(axis))


def _gelu(x: T, mode: str = "EXACT") -> T:
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    return functional.gelu(x, approximate="none" if mode == "EXACT" else "tanh")


def _attention(query: T, key: T, value: T, attn_mask: T | None = None) -> T:
    """iOS 18, fused: what it computes inside is not rounded."""
    scores = query @ key.mT / query.shape[-1] ** 0.5
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return scores.softmax(-1) @ value


def _gather(x: T, indices: T, axis: T, batch_dims: T | None = None, validate_indices: T | None = None) -> T:
    """Rows of `x` along `axis`; negative indices count from the end. Without batch dimensions."""
    if batch_dims is not None and int(batch_dims):
        raise UnsupportedModel("the evaluator does not know gather with batch_dims")
    along = int(axis) % x.ndim
    wanted = indices.long().reshape(-1)
    rows = x.index_select(along, torch.where(wanted < 0, wanted + x.shape[along], wanted))
    return rows.reshape([*x.shape[:along], *indices.shape, *x.shape[along + 1 :]])


def _reshape(x: T, shape: T) -> T:
    """0 keeps the size of the same place, -1 is what is left."""
    return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(ints(shape))])


def _transpose(x: T, perm: T) -> T:
    return x.permute(ints(perm))


def _expand_dims(x: T, axes: T) -> T:
    rank = x.ndim + len(ints(axes))
    for axis in sorted(a % rank for a in ints(axes)):
        x = x.unsqueeze(axis)
    return x


def _squeeze(x: T, axes: T | None = None) -> T:
    return x.squeeze() if axes is None else x.squeeze(tuple(ints(axes)))


def _concat(values: Sequence[T], axis: T, interleave: T | None = None) -> T:
    if interleave is not None and bool(interleave):
        return torch.stack(list(values), int(axis) + 1).flatten(int(axis), int(axis) + 1)
    return torch.cat([torch.atleast_1d(value) for value in values], int(axis))  # scalars make a vector


def _stack(values: Sequence[T], axis: T) -> T:
    return torch.stack(list(values), int(axis))


def _split(x: T, axis: T, num_splits: T | None = None, split_sizes: T | None = None) -> Sequence[T]:
    if split_sizes is not None:
        return x.split(ints(split_sizes), int(axis))
    assert num_splits is not None  # the operator demands one of the two
    return x.split(x.shape[int(axis)] // int(num_splits), int(axis))


def _tile(x: T, reps: T) -> T:
    return x.tile(ints(reps))


def _fill(shape: T, value: T) -> T:
    return torch.full(ints(shape), value.item(), dtype=value.dtype)


def _range_1d(start: T, end: T, step: T) -> T:
    return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


def _select(cond: T, a: T, b: T) -> T:
    return torch.where(cond, a, b)


def _clip(x: T, alpha: T, beta: T) -> T:
    return x.clamp(float(alpha), float(beta))


def _shape(x: T) -> T:
    return torch.tensor(x.shape, dtype=torch.int32)


def _with_epsilon(function: Callable[[T, float], T]) -> Callable[..., T]:
    return lambda x, epsilon: function(x, float(epsilon))


def _affine_dequantize(quantized_data: T, zero_point: T, scale: T, axis: T) -> T:
    """iOS 16: one scale and zero point per entry of `axis`."""
    shape = [1] * quantized_data.ndim
    shape[int(axis)] = -1
    zero = zero_point.float().reshape(shape) if zero_point.ndim else zero_point.float()
    wide = quantized_data.float()  # changed in place: a word table is most of a small model
    return wide.sub_(zero).mul_(scale.reshape(shape) if scale.ndim else scale)


def _blockwise_shift_scale(data: T, scale: T, offset: T | None = None) -> T:
    """iOS 18: scales (and offsets) over blocks along every axis."""
    blocks = [size for whole, parts in zip(data.shape, scale.shape) for size in (parts, whole // parts)]
    wide = data.to(torch.float32, copy=True).reshape(blocks)  # changed in place: a word table is most of a small model

    def each(small: T) -> T:
        return small.float().reshape([size for parts in small.shape for size in (parts, 1)])

    if offset is not None:
        wide.sub_(each(offset))
    return wide.mul_(each(scale)).reshape(data.shape)


_UNARY: Mapping[str, Callable[[T], T]] = {
    "identity": lambda x: x, "abs": torch.abs, "exp": torch.exp, "sqrt": torch.sqrt, "square": torch.square,
    "tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu, "silu": functional.silu, "erf": torch.erf,
    "sin": torch.sin, "cos": torch.cos, "floor": torch.floor, "ceil": torch.ceil, "sign": torch.sign,
    "logical_not": torch.logical_not, "shape": _shape,
}  # fmt: skip
_BINARY: Mapping[str, Callable[..., Any]] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "real_div": torch.true_divide,
    "floor_div": torch.floor_divide, "maximum": torch.maximum, "minimum": torch.minimum, "pow": torch.pow,
    "mod": torch.remainder, "equal": torch.eq, "not_equal": torch.ne, "less": torch.lt, "less_equal": torch.le,
    "greater": torch.gt, "greater_equal": torch.ge, "logical_and": torch.logical_and, "logical_or": torch.logical_or,
}  # fmt: skip
_REDUCTIONS: Mapping[str, Callable[[T, list[int], bool], T]] = {
    "reduce_sum": lambda x, axes, keep: x.sum(axes, keep),
    "reduce_mean": lambda x, axes, keep: x.mean(axes, keep),
    "reduce_max": lambda x, axes, keep: x.amax(axes, keep),
    "reduce_min": lambda x, axes, keep: x.amin(axes, keep),
    "reduce_l2_norm": lambda x, axes, keep: x.square().sum(axes, keep).sqrt(),
    "reduce_sum_square": lambda x, axes, keep: x.square().sum(axes, keep),
}

OPS: Mapping[str, Callable[..., Any]] = {
    **{name: _unary(function) for name, function in _UNARY.items()},
    **{name: _binary(function) for name, function in _BINARY.items()},
    **{name: _reduction(function) for name, function in _REDUCTIONS.items()},
    "rsqrt": _with_epsilon(lambda x, epsilon: torch.rsqrt(x + epsilon)),
    "log": _with_epsilon(lambda x, epsilon: torch.log(x + epsilon)),
    "inverse": _with_epsilon(lambda x, epsilon: 1 / (x + epsilon)),
    "cast": _cast, "conv": _conv, "linear": _linear, "matmul": _matmul, "layer_norm": _layer_norm, "softmax": _softmax,
    "gelu": _gelu, "gather": _gather, "reshape": _reshape, "transpose": _transpose, "expand_dims": _expand_dims,
    "squeeze": _squeeze, "concat": _concat, "stack": _stack, "split": _split, "slice_by_index": slice_by_index,
    "slice_by_size": slice_by_size, "slice_update": slice_update, "tile": _tile, "fill": _fill,
    "range_1d": _range_1d, "clip": _clip, "select": _select, "lstm": lstm, "reduce_argmax": _argmax,
    "scaled_dot_product_attention": _attention, "read_state": read_state, "write_state": write_state,
    "constexpr_affine_dequantize": _affine_dequantize,
    "constexpr_blockwise_shift_scale": _blockwise_shift_scale,
}  # fmt: skip

# What `states.written_in_place` puts into a program.
INTERNAL: Mapping[str, Callable[..., Any]] = {IN_PLACE: slice_update_in_place}
# Their results are numbers they were given, rounded and found finite before: nobody looks at a whole cache again.
MOVING = {"read_state", "slice_update", IN_PLACE, "slice_by_index"}
