"""Golden references of a model that writes: what the PyTorch model expected next, and what it wrote.

golden.json holds texts with their ids, conversations with their prompts, the probes' ids and greedy continuations;
golden.safetensors holds for each source (`reference`, or an artifact's id where its weights are coarser) and probe the
likeliest tokens at every position, `SOURCE/PLACE/tokens` int32 (positions, N), and `SOURCE/PLACE/log_probabilities`
float32 (positions, N). What is left to 1 is the probability of all other tokens together.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobile_llm.bundle.codec import from_json, read_json, to_json
from mobile_llm.bundle.golden import GOLDEN_JSON, GOLDEN_TENSORS, GoldenText
from mobile_llm.bundle.tensorfile import pack, unpack
from mobile_llm.errors import IntegrityFailed, InvalidInput

REFERENCE = "reference"


@dataclass(frozen=True)
class GoldenChat:
    """A conversation (roles and contents, in turn) and the prompt that the chat template makes of it."""

    roles: tuple[str, ...]
    contents: tuple[str, ...]
    prompt: str

    @property
    def messages(self) -> list[dict[str, str]]:
        return [{"role": role, "content": content} for role, content in zip(self.roles, self.contents)]


@dataclass(frozen=True)
class Written:
    """A greedy continuation of the ids `prompt`, and by how much each token's logit was above the second."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    margins: tuple[float, ...]


@dataclass(frozen=True)
class DecoderProbes:
    """Texts for the tokenizer, conversations for the template, sequences of ids for the logits, and per source what
    it writes."""

    texts: tuple[GoldenText, ...]
    chats: tuple[GoldenChat, ...]
    sequences: tuple[tuple[int, ...], ...]
    written: Mapping[str, tuple[Written, ...]]


@dataclass(frozen=True, eq=False)
class Expected:
    """The likeliest tokens at every position of a probe, most likely first."""

    tokens: np.ndarray
    log_probabilities: np.ndarray


@dataclass(frozen=True, eq=False)
class GoldenDecoder:
    """Probes, and of each source what it expects at each place of `probes.sequences`."""

    probes: DecoderProbes
    expected: Mapping[str, tuple[Expected, ...]]

    def write(self, folder: Path) -> None:
        text = json.dumps(to_json(self.probes), ensure_ascii=False, indent=1)
        (folder / GOLDEN_JSON).write_text(text + "\n", encoding="utf-8")
        (folder / GOLDEN_TENSORS).write_bytes(pack(dict(self._tensors())))

    def _tensors(self) -> list[tuple[str, np.ndarray]]:
        named = []
        for source, sequences in self.expected.items():
            for place, found in enumerate(sequences):
                named.append((f"{source}/{place}/tokens", found.tokens))
                named.append((f"{source}/{place}/log_probabilities", found.log_probabilities))
        return named

    @staticmethod
    def read(folder: Path) -> GoldenDecoder:
        """Raises IntegrityFailed for files that are not golden references of a model that writes."""
        try:
            probes = from_json(DecoderProbes, read_json(folder / GOLDEN_JSON), GOLDEN_JSON)
            tensors = unpack((folder / GOLDEN_TENSORS).read_bytes())
            return GoldenDecoder(probes, {source: _of(source, probes, tensors) for source in probes.written})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error, InvalidInput) as error:
            raise IntegrityFailed(f"the golden references of {folder.name} cannot be read: {error}") from None


def _of(source: str, probes: DecoderProbes, tensors: Mapping[str, np.ndarray]) -> tuple[Expected, ...]:
    found = []
    for place, ids in enumerate(probes.sequences):
        names = (f"{source}/{place}/tokens", f"{source}/{place}/log_probabilities")
        tokens, log_probabilities = (tensors[name] for name in names)
        if tokens.shape != log_probabilities.shape or tokens.ndim != 2 or len(tokens) != len(ids) or not tokens.size:
            raise ValueError(f"{names[0]} does not fit the probe's {len(ids)} ids")
        found.append(Expected(tokens, log_probabilities))
    return tuple(found)
