"""Random numbers and choices."""

from __future__ import annotations

import base64
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from mobile_llm.generation.random import Pcg32
from mobile_llm.generation.sampler import Sampler

_SEEDS = (0, 1, 42, 2**32, 2**63, 2**64 - 1)
_ROWS = 8
_SURE = 1e-10  # a temperature that is off by this share must choose the same: no case hangs on the last bit of exp
_SETTINGS = (
    Sampler(),
    Sampler(temperature=1.0),
    Sampler(temperature=0.7, top_k=5),
    Sampler(temperature=1.5, top_p=0.8),
    Sampler(temperature=2.0, min_p=0.1),
    Sampler(repetition_penalty=1.3),
    Sampler(temperature=0.9, top_k=20, top_p=0.9, min_p=0.02, repetition_penalty=1.2),
    Sampler(temperature=1.0, top_k=1),
)


def numbers() -> dict[str, Any]:
    return {
        "description": """
            PCG32. Each case starts two generators from `seed` (an unsigned 64-bit integer, as a string) and the default
            stream, 54. The first gives the `integers` (unsigned, 32 bits); the second the `floats` in [0, 1), which are
            integers / 2^32 and exact in a double.
        """,
        "cases": [_numbers(seed) for seed in _SEEDS],
    }


def _numbers(seed: int) -> dict[str, Any]:
    integers, floats = Pcg32(seed), Pcg32(seed)
    return {
        "seed": str(seed),
        "integers": [integers.next_uint32() for _ in range(8)],
        "floats": [floats.next_float() for _ in range(4)],
    }


def choices() -> dict[str, Any]:
    return {
        "description": """
            One sampler with `settings` is started from `seed`. It chooses once from each row of `logits` in turn;
            `before` are the tokens of the text until then, to which each choice is added. `tokens` are the choices.
            `logits` name an entry of `rows`: base64 of float32, little-endian, `vocabulary` of them a row.
        """,
        "vocabulary": 64,
        "rows": {name: base64.b64encode(rows.tobytes()).decode() for name, rows in _logits().items()},
        "cases": [
            _choices(name, rows, settings, seed)
            for name, rows in _logits().items()
            for settings in _SETTINGS
            for seed in (0, 7)
        ],
    }


def _logits() -> dict[str, np.ndarray]:
    """From PCG32, so that no other generator's version matters: multiples of 1/64 in [-8, 8)."""
    random = Pcg32(2026)
    drawn = np.array([random.next_uint32() >> 22 for _ in range(_ROWS * 64)], np.float32).reshape(_ROWS, 64) / 64 - 8
    one_left = np.full((_ROWS, 64), -np.inf, "<f4")
    one_left[np.arange(_ROWS), np.arange(_ROWS) * 9] = -3.5
    return {
        "spread": drawn.astype("<f4"),
        "ties": np.floor(drawn / 4).astype("<f4"),
        "all_equal": np.zeros((_ROWS, 64), "<f4"),
        "half_forbidden": np.where(np.arange(64) % 2, drawn, -np.inf).astype("<f4"),
        "one_left": one_left,
    }


def _choices(name: str, rows: np.ndarray, settings: Sampler, seed: int) -> dict[str, Any]:
    before = [3, 1, 4, 1, 5]
    tokens = _chosen(rows, settings, seed, before)
    for factor in (1 - _SURE, 1 + _SURE):
        if _chosen(rows, replace(settings, temperature=settings.temperature * factor), seed, before) != tokens:
            raise ValueError(f"{name} with {settings} and seed {seed} hangs on the last bits; take another seed")
    return {"logits": name, "settings": asdict(settings), "seed": seed, "before": before, "tokens": tokens}


def _chosen(rows: np.ndarray, settings: Sampler, seed: int, before: list[int]) -> list[int]:
    choose, text = settings.start(seed), list(before)
    for row in rows.astype(np.float32):
        text.append(choose(row, text))
    return text[len(before) :]
