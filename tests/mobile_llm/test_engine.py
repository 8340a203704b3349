"""The engine over a session that only records: which shape is chosen, how batches are cut, who may be inside."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobile_llm.bundle import Artifact, Bundle, EntryPoint, TensorBinding
from mobile_llm.engine import Engine
from mobile_llm.errors import Busy, InvalidInput

Tensors = dict[str, np.ndarray]


class Recorder:
    """Gives the ids back as hidden states, and their sum as the vector; notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str | None, tuple[int, ...]]] = []
        self.masks: list[np.ndarray] = []
        self.closed = False

    def run(self, entry: EntryPoint, inputs: Mapping[str, np.ndarray]) -> Tensors:
        ids = inputs["input_ids"]
        self.asked.append((entry.signature, ids.shape))
        self.masks.append(inputs["attention_mask"])
        return {"last_hidden_state": ids[..., None], "sentence_embedding": ids.sum(1, keepdims=True)}

    def close(self) -> None:
        self.closed = True


def _entry(length: int | str, batch: int | str) -> EntryPoint:
    limits = {"sequence": (1, 64)} if length == "sequence" else {}
    binding = TensorBinding("x", "int64", (batch, length), limits)
    output = TensorBinding("y", "float32", (batch, length))
    return EntryPoint(
        {"input_ids": binding, "attention_mask": binding},
        {"last_hidden_state": output, "sentence_embedding": output},
        signature=f"encode_{length}",
    )


@pytest.fixture
def session() -> Recorder:
    return Recorder()


def _engine(session: Any, *entries: EntryPoint) -> Engine:
    artifact = Artifact("tflite", "fp32", "x.tflite", (), {"encode": entries})
    return Engine(Bundle(Path("nowhere"), None), "tflite/fp32", artifact, session)  # type: ignore[arg-type]


def _static(session: Any) -> Engine:
    return _engine(session, _entry(32, 1), _entry(8, 1), _entry(16, 1))


def _inputs(batch: int, length: int) -> Tensors:
    ids = np.arange(1, batch * length + 1).reshape(batch, length)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


@pytest.mark.parametrize(("length", "shape"), [(1, 8), (8, 8), (9, 16), (16, 16), (17, 32), (32, 32)])
def test_the_smallest_shape_that_fits_is_chosen(length: int, shape: int, session: Recorder) -> None:
    outputs = _static(session).run("encode", _inputs(1, length))
    assert session.asked == [(f"encode_{shape}", (1, shape))]
    assert outputs["last_hidden_state"].shape == (1, length, 1)


def test_padding_is_masked_and_cut_off_again(session: Recorder) -> None:
    outputs = _static(session).run("encode", _inputs(1, 3))
    assert session.masks[0].tolist() == [[1, 1, 1, 0, 0, 0, 0, 0]]
    assert outputs["last_hidden_state"][0, :, 0].tolist() == [1, 2, 3]
    assert outputs["sentence_embedding"].tolist() == [[6]]


def test_a_batch_goes_in_turns_and_keeps_its_order(session: Recorder) -> None:
    inputs = _inputs(5, 3)
    outputs = _engine(session, _entry(8, 2)).run("encode", inputs)
    assert [shape for _, shape in session.asked] == [(2, 8), (2, 8), (1, 8)]
    assert outputs["sentence_embedding"][:, 0].tolist() == inputs["input_ids"].sum(1).tolist()
    assert outputs["last_hidden_state"][..., 0].tolist() == inputs["input_ids"].tolist()


def test_a_dynamic_shape_takes_the_batch_at_once_unpadded(session: Recorder) -> None:
    _engine(session, _entry("sequence", "batch")).run("encode", _inputs(5, 3))
    assert session.asked == [("encode_sequence", (5, 3))]


@pytest.mark.parametrize(("entry", "most"), [(_entry(32, 1), 32), (_entry("sequence", "batch"), 64)])
def test_what_is_too_long_is_refused(entry: EntryPoint, most: int, session: Recorder) -> None:
    with pytest.raises(InvalidInput, match=f"65 tokens do not fit tflite/fp32, which takes up to {most}"):
        _engine(session, entry).run("encode", _inputs(1, 65))
    assert not session.asked


def test_an_unknown_entry_point_is_answered_with_the_known_ones(session: Recorder) -> None:
    with pytest.raises(InvalidInput, match="tflite/fp32 has no entry point 'decode'; it has encode"):
        _static(session).run("decode", _inputs(1, 3))


def test_leaving_the_context_frees_the_session(session: Recorder) -> None:
    with _static(session):
        assert not session.closed
    assert session.closed


class Slow(Recorder):
    """Stays inside until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.go = threading.Event(), threading.Event()

    def run(self, entry: EntryPoint, inputs: Mapping[str, np.ndarray]) -> Tensors:
        self.inside.set()
        assert self.go.wait(10)
        return super().run(entry, inputs)


def test_two_threads_at_once_are_refused_and_one_after_the_other_are_not() -> None:
    session = Slow()
    engine = _static(session)
    results: list[Tensors] = []
    thread = threading.Thread(target=lambda: results.append(engine.run("encode", _inputs(1, 3))))
    thread.start()
    assert session.inside.wait(10)
    with pytest.raises(Busy, match="in use by another thread; open one engine per thread"):
        engine.run("encode", _inputs(1, 3))
    session.go.set()
    thread.join(10)
    assert len(results) == 1
    assert engine.run("encode", _inputs(1, 3))["sentence_embedding"].tolist() == [[6]]


def test_an_error_inside_does_not_leave_the_engine_busy(session: Recorder) -> None:
    engine = _static(session)
    with pytest.raises(InvalidInput):
        engine.run("encode", _inputs(1, 65))
    assert engine.run("encode", _inputs(1, 3))["sentence_embedding"].tolist() == [[6]]


@pytest.mark.parametrize("artifact_id", ["onnx/fp32", "tflite/fp32"])
def test_real_artifacts_refuse_what_is_too_long(artifact_id: str, classifier_bundle: Path) -> None:
    with (
        Engine.open(classifier_bundle, artifact_id) as engine,
        pytest.raises(InvalidInput, match=f"65 tokens do not fit {artifact_id}, which takes up to 64"),
    ):
        engine.run("encode", _inputs(1, 65))
