"""What a constraint on an answer is: it forbids tokens before one is chosen, and is told which one was."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Constraint(Protocol):
    """Follows one answer from its first token to its last; a second answer needs another one."""

    def apply(self, logits: np.ndarray) -> None:
        """Set the logits (vocabulary,) of forbidden tokens to -inf, in place."""

    def accept(self, token: int) -> None:
        """`token`, which was not forbidden and is no stop token, has been written."""

    def finished(self) -> bool:
        """Whether nothing but a stop token may follow."""
