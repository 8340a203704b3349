"""Multiple choice: of a tiny decoder and its artifacts beside sums made by torch, and of rows that cannot be asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exporters.verification.choices import Choice, choose
from mobile_llm.commands import main

QUESTIONS = [
    {"prompt": "The plot is", "choices": ["bad", "good at its end", "a joke"], "answer": 1},
    {"question": "Żółć", "choices": ["😍", "no"], "answer": "B"},
    {"prompt": "One", "choices": ["two", "three", "four", "ten"], "answer": "ten"},
]


Answer = Callable[..., tuple[int, str, str]]


def test_artifacts_choose_as_the_model_does(
    writing_bundle: Path,
    decoder: Callable[[str], Any],
    decoder_folder: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "questions.jsonl"
    data.write_text("\n".join(map(json.dumps, QUESTIONS)), encoding="utf-8")
    arguments = ["--data", str(data), "--model", str(decoder_folder("llama")), "--json"]
    assert main(["evaluate", str(writing_bundle), *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    by_sum, by_length = _by_torch(decoder("llama"), writing_bundle)
    assert (found["metric"], found["examples"]) == ("multiple_choice", 3)
    assert found["reference"] == found["artifacts"]["onnx/fp32"] == pytest.approx(by_sum)
    assert found["details"]["onnx/fp32"]["normalized"] == pytest.approx(by_length)
    assert found["details"]["onnx/fp32"]["agreement"] == 1


def _by_torch(model: Any, bundle: Path) -> tuple[float, float]:
    """Accuracy by sums of log-probabilities of the bytes of each choice, and by their means over characters."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    right = []
    for question, place in zip(QUESTIONS, (1, 1, 3)):
        prompt, sums, lengths = question.get("prompt", question.get("question")), [], []
        start = len(tokenizer.encode(prompt).ids)
        for text in question["choices"]:  # type: ignore[attr-defined]
            ids = torch.tensor(tokenizer.encode(f"{prompt} {text}").ids)
            with torch.inference_mode():
                chances = model(ids[None]).logits[0].log_softmax(-1)
            sums.append(float(chances[start - 1 : -1].gather(1, ids[start:, None]).sum()))
            lengths.append(len(text))
        right.append((np.argmax(sums) == place, np.argmax(np.divide(sums, lengths)) == place))
    return float(np.mean([a for a, _ in right])), float(np.mean([b for _, b in right]))


def test_the_sum_and_the_mean_may_choose_differently() -> None:
    """A short choice of one unlikely token, and a long one of likely tokens."""
    short, long = Choice((0, 1), 1, 1), Choice((0, 2, 2, 2), 1, 3)
    logits = np.log(np.array([0.1, 0.3, 0.6], np.float32))
    found = choose([[short, long]], lambda ids, start: np.tile(logits, (len(ids) - start, 1)))
    assert (found.likeliest.tolist(), found.normalized.tolist()) == ([0], [1])


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"choices": ["a", "b"], "answer": 0}, "row 1 (line 1) has no text in 'prompt'"),
        ({"prompt": "p", "choices": ["a"], "answer": 0}, "write a list of two or more texts"),
        ({"prompt": "p", "choices": "ab", "answer": 0}, "write a list of two or more texts"),
        ({"prompt": "p", "choices": ["a", "b"], "answer": 2}, "the answer 2; write the place of one of the 2 choices"),
        ({"prompt": "p", "choices": ["a", "b"], "answer": True}, "the answer True"),
        ({"prompt": "p", "choices": ["a", "b"], "answer": "C"}, "the answer 'C'"),
        ({"prompt": "p" * 40, "choices": ["a", "b"], "answer": 0}, "row 1 has 42 tokens and the context 32"),
    ],
)
def test_a_row_that_cannot_be_asked_is_refused(
    row: dict[str, object],
    sentence: str,
    writing_bundle: Path,
    tmp_path: Path,
    answer: Callable[..., tuple[int, str, str]],
) -> None:
    data = tmp_path / "questions.jsonl"
    data.write_text(json.dumps(row), encoding="utf-8")
    code, kind, message = answer("evaluate", str(writing_bundle), "--data", str(data))
    assert (code, kind) == (2, "InvalidInput")
    assert sentence in message
