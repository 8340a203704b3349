"""Layers of one input as one."""

from __future__ import annotations

import numpy as np

from exporters.architectures.blocks import Linear
from exporters.architectures.stacking import neighbours, stacked
from exporters.architectures.weights import Weight
from exporters.quantization.integers import quantize_in_blocks, quantize_per_channel

_RANDOM = np.random.default_rng(0)
INPUTS = _RANDOM.standard_normal((3, 64)).astype(np.float32)


def layer(name: str, rows: int, stored: str, bias: bool = False) -> Linear:
    values = _RANDOM.standard_normal((rows, 64)).astype(np.float32)
    kinds = {"8": quantize_per_channel, "4": quantize_in_blocks}
    weight = Weight(f"{name}.weight", kinds[stored](values) if stored in kinds else values.astype(stored))
    return Linear(weight, Weight(f"{name}.bias", np.arange(rows, dtype=np.float32)) if bias else None)


def product(linear: Linear) -> np.ndarray:
    found: np.ndarray = INPUTS @ linear.weight.float32().T
    return found + linear.bias.float32() if linear.bias else found


def test_only_neighbours_that_are_stored_alike_are_together() -> None:
    layers = [
        layer(f"{i}", 8, stored) for i, stored in enumerate(("4", "4", "8", "4", "float32", "float16", "float16"))
    ]
    groups = list(neighbours(layers))
    assert [len(group) for group in groups] == [2, 1, 1, 1, 2]
    assert [one for group in groups for one in group] == layers


def test_a_stack_gives_what_its_layers_give_and_zeros_for_the_bias_that_one_lacks() -> None:
    for stored in ("4", "8", "float32", "float16"):
        layers = [layer("a", 8, stored, bias=True), layer("b", 5, stored)]
        one = stacked(layers)
        np.testing.assert_allclose(product(one), np.concatenate([product(x) for x in layers], axis=1), rtol=1e-6)
        assert (one.weight.name, one.bias and one.bias.name) == ("a+b.weight", "a+b.bias")
        assert stacked(layers, "both").weight.name == "both.weight"
    assert stacked([layers[1], layer("c", 5, "float16")]).bias is None
    assert stacked(layers[:1]) is layers[0]
