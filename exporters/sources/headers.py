"""The sizes of a model, from the headers of its weight files alone: nothing heavy is imported, no weight is read.

A safetensors file begins with eight bytes, the length of a JSON header that names every tensor's type, shape and place
(https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from exporters.sources.folder import weight_files
from mobile_llm.errors import InvalidInput

_LARGEST_HEADER = 100_000_000  # the format's own limit


@dataclass(frozen=True)
class Sizes:
    """Numbers of parameters: `matrices` become integers (linear layers and the word table), `rest` stays in floating
    point; `words` are those of the word table, among the matrices."""

    matrices: int
    rest: int
    words: int

    @property
    def parameters(self) -> int:
        return self.matrices + self.rest

    @property
    def float32(self) -> int:
        """Bytes of all of them in float32, which is what the export holds in memory."""
        return 4 * self.parameters


def read_sizes(folder: Path) -> Sizes:
    """Raises InvalidInput for a file whose header cannot be read."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder):
        shapes |= {name: tuple(entry["shape"]) for name, entry in _header(path).items() if name != "__metadata__"}
    counts = {name: prod(shape) for name, shape in shapes.items()}
    matrices = sum(count for name, count in counts.items() if len(shapes[name]) > 1 and not _is_small_table(name))
    words = sum(count for name, count in counts.items() if "word_embeddings" in name or "tok_embeddings" in name)
    return Sizes(matrices, sum(counts.values()) - matrices, words)


def _is_small_table(name: str) -> bool:
    return "position" in name or "token_type" in name


def _header(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _LARGEST_HEADER:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("a header that is no object")
        return header
    except (struct.error, ValueError, KeyError) as error:
        raise InvalidInput(f"{path} is damaged or cut short ({error}); fetch the model again") from None
