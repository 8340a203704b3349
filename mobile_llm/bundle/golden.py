"""Golden references: what the PyTorch model answered, kept in the bundle so that any artifact can be compared
with it again, on any machine and in any language.

golden.json holds texts and ids, golden.safetensors the outputs.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobile_llm.bundle.codec import from_json, read_json, to_json
from mobile_llm.bundle.tensorfile import pack, unpack
from mobile_llm.errors import IntegrityFailed, InvalidInput

GOLDEN_JSON = "golden.json"
GOLDEN_TENSORS = "golden.safetensors"


@dataclass(frozen=True)
class GoldenText:
    """A text (of a pair both), its ids (special tokens included), what they decode to, and the model's label if it has
    one, all its labels from the likeliest down, or its label for each token."""

    text: str
    ids: tuple[int, ...]
    types: tuple[int, ...]
    decoded: str
    label: str | None = None
    tags: tuple[str, ...] = ()
    text_pair: str | None = None
    labels: tuple[str, ...] = ()

    @property
    def given(self) -> str | tuple[str, str]:
        """What a task is given: the text, or the pair."""
        return self.text if self.text_pair is None else (self.text, self.text_pair)


@dataclass(frozen=True)
class GoldenInputs:
    """The probes: texts, then bare sequences of ids at lengths that nothing was traced or fixed at."""

    texts: tuple[GoldenText, ...]
    sequences: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class Golden:
    """Probes and reference outputs. `outputs` maps `reference/NAME` (the PyTorch model) and
    `ARTIFACT_ID/NAME` (the model with that artifact's weights and activations, where they are coarser)
    to float32 (probes, width), texts first."""

    inputs: GoldenInputs
    outputs: Mapping[str, np.ndarray]

    def write(self, folder: Path) -> None:
        text = json.dumps(to_json(self.inputs), ensure_ascii=False, indent=1)
        (folder / GOLDEN_JSON).write_text(text + "\n", encoding="utf-8")
        (folder / GOLDEN_TENSORS).write_bytes(pack(self.outputs))

    @staticmethod
    def read(folder: Path) -> Golden:
        """Raises IntegrityFailed for files that are not golden references."""
        try:
            inputs = from_json(GoldenInputs, read_json(folder / GOLDEN_JSON), GOLDEN_JSON)
            outputs = unpack((folder / GOLDEN_TENSORS).read_bytes())
            _check_rows(inputs, outputs)
            return Golden(inputs, outputs)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error, InvalidInput) as error:
            raise IntegrityFailed(f"the golden references of {folder.name} cannot be read: {error}") from None


def _check_rows(inputs: GoldenInputs, outputs: Mapping[str, np.ndarray]) -> None:
    """Every output has a row for every probe, or it is of other probes."""
    probes = len(inputs.texts) + len(inputs.sequences)
    for name, output in outputs.items():
        if output.ndim != 2 or len(output) != probes:
            raise ValueError(f"{name} has the shape {output.shape}, and there are {probes} probes")
    if not any(name.startswith("reference/") for name in outputs):
        raise ValueError(f"{GOLDEN_TENSORS} has no answers of the model")
