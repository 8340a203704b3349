"""Tokens joined into entities, held against transformers' own pipeline over the same model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import exporters
import mobile_llm
from mobile_llm.errors import InvalidInput

LABELS = {0: "O", 1: "B-work", 2: "I-work", 3: "B-mood", 4: "I-mood"}
TEXTS = (
    "The film's plot is warm, funny and moving",
    "Antidisestablishmentarianism again (2027)!",
    "I loved it 😍👍🏽 — 这部电影, naïve café",
    "trading rose at the call",
    "?",
)


@pytest.fixture(scope="module")
def model(make_model: Callable[..., Path]) -> Path:
    return make_model("token-classification", id2label=LABELS, label2id={v: k for k, v in LABELS.items()})


@pytest.fixture(scope="module")
def classifier(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokens") / "bundle"
    return mobile_llm.load(exporters.export(model, "token-classification", folder, ("onnx",), ("fp32",)).bundle)


@pytest.mark.parametrize("aggregation", ["none", "simple", "first", "average", "max"])
def test_entities_are_those_of_transformers(aggregation: str, model: Path, classifier: Any) -> None:
    from transformers import pipeline

    theirs = pipeline("token-classification", model=str(model), aggregation_strategy=aggregation, device="cpu")
    seen = 0
    for text, found in zip(TEXTS, classifier.label_tokens(TEXTS, aggregation)):
        expected = theirs(text)
        names = [row.get("entity_group", row.get("entity")) for row in expected]
        assert [entity.label for entity in found] == names
        assert [(entity.start, entity.end) for entity in found] == [(row["start"], row["end"]) for row in expected]
        assert [entity.score for entity in found] == pytest.approx([float(row["score"]) for row in expected], abs=1e-5)
        assert all(entity.text == text[entity.start : entity.end] for entity in found)
        seen += len(found)
    assert seen >= 8


def test_an_unknown_aggregation_is_refused(classifier: Any) -> None:
    with pytest.raises(InvalidInput, match="unknown aggregation 'mean'; choose from none, simple, first"):
        classifier.label_tokens("a", "mean")


def test_words_take_the_tag_of_their_first_token_and_cut_ones_none(classifier: Any) -> None:
    words = ["antidisestablishment", "film"] * 40
    tags = classifier.word_tags(words)
    assert len(tags) == len(words)
    assert tags[-1] == "O"
    text = " ".join(words[:2])
    whole = classifier.tags(text)
    assert tags[0] in LABELS.values()
    assert classifier.word_tags(words[:2])[0] == whole[1]
