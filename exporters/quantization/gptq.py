"""Integers by calibration: those that change a layer's outputs the least, rather than its weights.

GPTQ (Frantar et al., arXiv:2210.17323) in the encoding of `integers.quantize_in_blocks`: a block's scale is chosen by
the error it makes in the outputs, its columns are rounded one after the other, and what a column loses is made up for
by those that are not rounded yet. Then both are refined: scales by least squares over all of a row's blocks, and each
integer once more with all others held. In 8 bits a row has one scale, that which clips nothing, and only integers are
chosen.

On SmolLM2-135M with its dimensions permuted (10,240 tokens of film reviews, none of them calibrated on): a divergence
of .383 rounded to nearest, .121 by GPTQ, .113 and .111 after one and two rounds of refinement; 75 seconds of one core.
That was with integers from -7 on.

In int8, on the same model with its inputs evened out: .0032 rounded to nearest, .0017 so.

Everything is per row but for H, the second moments of the inputs (in, in); an error E weighs tr(E H Eᵀ).
Not covered: zero points, columns in another order than they are in (no gain here), sums of layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from exporters.architectures.weights import Quantized, Weight
from exporters.quantization.integers import BLOCK, OF_4, SMALLEST_SCALE, quantize_per_channel, unclipped_scale

_DAMPING = 0.01  # of the mean of H's diagonal, added to it
_SHRINK = np.linspace(0.6, 1.05, 16, dtype=np.float32)  # scales tried, as shares of the one that clips nothing
_ROUNDS = 2  # of refinement
_MOVE = 1.4  # a refit may change a scale by this factor: further away it has left the integers it was fit to
_ROWS = 2048  # at a time, for memory
_OF_8 = (-127, 127)  # the least and the largest integer

Ends = tuple[int, int]
ScaleOf = Callable[[np.ndarray, np.ndarray], np.ndarray]


def quantize_calibrated(
    values: np.ndarray, hessian: np.ndarray, block: int = BLOCK, rounds: int = _ROUNDS
) -> Quantized:
    """int4 of a float32 matrix (out, in), whose width divides into blocks, for inputs with second moments `hessian`
    float32 (in, in); scales are exact in float16."""
    hessian = damped(hessian)
    factor = _inverse_factor(hessian)
    parts = []
    for first in range(0, len(values), _ROWS):
        rows = values[first : first + _ROWS].astype(np.float32)
        integers, scale = _rounded(rows, hessian, factor, _scale, OF_4, block)
        for _ in range(rounds):
            scale = _refit(rows, integers, scale, hessian)
            integers = _descended(rows, integers, scale, hessian, OF_4)
        parts.append((integers, scale))
    integers, scales = (np.concatenate(part) for part in zip(*parts))
    return Quantized(integers.astype(np.int8), scales, bits=4)


def quantize_rows_calibrated(values: np.ndarray, hessian: np.ndarray) -> Quantized:
    """int8 of such a matrix with a scale per row, as `integers.quantize_per_channel` has them; that of a width which
    does not divide into blocks is rounded to nearest."""
    nearest = quantize_per_channel(values)
    if values.shape[1] % BLOCK:
        return nearest
    hessian = damped(hessian)
    factor = _inverse_factor(hessian)
    parts = []
    for first in range(0, len(values), _ROWS):
        rows, scale = values[first : first + _ROWS].astype(np.float32), nearest.scale[first : first + _ROWS]
        integers, scales = _rounded(rows, hessian, factor, lambda *_, own=scale[:, 0]: own, _OF_8, BLOCK)
        parts.append(_descended(rows, integers, scales, hessian, _OF_8))
    return Quantized(np.concatenate(parts).astype(np.int8), nearest.scale, bits=8)


def quantize_group(
    values: Mapping[str, np.ndarray], stored: Mapping[str, Weight], hessian: np.ndarray
) -> dict[str, Quantized]:
    """Float32 matrices that share an input, by name, each in blocks of 4 bits or in 8 as `stored` has it; those that
    are alike are computed together."""
    found: dict[str, Quantized] = {}
    blocks = {name: _block(stored[name]) for name in values}
    for block in dict.fromkeys(blocks.values()):
        alike = {name: matrix for name, matrix in values.items() if blocks[name] == block}
        rows = np.concatenate(list(alike.values()))
        together = quantize_calibrated(rows, hessian, block) if block else quantize_rows_calibrated(rows, hessian)
        ends = np.cumsum([len(matrix) for matrix in alike.values()])[:-1]
        parts = zip(alike, np.split(together.integers, ends), np.split(together.scale, ends))
        found |= {name: Quantized(integers, scale, together.bits) for name, integers, scale in parts}
    return found


def _block(weight: Weight) -> int | None:
    """Of 4 bits; None for what is in 8."""
    quantized = weight.quantized
    return quantized.block if quantized and quantized.bits == 4 else None


def weighted_error(difference: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """Of each row of an error (out, in) the mean square it makes in the output, float32 (out,)."""
    error: np.ndarray = ((difference @ hessian) * difference).sum(axis=1)
    return error


def damped(hessian: np.ndarray) -> np.ndarray:
    """Inputs that were always zero, or depend on each other, would leave H without an inverse."""
    mean = float(np.diagonal(hessian).mean())
    return hessian + np.eye(len(hessian), dtype=np.float32) * np.float32(_DAMPING * mean or 1.0)


def _inverse_factor(hessian: np.ndarray) -> np.ndarray:
    """U, upper triangular, of H⁻¹ = Uᵀ U; in float64, since the inverse is far from round."""
    lower = np.linalg.cholesky(np.linalg.inv(hessian.astype(np.float64)))
    return np.ascontiguousarray(lower.T, dtype=np.float32)


def _rounded(
    rows: np.ndarray, hessian: np.ndarray, factor: np.ndarray, scale_of: ScaleOf, ends: Ends, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Integers as float32 (rows, in) and scales (rows, blocks), of a block as it is when its turn comes. Columns are
    kept as rows: each is then one piece."""
    left = rows.T.copy()
    integers = np.empty_like(left)
    scales = np.empty((len(left) // width, len(rows)), np.float32)
    for index, first in enumerate(range(0, len(left), width)):
        block = slice(first, first + width)
        scale = scales[index] = scale_of(left[block].T, hessian[block, block])
        errors = np.empty((width, len(rows)), np.float32)
        for place, column in enumerate(range(first, first + width)):
            integers[column] = _nearest(left[column], scale, ends)
            errors[place] = (left[column] - integers[column] * scale) / factor[column, column]
            rest = slice(column + 1, first + width)
            left[rest] -= factor[column, rest, None] * errors[place]
        left[first + width :] -= factor[block, first + width :].T @ errors
    return integers.T.copy(), scales.T.copy()


def _scale(values: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """The best of some scales for a block (rows, BLOCK) rounded to nearest, weighed by the block's own moments."""
    whole = unclipped_scale(values)
    best, least = _float16(whole), np.full(len(values), np.inf, np.float32)
    for share in _SHRINK:
        scale = _float16(whole * share)
        error = weighted_error(values - _nearest(values, scale[:, None], OF_4) * scale[:, None], hessian)
        best, least = np.where(error < least, scale, best), np.minimum(error, least)
    return best


def _refit(rows: np.ndarray, integers: np.ndarray, scale: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """The scales that are best for these integers, all blocks of a row together: A s = b with A (blocks, blocks)."""
    count, blocks = scale.shape
    width = rows.shape[1] // blocks
    by_block = integers.reshape(count, blocks, -1)
    products = np.empty((count, blocks, blocks), np.float32)
    for index in range(blocks):
        part = slice(index * width, (index + 1) * width)
        seen = by_block[:, index] @ hessian[part]
        products[:, index] = (seen.reshape(by_block.shape) * by_block).sum(-1)
    wanted = ((rows @ hessian).reshape(by_block.shape) * by_block).sum(-1)
    size = np.einsum("rii->r", products)[:, None, None] / blocks  # a block of zeros leaves a row of zeros
    ridge = (1e-6 * size + 1e-12) * np.eye(blocks)
    solved = np.linalg.solve(products + ridge, wanted[..., None].astype(np.float64))[..., 0].astype(np.float32)
    kept = (solved > scale / _MOVE) & (solved < scale * _MOVE)
    return _float16(np.where(kept, solved, scale))


def _descended(
    rows: np.ndarray, integers: np.ndarray, scale: np.ndarray, hessian: np.ndarray, ends: Ends
) -> np.ndarray:
    """Each integer in turn set to the best one for all others as they are; the error never grows."""
    held = integers.T.copy()
    scales = scale.T.copy()
    width = len(held) // len(scales)
    pull = hessian @ (rows.T - held * np.repeat(scales, width, axis=0))  # H times what is still missing
    for index, first in enumerate(range(0, len(held), width)):
        block = slice(first, first + width)
        near, moved = pull[block].copy(), np.empty((width, len(rows)), np.float32)
        for place, column in enumerate(range(first, first + width)):
            wanted = held[column] * scales[index] + near[place] / hessian[column, column]
            better = _nearest(wanted, scales[index], ends)
            moved[place] = (better - held[column]) * scales[index]
            near -= hessian[block, column, None] * moved[place]
            held[column] = better
        pull -= hessian[:, block] @ moved
    return held.T.copy()


def _nearest(values: np.ndarray, scale: np.ndarray, ends: Ends) -> np.ndarray:
    return np.clip(np.rint(values / scale), *ends)


def _float16(scale: np.ndarray) -> np.ndarray:
    """float32 of the nearest that float16 holds, above zero."""
    return np.maximum(scale.astype(np.float16), SMALLEST_SCALE).astype(np.float32)
