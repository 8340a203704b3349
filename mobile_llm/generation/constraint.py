"""What a constraint on an answer is: it forbids tokens before each choice, and is told what was chosen."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Constraint(Protocol):
    """Holds the state of one answer; every answer needs one of its own."""

    def apply(self, logits: np.ndarray) -> None:
        """Set the logits (vocabulary,) float32 of forbidden tokens to -inf, in place."""
        ...

    def accept(self, token: int) -> None:
        """Go on after a token that `apply` allowed."""
        ...

    def finished(self) -> bool:
        """Whether nothing but a stop token may follow."""
        ...
