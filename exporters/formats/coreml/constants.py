"""Weights of a decoder as constants of a MIL program, each stored once under its name, for all functions (iOS 18).

Integers keep our scales, in float16, in `constexpr_blockwise_shift_scale`: int8 per channel and int4 in blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

from exporters.architectures.blocks import Linear
from exporters.architectures.stacking import neighbours, stacked
from exporters.architectures.weights import Quantized, Weight


class Constants:
    """The constants of one function. `dtype` is what the program computes in; `arrays`, their values by name, belong
    to all functions, so that memory holds them once too."""

    def __init__(self, dtype: type[np.floating[Any]], arrays: dict[str, np.ndarray]) -> None:
        self._dtype = dtype
        self._arrays = arrays
        self._made: dict[str, Any] = {}

    def weight(self, weight: Weight) -> Any:
        if not weight.quantized:
            return self.named(weight.name, weight.float32())
        if weight.name not in self._made:
            self._made[weight.name] = self._integers(weight.name, weight.quantized)
        return self._made[weight.name]

    def named(self, name: str, values: np.ndarray) -> Any:
        """A constant of this function's type."""
        return self.exactly(name, values.astype(self._dtype))

    def exactly(self, name: str, values: np.ndarray) -> Any:
        """A constant of the type it comes in."""
        if name not in self._made:
            self._made[name] = mb.const(val=self._arrays.setdefault(name, values), name=name)
            _share(self._made[name], name)
        return self._made[name]

    def linear(self, value: Any, linear: Linear) -> Any:
        """(…, in) -> (…, out). Layers without a bias share zeros: coremltools would write some for each."""
        width = linear.weight.shape[0]
        bias = self.weight(linear.bias) if linear.bias else self.named(f"zeros {width}", np.zeros(width))
        return mb.linear(x=value, weight=self.weight(linear.weight), bias=bias)

    def convolution(self, value: Any, linear: Linear) -> Any:
        """(1, in, 1, S) -> (1, out, 1, S): the same as a convolution over single places."""
        bias = {"bias": self.weight(linear.bias)} if linear.bias else {}
        return mb.conv(x=value, weight=self.kernel(linear.weight), pad_type="valid", **bias)

    def kernel(self, weight: Weight) -> Any:
        """A matrix (out, in) as (out, in, 1, 1). A function has it in this shape or in its own, not in both."""
        if not weight.quantized:
            return self.named(weight.name, weight.float32()[:, :, None, None])
        if weight.name not in self._made:
            self._made[weight.name] = self._integers(weight.name, weight.quantized, (None, None))
        return self._made[weight.name]

    def linears(self, value: Any, *linears: Linear) -> Any:
        """The outputs of layers with the same input, one after the other: those that are stored alike by one product,
        since a decoding step on a GPU spends its time starting kernels."""
        products = [self.linear(value, stacked(group)) for group in neighbours(linears)]
        return mb.concat(values=products, axis=-1) if products[1:] else products[0]

    def _integers(self, name: str, quantized: Quantized, axes: tuple[None, ...] = ()) -> Any:
        """With `axes` of size one behind its own."""
        stored = types.np_int4_dtype if quantized.bits == 4 else np.int8
        parts = {"data": quantized.integers.astype(stored), "scale": quantized.scale.astype(self._dtype)}
        parts = {part: values[(..., *axes)] for part, values in parts.items()}
        parts = {part: self._arrays.setdefault(f"{name} {part}", values) for part, values in parts.items()}
        widened = mb.constexpr_blockwise_shift_scale(**parts, name=name)
        for part in parts:
            _share(widened.op.inputs[part], f"{name} {part}")
        return widened


def _share(constant: Any, name: str) -> None:
    """Constants of several functions that have the same id lie in the file once."""
    constant.op.weight_id = name
