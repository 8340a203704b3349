"""Golden references of a model that takes tensors: probes, and what the model answered.

golden.json says of each probe whether its shapes are those of the example inputs; golden.safetensors holds the probes
as `input/PLACE/NAME`, the model's answers as `reference/PLACE/NAME`, and as `ARTIFACT_ID/PLACE/NAME` those of the model
with an artifact's own weights, where these are coarser.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobile_llm.bundle.codec import from_json, read_json, to_json
from mobile_llm.bundle.golden import GOLDEN_JSON, GOLDEN_TENSORS
from mobile_llm.bundle.tensorfile import pack, unpack
from mobile_llm.errors import IntegrityFailed, InvalidInput

Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Probe:
    """Whether a probe has the shapes that were traced, or others."""

    traced: bool


@dataclass(frozen=True)
class _Document:
    probes: tuple[Probe, ...]


@dataclass(frozen=True, eq=False)
class GoldenTensors:
    """Probes with their inputs, and per source (`reference`, or an artifact's id) an answer to each."""

    probes: tuple[Probe, ...]
    inputs: tuple[Tensors, ...]
    answers: Mapping[str, tuple[Tensors, ...]]

    def write(self, folder: Path) -> None:
        text = json.dumps(to_json(_Document(self.probes)), indent=1)
        (folder / GOLDEN_JSON).write_text(text + "\n", encoding="utf-8")
        sources = {"input": self.inputs, **self.answers}
        flat = {
            f"{source}/{place}/{name}": tensor
            for source, answers in sources.items()
            for place, tensors in enumerate(answers)
            for name, tensor in tensors.items()
        }
        (folder / GOLDEN_TENSORS).write_bytes(pack(flat))

    @staticmethod
    def read(folder: Path) -> GoldenTensors:
        """Raises IntegrityFailed for files that are not golden references of tensors."""
        try:
            probes = from_json(_Document, read_json(folder / GOLDEN_JSON), GOLDEN_JSON).probes
            sources = _by_source(unpack((folder / GOLDEN_TENSORS).read_bytes()), len(probes))
            inputs = sources.pop("input")
            if "reference" not in sources or not probes:
                raise ValueError(f"{GOLDEN_TENSORS} has no answers of the model")
            return GoldenTensors(probes, inputs, sources)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error, InvalidInput) as error:
            raise IntegrityFailed(f"the golden references of {folder.name} cannot be read: {error}") from None


def _by_source(flat: Tensors, probes: int) -> dict[str, tuple[Tensors, ...]]:
    found: dict[str, list[dict[str, np.ndarray]]] = {}
    for key, tensor in flat.items():
        source, place, name = _split(key)
        found.setdefault(source, [{} for _ in range(probes)])[place][name] = tensor
    for source, answers in found.items():
        if any(set(answer) != set(answers[0]) or not answer for answer in answers):
            raise ValueError(f"{source} does not have the same tensors for every probe")
    return {source: tuple(answers) for source, answers in found.items()}


def _split(key: str) -> tuple[str, int, str]:
    """A source (which may hold a slash, as `onnx/int8` does), a place, a tensor's name."""
    parts = key.split("/")
    place = next((i for i in (1, 2) if len(parts) > i + 1 and parts[i].isdigit()), None)
    if place is None:
        raise ValueError(f"{key!r} is not SOURCE/PLACE/NAME")
    return "/".join(parts[:place]), int(parts[place]), "/".join(parts[place + 1 :])
