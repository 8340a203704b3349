"""Matrices in integers by what their inputs are: nearer in the outputs, in the same encoding."""

from __future__ import annotations

import numpy as np
import pytest

from exporters.architectures.weights import Quantized
from exporters.quantization.gptq import quantize_calibrated, quantize_rows_calibrated, weighted_error
from exporters.quantization.integers import quantize_in_blocks, quantize_per_channel


@pytest.fixture(scope="module")
def correlated() -> tuple[np.ndarray, np.ndarray]:
    """A matrix (24, 128) and the moments of inputs that a few directions explain, as those of a model are."""
    random = np.random.default_rng(0)
    inputs = random.normal(size=(2000, 12)) @ random.normal(size=(12, 128)) + 0.3 * random.normal(size=(2000, 128))
    inputs = (inputs * np.exp(random.normal(size=128))).astype(np.float32)
    return random.standard_t(4, size=(24, 128)).astype(np.float32), inputs.T @ inputs / len(inputs)


def _error(found: Quantized, values: np.ndarray, hessian: np.ndarray) -> float:
    return float(weighted_error(values - found.dequantized(), hessian).sum())


@pytest.mark.parametrize("block", [32, 64])
def test_outputs_change_less_than_by_rounding_to_nearest(block: int, correlated: tuple[np.ndarray, np.ndarray]) -> None:
    values, hessian = correlated
    nearest = _error(quantize_in_blocks(values, block), values, hessian)
    calibrated = [quantize_calibrated(values, hessian, block, rounds) for rounds in (0, 1, 2)]
    assert {found.block for found in calibrated} == {block}
    errors = [_error(found, values, hessian) for found in calibrated]
    assert errors[0] < nearest / 2
    assert errors[2] <= errors[1] < errors[0]


def test_the_encoding_is_that_of_rounding_to_nearest(correlated: tuple[np.ndarray, np.ndarray]) -> None:
    found = quantize_calibrated(*correlated)
    assert (found.bits, found.block, found.shape) == (4, 32, (24, 128))
    assert found.integers.dtype == np.int8
    assert (found.integers.min(), found.integers.max()) == (-8, 7)
    assert found.scale.dtype == np.float32
    assert (found.scale > 0).all()
    np.testing.assert_array_equal(found.scale, found.scale.astype(np.float16))


def test_in_8_bits_scales_stay_and_outputs_change_less(correlated: tuple[np.ndarray, np.ndarray]) -> None:
    values, hessian = correlated
    nearest, found = quantize_per_channel(values), quantize_rows_calibrated(values, hessian)
    assert (found.bits, found.scale.shape) == (8, (24, 1))
    np.testing.assert_array_equal(found.scale, nearest.scale)
    assert np.abs(found.integers).max() <= 127
    assert _error(found, values, hessian) < _error(nearest, values, hessian) / 2
    odd = values[:, :90]
    np.testing.assert_array_equal(
        quantize_rows_calibrated(odd, hessian[:90, :90]).integers, quantize_per_channel(odd).integers
    )


def test_inputs_that_never_come_are_no_obstacle(correlated: tuple[np.ndarray, np.ndarray]) -> None:
    values, hessian = (array.copy() for array in correlated)
    hessian[5], hessian[:, 5], values[:, 32:64] = 0, 0, 0
    for moments in (hessian, np.zeros_like(hessian)):
        assert np.isfinite(quantize_calibrated(values, moments).dequantized()).all()
    assert not quantize_calibrated(np.zeros_like(values), hessian).integers.any()
