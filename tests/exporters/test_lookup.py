"""Prompt lookup over exported artifacts: where it is on, logits of tokens read at once are within the bound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import exporters
import mobile_llm
from mobile_llm.generation import lookup
from mobile_llm.generation.engine import DecoderEngine
from mobile_llm.generation.sampler import Sampler

BOUNDED = ["onnx/fp32", "onnx/fp16"]
EXACT = ["tflite/fp32", "tflite/fp16", "tflite/int8"]
TEXT = "abcabcabcabcabcabcabc"


@pytest.fixture(scope="module")
def bundle(decoder_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("llama") / "bundle"
    spec = {"formats": ("onnx", "tflite"), "recipes": ("fp32", "fp16", "int8")}
    return exporters.export(decoder_folder("llama"), "text-generation", output, **spec).bundle


@pytest.mark.parametrize("artifact_id", [*BOUNDED, *EXACT])
def test_logits_read_at_once_are_within_the_bound(artifact_id: str, bundle: Path) -> None:
    ids = np.random.default_rng(3).integers(3, 200, 40).tolist()
    with DecoderEngine.open(bundle, artifact_id, threads=1) as engine:
        bound = lookup.noise_of(engine.artifact)
        steps = np.stack([engine.append([token]) for token in ids])
        engine.rewind(0)
        at_once = np.concatenate([engine.score(ids[first : first + 8]) for first in range(0, len(ids), 8)])
    apart = np.abs(at_once - steps).max()
    assert bound == (lookup._NOISE if artifact_id in BOUNDED else 0)
    assert apart < lookup._NOISE / 2 if artifact_id in BOUNDED else apart == 0


@pytest.mark.parametrize("artifact_id", [*BOUNDED, *EXACT])
def test_answers_are_the_same_with_lookup(artifact_id: str, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read are even guesses that deserve no trust, since random weights write little that repeats itself."""
    monkeypatch.setattr(lookup, "_TRUST", 0.0)
    with mobile_llm.load(bundle, artifact_id, threads=1) as model:
        for sampler, asked in ((Sampler(), None), (Sampler(temperature=0.5), True)):
            expected = model.generate(TEXT, 40, sampler, lookup=False)
            found = model.generate(TEXT, 40, sampler, lookup=asked)
            assert found == expected
            assert expected.stats.proposed_tokens == 0
            assert found.stats.proposed_tokens > 7
        assert model.generate(TEXT, 40).stats.accepted_tokens > 0


def test_rounded_activations_without_a_bound_keep_it_off(bundle: Path) -> None:
    with mobile_llm.load(bundle, "onnx/int8", threads=1) as model:
        assert model.generate(TEXT, 40).stats.proposed_tokens == 0
