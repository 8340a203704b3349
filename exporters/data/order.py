"""Orders that depend on a seed alone: the same on every machine and Python version."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


def shuffled(items: Sequence[Item], seed: int) -> list[Item]:
    """By keys from `Random.random`, the one sequence that Python promises never to change."""
    generator = random.Random(seed)
    keyed = [(generator.random(), item) for item in items]
    return [item for _, item in sorted(keyed, key=lambda pair: pair[0])]
