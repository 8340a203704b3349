"""The answers of each kind of head, of texts and of pairs, held against transformers' pipeline over the same model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import exporters
import mobile_llm
from mobile_llm.bundle import Bundle
from mobile_llm.commands import main
from mobile_llm.errors import IntegrityFailed, InvalidInput, RuntimeTooOld
from mobile_llm.problem_types import REGRESSION, SINGLE_LABEL
from mobile_llm.tasks.text_classification import sigmoid
from mobile_llm.tasks.tokenization import TextTokenizer

TEXTS = ["A good film", "bad", "it repeats and repeats, again and again", "warm, funny!", "这部电影 👍"]
LONG = "the film repeats itself again and again " * 20
PAIRS = [
    ("a good film", "the film is great"),
    ("bad", "good"),
    (LONG, "too long?"),
    ("too long?", LONG),
    (LONG, LONG[4:]),
    ("这部电影", "naïve café [SEP] a"),
]


def theirs(model: Path) -> Callable[..., Any]:
    from transformers import pipeline

    classify: Callable[..., Any] = pipeline("text-classification", model=str(model), device="cpu")
    return classify


def test_several_labels_are_scored_as_transformers_scores_all_of_them(
    multilabel_model: Path, multilabel_bundle: Path
) -> None:
    pipeline = theirs(multilabel_model)
    answers = mobile_llm.load(multilabel_bundle, "onnx/fp32").classify(TEXTS)
    for text, answer in zip(TEXTS, answers):
        expected = {row["label"]: row["score"] for row in pipeline(text, top_k=None)}
        assert list(answer.scores) == list(expected)
        assert list(answer.scores.values()) == pytest.approx(list(expected.values()), abs=1e-6)
        assert list(answer.labels) == [label for label, score in expected.items() if score > 0.5]
    counts = {len(answer.labels) for answer in answers}
    assert len(counts) > 1  # not one label for each text


def test_a_regression_answers_with_the_models_number(regression_model: Path, regression_bundle: Path) -> None:
    pipeline = theirs(regression_model)
    answers = mobile_llm.load(regression_bundle, "onnx/fp32").classify(PAIRS)
    expected = [
        pipeline({"text": a, "text_pair": b}, truncation=True, function_to_apply="none")["score"] for a, b in PAIRS
    ]
    assert [answer.value for answer in answers] == pytest.approx(expected, abs=1e-5)
    assert np.std(expected) > 0.1


def test_pairs_have_the_ids_and_types_of_transformers(regression_model: Path, regression_bundle: Path) -> None:
    from transformers import AutoTokenizer

    own, reference = TextTokenizer(Bundle.open(regression_bundle)), AutoTokenizer.from_pretrained(regression_model)
    for a, b in PAIRS:
        encoded, expected = own.encode((a, b)), reference(a, b, truncation=True)
        assert list(encoded.ids) == expected["input_ids"]
        assert list(encoded.types) == expected["token_type_ids"]
        assert set(encoded.types) == {0, 1}
    assert max(len(own.encode(pair).ids) for pair in PAIRS) == 64


def test_token_types_that_transformers_does_not_feed_stay_zero(make_model: Callable[..., Path], tmp_path: Path) -> None:
    model = make_model(text_pairs=True)
    bundle = exporters.export(model, "text-classification", tmp_path / "bundle", ("onnx",), ("fp32",)).bundle
    assert set(TextTokenizer(Bundle.open(bundle)).encode(("good", "bad")).types) == {0}
    expected = theirs(model)({"text": "good", "text_pair": "bad"})
    answer = mobile_llm.load(bundle).classify(("good", "bad"))[0]
    assert (answer.label, answer.score) == (expected["label"], pytest.approx(expected["score"], abs=1e-5))


@pytest.mark.parametrize("artifact_id", ["onnx/fp32", "onnx/int8", "tflite/fp32", "tflite/int8"])
def test_the_order_of_a_pair_counts_and_neighbours_do_not(artifact_id: str, regression_bundle: Path) -> None:
    classifier = mobile_llm.load(regression_bundle, artifact_id, threads=1)
    mixed = [PAIRS[0], "a good film", PAIRS[0][::-1], PAIRS[2]]
    together = [answer.value for answer in classifier.classify(mixed)]
    assert together == [classifier.classify(text)[0].value for text in mixed]
    assert len(set(together)) == 4


def test_a_probability_is_exact_at_both_ends() -> None:
    logits = np.float32([-800, -40, 0, 40, 800])
    assert sigmoid(logits).tolist() == [0, pytest.approx(np.exp(-40.0), rel=1e-12), 0.5, 1, 1]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (("a", "b", "c"), "a tuple is a pair of texts, and this one has 3; put several texts in a list"),
        ([("a",)], "this one has 1"),
        (("a", None), "a text should be a str, not NoneType"),
        ([("a", "b"), 3], "a text should be a str, not int"),
    ],
)
def test_what_is_no_pair_is_refused(given: Any, sentence: str, regression_bundle: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        mobile_llm.load(regression_bundle).classify(given)
    assert sentence in str(caught.value)


def test_pairs_are_refused_where_nobody_compared_them(classifier_bundle: Path, embedder_bundle: Path) -> None:
    with pytest.raises(InvalidInput, match="classifier takes single texts, not pairs; put several texts in a list"):
        mobile_llm.load(classifier_bundle).classify(("a", "b"))
    with pytest.raises(InvalidInput, match="an embedding is of a single text, not of a pair"):
        mobile_llm.load(embedder_bundle).embed([("a", "b")])
    assert len(mobile_llm.load(embedder_bundle).embed(("a", "b"))) == 2


def test_a_kind_of_head_that_is_unknown_needs_a_newer_runtime(
    classifier_bundle: Path, edit_manifest: Callable[..., None]
) -> None:
    edit_manifest(classifier_bundle, lambda data: data["task"].update(problem_type="ordinal"))
    with pytest.raises(RuntimeTooOld, match="problem_type 'ordinal' is unknown to this runtime"):
        mobile_llm.load(classifier_bundle)


@pytest.mark.parametrize(
    ("bundle", "problem_type"), [("classifier_bundle", REGRESSION), ("regression_bundle", SINGLE_LABEL)]
)
def test_a_kind_of_head_that_the_labels_contradict_fails_integrity(
    bundle: str, problem_type: str, request: pytest.FixtureRequest, edit_manifest: Callable[..., None]
) -> None:
    folder = request.getfixturevalue(bundle)
    edit_manifest(folder, lambda data: data["task"].update(problem_type=problem_type))
    with pytest.raises(IntegrityFailed, match=f"{problem_type} does not go with [13] labels"):
        mobile_llm.load(folder)


def test_run_prints_the_labels_above_the_threshold(multilabel_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(multilabel_bundle), *TEXTS, "--artifact", "onnx/fp32", "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)["answers"]
    assert main(["run", str(multilabel_bundle), *TEXTS, "--artifact", "onnx/fp32"]) == 0
    for answer, line in zip(answers, capsys.readouterr().out.splitlines()):
        assert set(answer) == {"text", "labels", "scores"}
        assert answer["labels"] == [label for label, score in answer["scores"].items() if score > 0.5]
        shown = ", ".join(f"{label} {answer['scores'][label]:.3f}" for label in answer["labels"]) or "no label"
        assert line == f"{shown}\t{answer['text']}"


def test_run_takes_pairs(regression_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", str(regression_bundle), "good film", "bad", "--text-pair", "great", "--text-pair", "good"]
    assert main([*command, "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)["answers"]
    assert [(answer["text"], answer["text_pair"]) for answer in answers] == [("good film", "great"), ("bad", "good")]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{answer['value']:.4f}\t{answer['text']}\t{answer['text_pair']}" for answer in answers]


@pytest.mark.parametrize("bundle", ["embedder_bundle", "classifier_bundle"])
def test_run_refuses_pairs_where_they_do_not_belong(
    bundle: str, request: pytest.FixtureRequest, answer: Callable[..., tuple[int, str, str]]
) -> None:
    code, kind, sentence = answer("run", str(request.getfixturevalue(bundle)), "good", "--text-pair", "great")
    assert (code, kind) == (2, "InvalidInput")
    assert "not" in sentence
    assert "pair" in sentence


def test_run_wants_a_second_text_for_each(regression_bundle: Path, answer: Callable[..., tuple[int, str, str]]) -> None:
    code, _, sentence = answer("run", str(regression_bundle), "good", "bad", "--text-pair", "great")
    assert code == 2
    assert "--text-pair is given 1 times for 2 texts; give each TEXT of the command line its second text" in sentence


def test_inspect_says_what_a_head_answers(regression_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(regression_bundle)]) == 0
    assert "answer: regression, of pairs of texts" in capsys.readouterr().out
