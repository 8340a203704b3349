"""The sizes of a model, from the headers of its weight files alone: nothing heavy is imported, no weight is read.

A safetensors file begins with eight bytes, the length of a JSON header that names every tensor's type, shape and place
(https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from exporters.sources.folder import weight_files
from mobile_llm.errors import InvalidInput

_LARGEST_HEADER = 100_000_000  # the format's own limit
_OTHER_HEADS = ("cls.", "lm_head.", "generator_", "discriminator_", "mlm_", "lm_predictions.", "mask_predictions.")
_WORD_TABLES = ("word_embeddings", "tok_embeddings", "embed_tokens", "wte.")


@dataclass(frozen=True)
class Sizes:
    """Numbers of parameters that an artifact holds: of linear layers and of the word table, which become integers, and
    the `rest`, which stays in floating point. `stored` are all of the checkpoint's."""

    linear: int
    words: int
    rest: int
    stored: int

    @property
    def exported(self) -> int:
        return self.linear + self.words + self.rest


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Of all tensors in the folder's weight files. Raises InvalidInput for a file whose header cannot be read."""
    return {name: shape for path in weight_files(folder) for name, shape in shapes_of(path).items()}


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    """Of the tensors in one safetensors file, which is found to be whole. Raises InvalidInput."""
    entries = {name: entry for name, entry in _header(path).items() if name != "__metadata__"}
    try:
        return {name: tuple(map(int, entry["shape"])) for name, entry in entries.items()}
    except (TypeError, KeyError, ValueError) as error:
        raise InvalidInput(f"{path} is damaged or cut short ({error}); fetch the model again") from None


def count_sizes(shapes: Mapping[str, tuple[int, ...]], task: str) -> Sizes:
    """The parameters of these tensors, by what a task makes of them."""
    counts = {"linear": 0, "words": 0, "rest": 0, "unused": 0}
    for name, shape in shapes.items():
        counts[_kind(name, shape, task)] += prod(shape)
    unused = counts.pop("unused")
    return Sizes(**counts, stored=unused + sum(counts.values()))


def _kind(name: str, shape: tuple[int, ...], task: str) -> str:
    """By the names that transformers gives; what is a head of another task is left out of the artifacts."""
    if (name.startswith(_OTHER_HEADS) and task != "text-generation") or (
        task == "feature-extraction" and "pooler" in name
    ):
        return "unused"
    if any(part in name for part in _WORD_TABLES):
        return "words"
    return "linear" if len(shape) > 1 and not _is_small_table(name) else "rest"


def _is_small_table(name: str) -> bool:
    return "position" in name or "token_type" in name or "wpe." in name


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
