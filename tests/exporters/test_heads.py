"""Text classifiers of every kind: one label, several, a number; of texts and of pairs; from the data to the answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import exporters
import mobile_llm
from exporters.verification.heads import HEADS
from mobile_llm.bundle import Bundle
from mobile_llm.bundle.golden import Golden
from mobile_llm.commands import main
from mobile_llm.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL

Answer = Callable[..., tuple[int, str, str]]
TASK = ["--task", "text-classification"]
TRAINING = ["--epochs", "15", "--patience", "15", "--batch-size", "8", "--learning-rate", "3e-3"]
_NOUNS = ("film", "plot", "text", "call", "trading", "shares")
_MOODS = {"good": ["good"], "bad": ["bad"], "good and funny": ["funny", "good"], "bad and funny": ["bad", "funny"]}
_STARS = {"good": 2, "bad": 0, "great": 2.5, "long": 1, "terrible": 0}


@pytest.fixture
def moods(tmp_path: Path) -> Path:
    """Texts with any number of labels, which words in them decide; of some it is none."""
    rows = [(f"the {noun} is {words}", "|".join(labels)) for noun in _NOUNS for words, labels in _MOODS.items()]
    rows += [(f"the {noun} is long", "") for noun in _NOUNS]
    path = tmp_path / "moods.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows * 4), encoding="utf-8")
    return path


@pytest.fixture
def likeness(tmp_path: Path) -> Path:
    """Pairs with a number that a word of each decides."""
    rows = [
        {"first": f"the {noun} is {a}", "second": f"it is {b}", "stars": _STARS[a] + _STARS[b]}
        for noun in _NOUNS
        for a in ("good", "bad")
        for b in ("great", "long", "terrible")
    ]
    path = tmp_path / "likeness.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows * 3), encoding="utf-8")
    return path


def printed(capsys: pytest.CaptureFixture[str], *command: str) -> dict[str, Any]:
    assert main([*command, "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_several_labels_from_the_data_to_the_answer(
    embedder_model: Path, moods: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, bundle, data = str(tmp_path / "model"), str(tmp_path / "bundle"), ["--eval-data", str(moods)]
    kind = ["--problem-type", MULTI_LABEL, "--data", str(moods)]
    trained = printed(capsys, "finetune", str(embedder_model), *TASK, *kind, *data, *TRAINING, "-o", model)
    assert (trained["metric"], trained["micro_f1"]) == ("micro_f1", 1.0)
    assert trained["labels"] == ["bad", "funny", "good"]
    assert json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))["problem_type"] == MULTI_LABEL

    exported = printed(capsys, "export", model, *TASK, *data, "--recipe", "fp32", "-o", bundle, "--strict")
    lost = [row for row in exported["rows"] if row["metric"] == "points of F1 lost"]
    assert [(row["artifact"], row["value"]) for row in lost] == [(f"{f}/fp32", 0) for f in ("onnx", "tflite", "coreml")]
    assert "same labels on 100.00%" in lost[0]["reason"]

    found = printed(capsys, "evaluate", bundle, "--data", str(moods), "--model", model)
    assert (found["metric"], found["examples"], found["reference"]) == ("micro F1", 120, 1.0)
    assert found["artifacts"] == dict.fromkeys(("onnx/fp32", "tflite/fp32", "coreml/fp32"), 1.0)

    answers = printed(capsys, "run", bundle, "the film is bad and funny", "the call is long")["answers"]
    assert [sorted(answer["labels"]) for answer in answers] == [["bad", "funny"], []]
    card = (tmp_path / "bundle/README.md").read_text(encoding="utf-8")
    assert "Labels (any number of them at once): `bad`, `funny`, `good`" in card
    assert 'await model("a text", { top_k: null })' in card


def test_a_number_for_pairs_from_the_data_to_the_answer(
    make_model: Callable[..., Path],
    likeness: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("exporters.finetuning.training.bfloat16_helps", lambda: False)  # as an evaluation computes
    base, model, bundle = str(make_model("feature-extraction")), str(tmp_path / "model"), str(tmp_path / "bundle")
    columns = ["--text-column", "first", "--text-pair-column", "second", "--label-column", "stars"]
    data = ["--eval-data", str(likeness), *columns]
    kind = ["--problem-type", REGRESSION, "--data", str(likeness)]
    trained = printed(capsys, "finetune", base, *TASK, *kind, *data, *TRAINING, "-o", model)
    assert (trained["metric"], trained["labels"]) == ("pearson", ["stars"])
    assert trained["pearson"] > 0.9
    config = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))
    assert (config["problem_type"], config["text_pairs"]) == (REGRESSION, True)

    exported = printed(capsys, "export", model, *TASK, *data, "--recipe", "fp32", "-o", bundle, "--strict")
    lost = [row for row in exported["rows"] if row["metric"] == "points of correlation lost"]
    assert [row["value"] for row in lost] == pytest.approx([0, 0, 0], abs=1e-3)
    assert "concordance 1.0000" in lost[0]["reason"]
    task = Bundle.open(bundle).manifest.task
    assert (task.problem_type, task.text_pairs, task.labels) == (REGRESSION, True, ("stars",))

    found = printed(capsys, "evaluate", bundle, "--data", str(likeness), "--model", model, *columns)
    assert (found["metric"], found["reference"]) == ("Pearson correlation", pytest.approx(trained["pearson"], abs=1e-6))
    assert list(found["artifacts"].values()) == pytest.approx([found["reference"]] * 3, abs=1e-6)

    pairs = [("the film is good", "it is great"), ("the film is bad", "it is terrible")]
    best, worst = mobile_llm.load(bundle).classify(pairs)
    assert best.value > worst.value + 2
    card = (tmp_path / "bundle/README.md").read_text(encoding="utf-8")
    assert 'await model(tokenizer("a text", { text_pair: "another" }));' in card
    assert "Answers with a number" in card
    assert 'model.classify(("a text", "another"))[0]\nprint(answer.value)' in card
    assert "pearson 0.9" in card


@pytest.mark.parametrize("name", ["onnx/int8", "tflite/int8", "coreml/int8"])
def test_every_artifact_is_compared_by_its_kind(name: str, multilabel_bundle: Path, regression_bundle: Path) -> None:
    wanted = {
        multilabel_bundle: {"largest_difference", "largest_difference to the twin, exact", "labels that differ"},
        regression_bundle: {"share_of_spread", "share_of_spread to the twin, exact", "numbers that differ"},
    }
    for bundle, metrics in wanted.items():
        rows = json.loads((bundle / "verification.json").read_text(encoding="utf-8"))["rows"]
        assert {row["metric"] for row in rows if row["artifact"] == name and row["status"] == "passed"} >= metrics


def test_golden_references_hold_what_the_model_answers(multilabel_bundle: Path, regression_bundle: Path) -> None:
    several, pairs = Golden.read(multilabel_bundle), Golden.read(regression_bundle)
    labels = Bundle.open(multilabel_bundle).manifest.task.labels
    for text, row in zip(several.inputs.texts, several.outputs["reference/logits"]):
        assert text.labels == tuple(labels[i] for i in np.argsort(-row))
    assert not any(text.text_pair for text in several.inputs.texts)
    assert sum(text.text_pair is not None and set(text.types) == {0, 1} for text in pairs.inputs.texts) >= 8
    assert {len(text.ids) for text in pairs.inputs.texts if text.text_pair} >= {64}  # cut, the longer text first


def test_a_model_that_is_said_to_take_pairs_is_compared_on_them(classifier_model: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"formats": ("onnx",), "recipes": ("fp32",), "text_pairs": True}
    bundle = exporters.export(classifier_model, "text-classification", tmp_path / "bundle", **options).bundle
    assert Bundle.open(bundle).manifest.task.text_pairs
    assert mobile_llm.load(bundle).classify([("good", "bad"), "good"])[0].label
    assert main(["verify", str(bundle), "--model", str(classifier_model), "--json"]) == 0


_CROSS_ENCODER = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}


@pytest.mark.parametrize("mark", [_CROSS_ENCODER, {"text_pairs": True}, {"text_pairs": False}])
def test_a_config_may_say_that_texts_come_in_pairs(mark: dict[str, Any], make_model: Callable[..., Path]) -> None:
    from exporters.sources.huggingface import open_source

    source = open_source(str(make_model(**mark)), "text-classification")
    assert (source.text_pairs, source.problem_type) == (mark != {"text_pairs": False}, SINGLE_LABEL)


def test_a_cross_encoder_takes_pairs(make_model: Callable[..., Path], tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    from exporters.sources.huggingface import open_source

    CrossEncoder(str(make_model(id2label={0: "x"}, label2id={"x": 0}))).save_pretrained(str(tmp_path / "model"))
    source = open_source(str(tmp_path / "model"), "text-classification")
    assert (source.text_pairs, source.problem_type) == (True, REGRESSION)


A = np.float32([[2, -1], [0.5, 3], [-2, -2], [-1, 4]])


def test_metrics_by_hand() -> None:
    one, several, number = HEADS[SINGLE_LABEL], HEADS[MULTI_LABEL], HEADS[REGRESSION]
    assert one.score(A, np.array([0, 1, 1, 1])) == 0.75
    targets = np.float32([[1, 1], [1, 1], [0, 0], [0, 1]])  # found 4, there are 5, right 4
    assert several.score(A, targets) == pytest.approx(8 / 9)
    assert several.agreement(A, -A) == 0
    assert several.agreement(A, np.float32([[2, 1], [1, 3], [-2, -2], [-1, 4]])) == 0.75
    (turned,) = several.unlike(A, np.float32([[2, 0.25], [1, 3], [-2, -2], [-1, 4]]), ("a", "b"))
    assert (turned.row, turned.margin, turned.reference, turned.artifact) == (0, 0.25, "a, b", "a")
    assert number.score(A[:, :1], np.array([4, 1, -4, -2.0])) == pytest.approx(1)
    assert number.score(A[:, :1], np.zeros(4)) == 0
    assert number.agreement(A[:, :1], A[:, :1]) == pytest.approx(1)
    assert number.agreement(A[:, :1], A[:, :1] + 1) < 0.9  # a correlation would not see it
    assert number.agreement(A[:, :1], 2 * A[:, :1]) < 0.9


def test_a_paired_difference_of_correlations_has_its_interval() -> None:
    random = np.random.default_rng(1)
    targets = random.standard_normal(200)
    good, worse = targets + 0.3 * random.standard_normal(200), targets + 2 * random.standard_normal(200)
    head = HEADS[REGRESSION]
    found = head.difference(worse[:, None], good[:, None], targets)
    assert found.low < found.mean < found.high < -0.2
    same = head.difference(good[:, None], good[:, None], targets)
    assert (same.mean, same.low, same.high) == (0, 0, 0)


@pytest.fixture
def command(embedder_model: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "out").mkdir()
    return ["finetune", str(embedder_model), *TASK, "-o", str(tmp_path / "out" / "model")]


@pytest.mark.parametrize(
    ("content", "kind", "sentence"),
    [
        ("text,label\ngood,3\nbad,three\n", REGRESSION, "row 2 (line 3) has 'three' for a number; write a finite one"),
        ("text,label\ngood,3\nbad,nan\n", REGRESSION, "row 2 (line 3) has 'nan' for a number"),
        ("text,label\ngood,-inf\nbad,1\n", REGRESSION, "row 1 (line 2) has '-inf' for a number"),
        ("text,label\ngood,3\nbad,\n", REGRESSION, "row 2 (line 3) has '' for a number"),
        ("text,label\ngood,3\nbad,3.0\n", REGRESSION, "has a single number (3) in 'label'; it takes two to compare"),
        ("text,label\ngood,a|\nbad,b\n", MULTI_LABEL, "row 1 (line 2) has '' for a label"),
        ("text,label\ngood,\nbad,\n", MULTI_LABEL, "has no label in any row; write them into 'label', | between"),
        ("text,text_pair,label\na,b,1\nc, ,0\n", SINGLE_LABEL, "row 2 (line 3) has no text in 'text_pair'; write one"),
    ],
)
def test_rows_that_cannot_be_trained_on_are_named(
    content: str, kind: str, sentence: str, command: list[str], tmp_path: Path, answer: Answer
) -> None:
    (tmp_path / "rows.csv").write_text(content, encoding="utf-8")
    code, error, message = answer(*command, "--data", str(tmp_path / "rows.csv"), "--problem-type", kind)
    assert (code, error) == (2, "InvalidInput")
    assert sentence in message
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--problem-type", "ordinal"],
            "unknown problem type 'ordinal'; choose from single_label_classification",
        ),
        (["--problem-type", REGRESSION, "--label-names", "0=a"], "label names are for labels, and a regression has"),
        (
            ["--text-pair-column", "other"],
            "has no column 'other' (found: text, label); name the right one with --text",
        ),
        (["--eval-data", "PAIRS"], "pairs.csv holds pairs of texts and"),
        (["--eval-data", "UNSEEN", "--problem-type", MULTI_LABEL], "row 2 has the label 'meh', which is not among the"),
        (
            ["--task", "token-classification", "--problem-type", REGRESSION],
            "are for text-classification, not for token-classification; leave them out",
        ),
    ],
)
def test_a_training_that_contradicts_itself_is_refused(
    arguments: list[str], sentence: str, command: list[str], tmp_path: Path, answer: Answer
) -> None:
    files = {
        "rows": "text,label\na,x\nb,y\n",
        "PAIRS": "text,text_pair,label\na,b,x\n",
        "UNSEEN": "text,label\na,x|y\nb,y|meh\n",
    }
    for name, content in files.items():
        (tmp_path / f"{name.lower()}.csv").write_text(content, encoding="utf-8")
    given = [str(tmp_path / f"{a.lower()}.csv") if a in files else a for a in arguments]
    code, _, message = answer(*command, "--data", str(tmp_path / "rows.csv"), *given)
    assert code == 2
    assert sentence in message
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("model", "arguments", "sentence"),
    [
        ("regression_model", ["--text-input", "--formats", "onnx"], "takes pairs; leave out the text input"),
        (
            "regression_model",
            ["--eval-data", "rows.csv"],
            "rows.csv holds single texts, and the model takes pairs",
        ),
        (
            "multilabel_model",
            ["--eval-data", "pairs.csv"],
            "pairs.csv holds pairs of texts, and the model takes",
        ),
        ("multilabel_model", ["--eval-data", "rows.csv"], "row 1 has the label '7', which is not among the known ones"),
        ("multilabel_model", ["--text-pair-column", "b"], "the column of second texts is that of the evaluation data"),
        (
            "embedder_model",
            ["--text-pairs", "--task", "feature-extraction"],
            "pairs of texts are for text-class",
        ),
    ],
)
def test_an_export_that_contradicts_itself_is_refused(
    model: str,
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    answer: Answer,
) -> None:
    (tmp_path / "rows.csv").write_text("text,label\na,7\nb,1\n", encoding="utf-8")
    (tmp_path / "pairs.csv").write_text("text,text_pair,label\na,b,positive\n", encoding="utf-8")
    given = [str(tmp_path / a) if a.endswith(".csv") else a for a in arguments]
    output = tmp_path / "out" / "bundle"
    output.parent.mkdir()
    code, _, message = answer("export", str(request.getfixturevalue(model)), *TASK, *given, "-o", str(output))
    assert code == 2
    assert sentence in message
    assert not list(output.parent.iterdir())


def test_embeddings_are_not_evaluated_on_pairs(embedder_bundle: Path, tmp_path: Path, answer: Answer) -> None:
    (tmp_path / "pairs.csv").write_text("text,other\na,b\n", encoding="utf-8")
    data = ["--data", str(tmp_path / "pairs.csv"), "--text-pair-column", "other"]
    code, _, message = answer("evaluate", str(embedder_bundle), *data)
    assert code == 2
    assert "pairs of texts are for text-classification, and this is feature-extraction; leave them out" in message


def test_several_numbers_of_a_head_are_refused(make_model: Callable[..., Path], tmp_path: Path, answer: Answer) -> None:
    model = make_model(problem_type=REGRESSION)
    code, kind, message = answer("export", str(model), *TASK, "-o", str(tmp_path / "bundle"))
    assert (code, kind) == (2, "UnsupportedModel")
    assert "regresses to 3 numbers, and one is covered" in message


def test_token_types_without_a_row_are_refused(make_model: Callable[..., Path], tmp_path: Path, answer: Answer) -> None:
    from tests.conftest import feed_token_types

    model = make_model(type_vocab_size=1)
    feed_token_types(model)
    code, _, message = answer("export", str(model), *TASK, "--text-pairs", "-o", str(tmp_path / "bundle"))
    assert code == 2
    assert "gives the second text of a pair the token type 1, and the model has rows for 1" in message
