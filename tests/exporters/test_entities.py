"""Words with tags: read from files, trained, exported, and counted as entities."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import exporters
from exporters.data import load_tokens
from exporters.metrics import count_entities, entities, f1_difference
from mobile_llm.bundle import Bundle
from mobile_llm.commands import main
from mobile_llm.errors import InvalidInput

CONLL = "-DOCSTART- -X- O O\n\nthe\tO\nfilm NN B-work\nplot I-work\n\n\ngood O\nwarm B-mood\n"


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    """`film` and `plot` are works, `good` begins a mood that a further `good` goes on with."""
    path = tmp_path / "train.jsonl"
    tags = {"the": "O", "is": "O", "film": "B-work", "plot": "B-work", "good": "B-mood", "warm": "I-mood"}
    texts = ["the film is good warm", "the plot is good", "is the film good warm", "good warm is the plot"]
    rows = [{"tokens": text.split(), "tags": [tags[word] for word in text.split()]} for text in texts]
    path.write_text("\n".join(json.dumps(row) for row in rows * 12), encoding="utf-8")
    return path


def test_conll_columns_are_sentences(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text(CONLL, encoding="utf-8")
    data = load_tokens(str(tmp_path / "a.conll"))
    assert data.words == (("the", "film", "plot"), ("good", "warm"))
    assert data.label_names == ("O", "B-mood", "B-work", "I-work")
    assert data.named_tags == [["O", "B-work", "I-work"], ["O", "B-mood"]]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.conll", "the O\nfilm\n", "row 1 (line 2) has a word without a tag"),
        ("a.conll", "\n\n", "has no rows"),
        ("a.jsonl", '{"tokens": ["a", "b"], "tags": ["O"]}', "row 1 (line 1) has 2 words and 1 tags"),
        ("a.jsonl", '{"tokens": "a b", "tags": ["O"]}', "should have a list of words in 'tokens'"),
        ("a.jsonl", '{"words": ["a"], "tags": ["O"]}', "name the right one with --text-column"),
    ],
)
def test_sentences_that_cannot_be_used_are_named(tmp_path: Path, name: str, content: str, sentence: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InvalidInput) as caught:
        load_tokens(str(tmp_path / name))
    assert sentence in str(caught.value)


def test_unseen_tags_are_refused(sentences: Path) -> None:
    with pytest.raises(InvalidInput, match="has the tag 'B-mood', which is not among the known ones"):
        load_tokens(str(sentences)).with_label_names(("O", "B-work", "I-mood"))


def test_entities_are_spans() -> None:
    tags = ["B-a", "I-a", "O", "I-b", "I-b", "B-b", "I-a", "plain", "O"]
    assert entities(tags) == [(0, 2, "a"), (3, 5, "b"), (5, 6, "b"), (6, 7, "a"), (7, 8, "plain")]


def test_f1_counts_exact_spans() -> None:
    wanted = [["B-a", "I-a", "O"], ["B-b", "O", "O"]]
    found = [["B-a", "I-a", "O"], ["B-b", "I-b", "O"]]
    counts = count_entities(found, wanted)
    assert counts.f1() == 0.5
    assert count_entities(wanted, wanted).f1() == 1.0
    assert count_entities([["O"]], [["O"]]).f1() == 1.0
    difference = f1_difference(counts, count_entities(wanted, wanted))
    assert difference.mean == -0.5
    assert difference.low == -1.0
    assert difference.high == 0.0


def test_training_export_and_evaluation_of_entities(
    make_model: Callable[..., Path], sentences: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, model, bundle = make_model("feature-extraction"), tmp_path / "model", tmp_path / "bundle"
    task, data = ["--task", "token-classification"], ["--data", str(sentences)]
    training = [
        "--eval-data",
        str(sentences),
        "--epochs",
        "12",
        "--patience",
        "12",
        "--batch-size",
        "8",
        "--learning-rate",
        "3e-3",
    ]
    assert main(["finetune", str(base), *task, *data, *training, "-o", str(model), "--json"]) == 0
    trained = json.loads(capsys.readouterr().out)
    assert (trained["metric"], trained["f1"]) == ("f1", 1.0)
    assert trained["labels"] == ["O", "B-mood", "B-work", "I-mood"]

    command = ["export", str(model), *task, "--eval-data", str(sentences), "-o", str(bundle), "--strict", "--json"]
    assert main(command) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["artifact"] for row in rows if row["metric"] == "points of F1 lost"} == set(
        Bundle.open(bundle).manifest.artifacts
    )

    assert main(["evaluate", str(bundle), *data, "--model", str(model), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["metric"], found["reference"]) == ("entity F1", 1.0)
    assert found["artifacts"]["onnx/fp32"] == found["artifacts"]["coreml/int8"] == 1.0

    assert main(["run", str(bundle), "the film is good warm", "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["answers"]
    named = [(e["label"], e["text"], e["start"], e["end"]) for e in answer["entities"]]
    assert named == [("work", "film", 4, 8), ("mood", "good warm", 12, 21)]


def test_swapped_tags_are_refused(
    make_model: Callable[..., Path],
    tmp_path: Path,
    edit_manifest: Callable[..., None],
    rehash: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = exporters.export(
        make_model("token-classification"), "token-classification", tmp_path / "b", ("onnx",), ("fp32",)
    ).bundle
    config = json.loads((bundle / "config.json").read_text(encoding="utf-8"))
    names = list(config["id2label"].values())[::-1]
    config["id2label"] = dict(zip("012", names))
    (bundle / "config.json").write_text(json.dumps(config), encoding="utf-8")
    edit_manifest(bundle, lambda data: data["task"].update(labels=names))
    rehash(bundle)
    assert main(["verify", str(bundle), "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["metric"] for row in rows if row["status"] == "failed"] == ["labels that differ"]
