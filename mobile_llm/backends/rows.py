"""Rows of a KV cache that come from elsewhere, such as a file."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mobile_llm.errors import IntegrityFailed


def check_rows(rows: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises IntegrityFailed where `rows` are not of these names and shapes."""
    if {name: row.shape for name, row in rows.items()} != dict(shapes):
        raise IntegrityFailed("these rows are of a cache of other layers or sizes; save the prefix again")
