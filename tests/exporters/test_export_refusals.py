"""What an export refuses: one clear sentence, the right exit code, and nothing half-written left behind."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from exporters import pipeline
from exporters.encoders import pipeline as encoders
from exporters.verification import artifacts
from mobile_llm.commands import main

Refused = Callable[..., str]
OLD = '{"created_by": "mobile-llm 0.0"}'  # a bundle of an earlier version


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """The bundle's place, in a folder with nothing else in it."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "bundle"


@pytest.fixture
def refused(output: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs an export that must fail with an exit code; gives the one sentence."""

    def run(model: Path | str, *arguments: str, task: str = "text-classification", code: int = 2) -> str:
        command = ["export", str(model), "--task", task, "--json", "-o", str(output), *arguments]
        if "--formats" not in arguments:
            command += ["--formats", "onnx"]
        if "--recipe" not in arguments:
            command += ["--recipe", "fp32"]
        assert main(command) == code
        message: str = json.loads(capsys.readouterr().out)["error"]["message"]
        assert "unexpected" not in message
        assert "Traceback" not in message
        return message

    return run


@pytest.fixture
def copied(classifier_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(classifier_model, tmp_path / "model"))


def nothing_left(output: Path) -> bool:
    return not list(output.parent.iterdir())


def test_unknown_names_are_answered_with_the_known_ones(classifier_model: Path, refused: Refused) -> None:
    known = "text-classification, token-classification, feature-extraction"
    assert f"unknown task 'translation'; choose from {known}" in refused(classifier_model, task="translation")
    assert "unknown format 'gguf'; choose from onnx, tflite, coreml" in refused(classifier_model, "--formats", "gguf")
    assert "unknown recipe 'int3'; choose from fp32, fp16, int8" in refused(classifier_model, "--recipe", "int3")
    pooling = ("--pooling", "median")
    assert "unknown pooling 'median'" in refused(classifier_model, *pooling, task="feature-extraction")


def test_contradictions_are_refused(classifier_model: Path, refused: Refused) -> None:
    assert "a recipe is named twice" in refused(classifier_model, "--recipe", "fp32,fp32")
    assert "pooling belongs to feature-extraction" in refused(classifier_model, "--pooling", "mean")
    assert "--normalize goes with --pooling" in refused(classifier_model, "--normalize")
    data = ("--pooling", "mean", "--eval-data", "rows.csv")
    assert "accuracy needs labels" in refused(classifier_model, *data, task="feature-extraction")


def test_an_architecture_without_a_file_is_named(tmp_path: Path, refused: Refused, classifier_model: Path) -> None:
    from transformers import GPT2Config, GPT2ForSequenceClassification

    config = GPT2Config(vocab_size=120, n_positions=64, n_embd=16, n_layer=1, n_head=2, pad_token_id=0)
    GPT2ForSequenceClassification(config).save_pretrained(tmp_path / "gpt2")
    shutil.copy(classifier_model / "tokenizer.json", tmp_path / "gpt2")
    message = refused(tmp_path / "gpt2")
    assert message.startswith("architecture 'gpt2' is not covered; covered are albert, bert, ")


def test_an_architecture_that_transformers_lacks_is_refused(copied: Path, refused: Refused) -> None:
    config = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    (copied / "config.json").write_text(json.dumps(config | {"model_type": "frobnicate"}), encoding="utf-8")
    assert "transformers cannot read" in refused(copied)


def test_settings_that_blocks_would_get_wrong_are_refused(make_model: Callable[..., Path], refused: Refused) -> None:
    assert "activation 'mish' is not covered" in refused(make_model(hidden_act="mish"))
    assert "bert with is_decoder=true is not covered" in refused(make_model(is_decoder=True))


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("model.safetensors", "has no *.safetensors weights"),
        ("tokenizer.json", "has no tokenizer.json; save the fast tokenizer beside the weights"),
        ("config.json", "has no config.json; pass a Hugging Face model folder"),
    ],
)
def test_a_folder_that_lacks_a_file_is_named(copied: Path, refused: Refused, missing: str, sentence: str) -> None:
    (copied / missing).unlink()
    assert sentence in refused(copied)


def test_pickled_weights_are_not_opened(copied: Path, refused: Refused) -> None:
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    assert "pytorch_model.bin is pickled and is not opened" in refused(copied)


def test_a_folder_that_is_not_there_and_an_adapter_are_refused(copied: Path, refused: Refused, tmp_path: Path) -> None:
    assert "is not a folder" in refused(tmp_path / "gone")
    (copied / "adapter_config.json").write_text("{}", encoding="utf-8")
    assert "holds an adapter; pass the model that it was made for" in refused(copied)


@pytest.mark.parametrize(
    "name",
    ["config.json", "tokenizer.json", "model.safetensors"],
)
def test_a_truncated_file_is_refused(name: str, copied: Path, refused: Refused, output: Path) -> None:
    whole = (copied / name).read_bytes()
    (copied / name).write_bytes(whole[: len(whole) // 2])
    assert refused(copied)
    assert nothing_left(output)


def test_weights_of_another_shape_than_the_config_says_are_refused(copied: Path, refused: Refused) -> None:
    config = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    (copied / "config.json").write_text(json.dumps(config | {"intermediate_size": 60}), encoding="utf-8")
    assert "transformers cannot load" in refused(copied)


def test_a_head_with_random_weights_is_refused(embedder_model: Path, refused: Refused) -> None:
    assert "has no trained weights for text-classification (classifier.bias is missing)" in refused(embedder_model)


def test_pooling_has_to_be_stated_somewhere(classifier_model: Path, refused: Refused) -> None:
    assert "has no modules.json to say how it pools; pass --pooling" in refused(
        classifier_model, task="feature-extraction"
    )


def test_modules_that_are_not_covered_are_refused(embedder_model: Path, tmp_path: Path, refused: Refused) -> None:
    folder = Path(shutil.copytree(embedder_model, tmp_path / "dense"))
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules.append({"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    assert "has a module Dense, which is not covered" in refused(folder, task="feature-extraction")


@pytest.mark.parametrize("label", ["meh", "7"])
def test_evaluation_rows_with_an_unseen_label_are_refused_before_any_work(
    label: str, classifier_model: Path, tmp_path: Path, refused: Refused, output: Path
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text(f"text,label\ngood,positive\nso so,{label}\n", encoding="utf-8")
    assert f"row 2 has the label '{label}'" in refused(classifier_model, "--eval-data", str(rows))
    assert nothing_left(output)


def test_an_existing_output_is_left_alone(classifier_model: Path, refused: Refused, output: Path) -> None:
    output.mkdir()
    (output / "manifest.json").write_text(OLD, encoding="utf-8")
    assert "exists; choose another output, or pass --force to replace it" in refused(classifier_model)
    assert [(p.name, p.read_text(encoding="utf-8")) for p in output.iterdir()] == [("manifest.json", OLD)]


def test_force_replaces_a_bundle(classifier_model: Path, output: Path) -> None:
    output.mkdir()
    (output / "manifest.json").write_text(OLD, encoding="utf-8")
    (output / "stale").write_text("old", encoding="utf-8")
    command = ["export", str(classifier_model), "--task", "text-classification", "--formats", "onnx"]
    assert main([*command, "--recipe", "fp32", "-o", str(output), "--force", "--json"]) == 0
    assert not (output / "stale").exists()
    assert json.loads((output / "manifest.json").read_text(encoding="utf-8"))["task"]["name"] == "text-classification"
    assert list(output.parent.iterdir()) == [output]


def test_a_folder_that_is_not_ours_is_never_replaced(classifier_model: Path, refused: Refused, output: Path) -> None:
    output.mkdir()
    (output / "thesis.txt").write_text("years of work", encoding="utf-8")
    assert "was not written by mobile-llm, so it is not replaced" in refused(classifier_model, "--force")
    assert [p.name for p in output.iterdir()] == ["thesis.txt"]


def test_the_manifest_of_something_else_does_not_make_a_folder_ours(
    classifier_model: Path, refused: Refused, output: Path
) -> None:
    """Web pages and browser extensions have a manifest.json too."""
    output.mkdir()
    (output / "manifest.json").write_text('{"name": "my page"}', encoding="utf-8")
    assert "was not written by mobile-llm" in refused(classifier_model, "--force")
    assert [p.name for p in output.iterdir()] == ["manifest.json"]


def test_a_file_is_never_replaced(classifier_model: Path, refused: Refused, output: Path) -> None:
    output.write_text("mine", encoding="utf-8")
    assert "is a file, and a folder goes there" in refused(classifier_model, "--force")
    assert output.read_text(encoding="utf-8") == "mine"


@pytest.fixture
def impossible_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    real = artifacts.limits_for
    monkeypatch.setattr(artifacts, "limits_for", lambda *args: [replace(x, limit=-1.0) for x in real(*args)])


@pytest.mark.usefixtures("impossible_limits")
def test_a_failed_comparison_leaves_nothing(classifier_model: Path, refused: Refused, output: Path) -> None:
    message = refused(classifier_model, code=1)
    assert "comparisons failed" in message
    assert "onnx/fp32 encode: largest_difference is" in message
    assert nothing_left(output)


@pytest.mark.usefixtures("impossible_limits")
def test_a_failed_comparison_keeps_the_bundle_that_was_to_be_replaced(
    classifier_model: Path, refused: Refused, output: Path
) -> None:
    output.mkdir()
    (output / "manifest.json").write_text(OLD, encoding="utf-8")
    refused(classifier_model, "--force", code=1)
    assert (output / "manifest.json").read_text(encoding="utf-8") == OLD
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.parametrize(
    ("module", "step"),
    [
        (encoders, "make_golden"),
        (encoders, "write_manifest"),
        (encoders, "check_bundle"),
        (pipeline, "write_verification"),
    ],
)
@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (KeyboardInterrupt(), 130, "cancelled; nothing half-written was left behind"),
        (OSError(errno.ENOSPC, "No space left on device", "model.onnx"), 2, "the disk is full (model.onnx); free some"),
        (MemoryError(), 2, "memory is exhausted; close other programs or take a smaller model"),
    ],
    ids=["Ctrl-C", "full disk", "no memory"],
)
def test_an_interruption_leaves_nothing(
    module: ModuleType,
    step: str,
    error: BaseException,
    code: int,
    sentence: str,
    classifier_model: Path,
    refused: Refused,
    output: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> None:
        raise error

    monkeypatch.setattr(module, step, interrupted)
    assert sentence in refused(classifier_model, code=code)
    assert nothing_left(output)


def test_without_json_the_sentence_goes_to_stderr(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "/gone", "--task", "text-classification", "-o", str(output)]) == 2
    printed = capsys.readouterr()
    assert "mobile-llm: /gone is not a folder" in printed.err
    assert printed.out == ""


def test_missing_arguments_are_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["export", "model"])
    assert caught.value.code == 2
    assert "--task" in capsys.readouterr().err
