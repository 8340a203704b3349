"""Fine-tuning a tiny BERT on texts that one word decides: it learns, repeats itself bit for bit, and goes on where
it was interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import exporters
import mobile_llm
from exporters.finetuning import FinetuneSpec
from exporters.finetuning.tasks import TASKS
from exporters.finetuning.training import run_finetune
from mobile_llm.commands import main
from mobile_llm.errors import Cancelled, InvalidInput, InvalidSpec, OutputExists

Make = Callable[..., FinetuneSpec]
_NOUNS = ("film", "plot", "reviews", "shares", "text", "call", "it", "trading")
ROWS = [(f"{noun} {word}{end}", word) for noun in _NOUNS for word in ("good", "bad") for end in ("", " again", " !")]


def write_rows(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("".join(f"{text},{label}\n" for text, label in [("text", "label"), *rows]), encoding="utf-8")
    return path


@pytest.fixture
def spec(classifier_model: Path, tmp_path: Path) -> Make:
    """A fine-tuning of a second, in a folder with nothing else in it."""
    data = write_rows(tmp_path / "train.csv", ROWS)
    (tmp_path / "out").mkdir()

    def make(name: str = "model", **settings: Any) -> FinetuneSpec:
        usual = {"epochs": 3, "batch_size": 8, "learning_rate": 3e-3}
        output = tmp_path / "out" / name
        return FinetuneSpec(str(classifier_model), "text-classification", str(data), output, **(usual | settings))

    return make


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads cost a model of this size more than they bring."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def weights(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    (file,) = folder.glob("*.safetensors")
    return dict(load_file(file))


def assert_same(first: Path, second: Path) -> None:
    a, b = weights(first), weights(second)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_full_fine_tuning_learns_and_the_result_is_exported(spec: Make, tmp_path: Path) -> None:
    asked = spec(eval_data=str(tmp_path / "train.csv"), epochs=6)
    result = run_finetune(asked)
    assert (result.score, result.labels, result.examples) == (1.0, ("bad", "good"), len(ROWS))
    assert [p.name for p in asked.output.parent.iterdir()] == ["model"]  # no checkpoint is left
    bundle = exporters.export(asked.output, "text-classification", tmp_path / "bundle", ("onnx",), ("fp32",)).bundle
    answers = mobile_llm.load(bundle).classify([text for text, _ in ROWS])
    assert [answer.label for answer in answers] == [label for _, label in ROWS]


def test_a_merged_adapter_learns_and_is_a_whole_model(spec: Make, tmp_path: Path) -> None:
    asked = spec(eval_data=str(tmp_path / "train.csv"), method="lora", merge=True, epochs=8, learning_rate=1e-2, rank=4)
    assert run_finetune(asked).score == 1.0
    names = list(weights(asked.output))
    assert "classifier.weight" in names
    assert not [name for name in names if "lora" in name]
    assert not (asked.output / "adapter_config.json").exists()


def test_an_adapter_that_is_not_merged_is_saved_as_one_and_exported_over_its_model(spec: Make, tmp_path: Path) -> None:
    asked = spec(method="lora", epochs=1)
    run_finetune(asked)
    assert (asked.output / "adapter_config.json").is_file()
    result = exporters.export(str(asked.output), asked.task, tmp_path / "bundle", ("onnx",), ("fp32",))
    assert all(row.status != "failed" for row in result.rows)
    assert mobile_llm.load(result.bundle).classify("a good film")[0].label in ("good", "bad")
    run_finetune(replace(asked, force=True))  # what we wrote may be replaced


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_seed_gives_the_same_weights_to_the_last_bit_and_another_seed_others(method: str, spec: Make) -> None:
    settings: dict[str, Any] = {"method": method, "merge": method == "lora", "epochs": 1}
    first, again, other = (spec(n, seed=s, **settings) for n, s in (("first", 5), ("again", 5), ("other", 6)))
    for asked in (first, again, other):
        run_finetune(asked)
    assert_same(first.output, again.output)
    assert any((weights(other.output)[name] != w).any() for name, w in weights(first.output).items())


def _interrupted_in_epoch(number: int) -> Callable[[str, int, int], None]:
    def meter(step: str, done: int, total: int) -> None:
        if f"epoch {number}/" in step:
            raise KeyboardInterrupt

    return meter


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one_to_the_last_bit(method: str, spec: Make) -> None:
    whole, stopped = spec("whole", method=method), spec("stopped", method=method)
    run_finetune(whole)
    with pytest.raises(Cancelled, match=r"the finished epochs are in .*, go on with --resume"):
        run_finetune(stopped, _interrupted_in_epoch(3))
    assert not stopped.output.exists()
    assert stopped.checkpoints.is_dir()
    with pytest.raises(OutputExists, match="holds an unfinished run; continue it with --resume"):
        run_finetune(stopped)
    with pytest.raises(InvalidSpec, match=r"other settings \(seed\)"):
        run_finetune(replace(stopped, resume=True, seed=1))
    run_finetune(replace(stopped, resume=True))
    assert not stopped.checkpoints.exists()
    assert_same(whole.output, stopped.output)


def test_an_interruption_before_the_first_epoch_ends_leaves_nothing(spec: Make) -> None:
    asked = spec()
    with pytest.raises(KeyboardInterrupt):
        run_finetune(asked, _interrupted_in_epoch(1))
    assert not list(asked.output.parent.iterdir())
    with pytest.raises(InvalidSpec, match="there is nothing to resume"):
        run_finetune(replace(asked, resume=True))


def test_a_checkpoint_that_was_cut_short_is_not_resumed_from(spec: Make) -> None:
    whole, stopped = spec("whole"), spec("stopped")
    run_finetune(whole)
    with pytest.raises(Cancelled):
        run_finetune(stopped, _interrupted_in_epoch(3))
    (stopped.checkpoints / "checkpoint-999").mkdir()
    (stopped.checkpoints / "checkpoint-999" / "trainer_state.json").write_text('{"epoch": ', encoding="utf-8")
    run_finetune(replace(stopped, resume=True))
    assert_same(whole.output, stopped.output)


def test_early_stopping_keeps_the_best_epoch(spec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The evaluation is made to say that the second epoch was the best."""

    def say(patch: pytest.MonkeyPatch, values: Iterator[float]) -> None:
        asked = replace(
            TASKS["single_label_classification"], measure=lambda names: lambda _: {"accuracy": next(values)}
        )
        patch.setitem(TASKS, "single_label_classification", asked)  # type: ignore[arg-type]

    said = iter([0.5, 0.9, 0.6, 0.7, 0.8, 0.8])
    say(monkeypatch, said)
    steps: list[int] = []
    stopped = spec("stopped", epochs=5, eval_data=str(tmp_path / "train.csv"), patience=2)
    run_finetune(stopped, lambda _, done, total: steps.append(done))
    assert max(steps) == 4 * len(ROWS) // 8  # two epochs without gain after the second
    kept = weights(stopped.output)
    states = iter([0.5, 0.9, 0.1, 0.1, 0.1, 0.1])
    say(monkeypatch, states)
    other = spec("other", epochs=5, eval_data=str(tmp_path / "train.csv"), patience=1)
    run_finetune(other)
    for name, values in weights(other.output).items():
        np.testing.assert_array_equal(values, kept[name])


def test_accumulation_takes_fewer_steps(spec: Make) -> None:
    totals = {}
    for accumulation in (1, 3):
        seen: list[int] = []
        asked = spec(f"by {accumulation}", epochs=1, accumulation=accumulation)
        run_finetune(asked, lambda _, done, total, seen=seen: seen.append(total))  # type: ignore[misc]
        totals[accumulation] = seen[-1]
    assert totals == {1: len(ROWS) // 8, 3: len(ROWS) // 24}


def test_labels_are_renamed_in_the_model_and_in_its_card(spec: Make) -> None:
    asked = spec(epochs=1, rename={"good": "positive", "bad": "negative"})
    assert run_finetune(asked).labels == ("negative", "positive")
    config = json.loads((asked.output / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    assert json.loads((asked.output / "finetune.json").read_text(encoding="utf-8"))["examples"] == len(ROWS)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([("good film", "good"), ("good plot", "good")], "has a single label ('good'); it takes two to classify"),
        ([("good film", "good"), (" ", "bad")], "row 2 (line 3) has no text in 'text'"),
        ([("good film", "good"), ("caf\udce9", "bad")], "row 2 (line 3) is not UTF-8"),
    ],
)
def test_unusable_rows_are_refused(rows: list[tuple[str, str]], sentence: str, spec: Make, tmp_path: Path) -> None:
    lines = "".join(f"{text},{label}\n" for text, label in [("text", "label"), *rows])
    (tmp_path / "rows.csv").write_bytes(lines.encode(errors="surrogateescape"))
    asked = replace(spec(), data=str(tmp_path / "rows.csv"))
    with pytest.raises(InvalidInput) as caught:
        run_finetune(asked)
    assert sentence in str(caught.value)
    assert not list(asked.output.parent.iterdir())


def test_a_label_unseen_in_training_is_refused(spec: Make, tmp_path: Path) -> None:
    held_out = write_rows(tmp_path / "eval.csv", [("good film", "good"), ("so so", "meh")])
    with pytest.raises(InvalidInput, match="row 2 has the label 'meh', which is not among the known ones"):
        run_finetune(spec(eval_data=str(held_out)))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--task", "translation"], "fine-tuning for 'translation' is not covered; covered: text-classification"),
        (["--method", "prefix"], "unknown method 'prefix'; choose from full, lora"),
        (["--merge"], "merging is for adapters"),
        (["--epochs", "0"], "epochs is 0; it has to be at least 1"),
        (["--learning-rate", "-1"], "the learning rate has to be above 0"),
        (["--label-names", "good"], "'good' in --label-names is not OLD=NEW"),
        (["--label-names", "good=x"], "give each one a name of its own"),
        (["--text-column", "review"], "has no column 'review' (found: text, label)"),
        (["--data", "gone.csv"], "gone.csv is not a file"),
        (["--resume"], "there is nothing to resume"),
    ],
)
def test_a_command_that_cannot_be_done_is_refused(
    arguments: list[str], sentence: str, spec: Make, answer: Callable[..., tuple[int, str, str]]
) -> None:
    asked = spec()
    command = ["finetune", asked.model, "--task", asked.task, "--data", asked.data, "-o", str(asked.output)]
    code, _, message = answer(*command, *arguments)
    assert code == 2
    assert sentence in message
    assert not list(asked.output.parent.iterdir())


@pytest.mark.parametrize("missing", ["model.safetensors", "tokenizer.json"])
def test_a_model_that_lacks_a_file_is_refused(missing: str, make_model: Callable[..., Path], spec: Make) -> None:
    model = make_model()
    (model / missing).unlink()
    asked = replace(spec(), model=str(model))
    assert main(["finetune", str(model), "--task", asked.task, "--data", asked.data, "-o", str(asked.output)]) == 2
    assert not list(asked.output.parent.iterdir())


@pytest.mark.parametrize("place", ["output", "checkpoints"])
def test_a_folder_that_is_not_ours_is_never_replaced(place: str, spec: Make) -> None:
    """A model that somebody else made has a config.json too."""
    asked = spec(force=True)
    mine: Path = getattr(asked, place)
    mine.mkdir()
    (mine / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(OutputExists, match="choose another output"):
        run_finetune(asked)
    assert [p.name for p in mine.iterdir()] == ["config.json"]
    assert list(mine.parent.iterdir()) == [mine]


def _mean_loss(spec: FinetuneSpec) -> list[float]:
    assert spec.log
    run_finetune(spec)
    return [json.loads(line)["loss"] for line in spec.log.read_text(encoding="utf-8").splitlines()]


def test_accumulated_batches_have_the_loss_of_one_large_batch(
    spec: Make, make_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporters.finetuning.training.bfloat16_helps", lambda: False)
    model = str(make_model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    whole = replace(spec("whole", epochs=2, batch_size=12, log=tmp_path / "whole.jsonl"), model=model)
    split = replace(spec("split", epochs=2, batch_size=4, accumulation=3, log=tmp_path / "split.jsonl"), model=model)
    assert _mean_loss(split) == pytest.approx(_mean_loss(whole), rel=1e-4)
