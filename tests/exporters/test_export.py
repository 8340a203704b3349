"""The bundle that an export leaves: the same bytes for the same inputs, and what others' clients look for."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import exporters
import mobile_llm
from mobile_llm.bundle import Bundle
from mobile_llm.commands import main


def _files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.slow
def test_the_same_inputs_give_the_same_bytes(
    classifier_model: Path, embedder_model: Path, classifier_bundle: Path, embedder_bundle: Path, tmp_path: Path
) -> None:
    """In another process, so that no order of hashing is shared; only verification.json holds a time."""
    code = (
        "import sys, exporters; from exporters.verification import artifacts\n"
        "artifacts.CHECKERS['tflite'] = artifacts.CHECKERS['tflite'][:1]\n"
        "exporters.export(sys.argv[1], 'text-classification', sys.argv[2])\n"
        "exporters.export(sys.argv[3], 'feature-extraction', sys.argv[4])"
    )
    from coremltools.converters.mil import Builder

    Builder.name_count["cast"] = 7  # as an interrupted export leaves them
    exporters.export(classifier_model, "text-classification", classifier_bundle, force=True)
    again = {classifier_bundle: tmp_path / "classifier again", embedder_bundle: tmp_path / "embedder again"}
    places = [classifier_model, again[classifier_bundle], embedder_model, again[embedder_bundle]]
    subprocess.run([sys.executable, "-c", code, *map(str, places)], check=True, capture_output=True)
    for first, second in again.items():
        before, after = _files(first), _files(second)
        assert list(before) == list(after)
        assert {name for name in before if before[name] != after[name]} <= {"verification.json"}


def test_a_bundle_opens_in_transformers(classifier_bundle: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(classifier_bundle)
    assert [config.id2label[i] for i in range(3)] == list(Bundle.open(classifier_bundle).manifest.task.labels)
    assert AutoTokenizer.from_pretrained(classifier_bundle)("a good film")["input_ids"][0] == 2


def test_labels_that_nobody_named_are_those_of_transformers(make_model: Callable[..., Path], tmp_path: Path) -> None:
    """Two of them are what transformers takes anyway, and leaves out of config.json."""
    model = make_model(id2label={0: "LABEL_0", 1: "LABEL_1"}, label2id={"LABEL_0": 0, "LABEL_1": 1})
    assert "id2label" not in json.loads((model / "config.json").read_text(encoding="utf-8"))
    bundle = exporters.export(model, "text-classification", tmp_path / "bundle", ("onnx",), ("fp32",)).bundle
    assert mobile_llm.load(bundle).classify("a good film")[0].label in ("LABEL_0", "LABEL_1")


def test_the_manifest_says_where_the_model_came_from(embedder_bundle: Path, embedder_model: Path) -> None:
    manifest = Bundle.open(embedder_bundle).manifest
    assert manifest.origin.architecture == "bert"
    assert manifest.origin.id == embedder_model.name
    assert (manifest.task.pooling, manifest.task.normalize) == ("mean", True)
    assert manifest.tokenizer.max_length == 64
    assert list(manifest.artifacts) == [f"{n}/{p}" for p in ("fp32", "int8") for n in ("onnx", "tflite", "coreml")]
    assert manifest.defaults == {name: f"{name}/int8" for name in ("onnx", "tflite", "coreml")}


def test_verification_json_attests_every_artifact(classifier_bundle: Path) -> None:
    attested = json.loads((classifier_bundle / "verification.json").read_text(encoding="utf-8"))
    assert attested["summary"]["failed"] == 0
    for artifact_id in Bundle.open(classifier_bundle).manifest.artifacts:
        rows = [row for row in attested["rows"] if row["artifact"] == artifact_id]
        assert {row["metric"] for row in rows} >= {"largest_difference", "labels that differ"}
        assert all(row["reason"] and row["where"] for row in rows)


def test_the_weights_decide_the_digest_of_the_origin(classifier_model: Path, tmp_path: Path) -> None:
    from exporters.sources.huggingface import open_source

    copy = Path(shutil.copytree(classifier_model, tmp_path / "copy"))
    task = "text-classification"
    first, second = open_source(str(classifier_model), task), open_source(str(copy), task)
    assert first.found.weights_sha256 == second.found.weights_sha256
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert second.found.weights_sha256 != first.found.weights_sha256


def test_prompts_and_licence_are_carried_over(embedder_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(embedder_model, tmp_path / "model"))
    prompts = {"prompts": {"query": "a good film "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts), encoding="utf-8")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nA model.\n", encoding="utf-8")
    result = exporters.export(folder, "feature-extraction", tmp_path / "bundle", ("onnx",), ("fp32",))
    import mobile_llm

    embedder = mobile_llm.load(result.bundle)
    assert Bundle.open(result.bundle).manifest.origin.licence == "apache-2.0"
    assert embedder.embed("again", prompt="query").tolist() == embedder.embed("a good film again").tolist()


def test_importing_exporters_is_light() -> None:
    code = "import sys, exporters; print({'torch', 'transformers', 'onnx', 'numpy', 'coremltools'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.fixture
def rows(tmp_path: Path, classifier_bundle: Path) -> Path:
    """Texts labelled as the bundle's own float32 artifact labels them."""
    import mobile_llm

    texts = ["a good film", "bad", "warm and funny", "it repeats", "no sense at all", "great", "boring"]
    labels = [answer.label for answer in mobile_llm.load(classifier_bundle, "onnx/fp32").classify(texts)]
    path = tmp_path / "rows.csv"
    lines = [f"{text},{label}" for text, label in zip(texts, labels)]
    path.write_text("\n".join(["text,label", *lines, ""]), encoding="utf-8")
    return path


def test_evaluate_measures_every_artifact_beside_the_model(
    classifier_bundle: Path, classifier_model: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "saved" / "figures.json"
    command = ["evaluate", str(classifier_bundle), "--data", str(rows), "--model", str(classifier_model)]
    assert main([*command, "--json", "--save", str(saved)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["metric"], found["examples"], found["reference"]) == ("accuracy", 7, 1.0)
    assert {name: found["artifacts"][f"{name}/fp32"] for name in ("onnx", "tflite", "coreml")} == dict.fromkeys(
        ("onnx", "tflite", "coreml"), 1.0
    )
    assert len(found["artifacts"]) == 6
    assert not found["not_checked"]
    assert json.loads(saved.read_text(encoding="utf-8")) == found


def test_evaluate_refuses_unseen_labels_and_unknown_artifacts(
    classifier_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "rows.csv"
    data.write_text("text,label\ngood,positive\nso so,meh\n", encoding="utf-8")
    assert main(["evaluate", str(classifier_bundle), "--data", str(data)]) == 2
    assert "row 2 has the label 'meh', which is not among" in capsys.readouterr().err
    assert main(["evaluate", str(classifier_bundle), "--data", str(data), "--artifact", "onnx/int3"]) == 2
    assert "no artifact 'onnx/int3'" in capsys.readouterr().err


def test_evaluating_embeddings_needs_the_model(
    embedder_bundle: Path, embedder_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "rows.csv"
    data.write_text("text\ngood\na bad film\n", encoding="utf-8")
    command = ["evaluate", str(embedder_bundle), "--data", str(data), "--artifact", "onnx/fp32,coreml/int8", "--json"]
    assert main(command) == 2
    assert "pass --model DIR to compare them with it" in capsys.readouterr().out
    assert main([*command, "--model", str(embedder_model)]) == 0
    scores = json.loads(capsys.readouterr().out)["artifacts"]
    assert scores["onnx/fp32"] == pytest.approx(1, abs=1e-6)
    assert 0.99 < scores["coreml/int8"] < 1


def test_accuracy_lost_on_the_users_rows_is_part_of_the_gate(
    classifier_model: Path, rows: Path, tmp_path: Path, make_model: Callable[..., Path]
) -> None:
    result = exporters.export(
        classifier_model,
        "text-classification",
        tmp_path / "bundle",
        ("onnx",),
        ("fp32",),
        eval_data=str(rows),
        strict=True,
    )
    (row,) = [row for row in result.rows if row.metric == "points of accuracy lost"]
    assert (row.value, row.status) == (0.0, "passed")
