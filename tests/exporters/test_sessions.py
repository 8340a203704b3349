"""Sessions over real runtimes, with a tiny random decoder: what was read stays read, in memory and in a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import exporters
import mobile_llm
from mobile_llm.backends import onnx_decoder
from mobile_llm.errors import Cancelled
from mobile_llm.tasks.text_generation import ChatModel


@pytest.fixture(scope="module")
def bundle(decoder_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output, formats = tmp_path_factory.mktemp("llama") / "bundle", ("onnx", "tflite")
    folder = decoder_folder("llama")
    return exporters.export(folder, "text-generation", output, formats=formats, recipes=("fp32",)).bundle


@pytest.fixture(params=["onnx/fp32", "tflite/fp32"])
def load(
    request: pytest.FixtureRequest, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], ChatModel]]:
    """Opens the artifact anew; caches have to grow on the way."""
    monkeypatch.setattr(onnx_decoder, "_FIRST_CAPACITY", 16)
    models: list[ChatModel] = []

    def opened() -> ChatModel:
        models.append(mobile_llm.load(bundle, request.param, threads=1))
        return models[-1]

    yield opened
    for model in models:
        model.close()


def test_a_turn_goes_on_as_if_all_of_it_had_been_read_at_once(load: Callable[[], ChatModel]) -> None:
    model, fresh = load(), load()
    session = model.session()
    first = session.respond("hi", max_tokens=6)
    second = session.respond("so", max_tokens=6)
    assert first.stats.cached_tokens == 0
    assert second.stats.cached_tokens == first.prompt_tokens + len(first.tokens) - 1, "the last was not read"
    prompt = model.engine.tokens[: second.prompt_tokens]
    for count, token in enumerate(second.tokens):
        assert token == fresh.engine.continue_with([*prompt, *second.tokens[:count]]).argmax()


def test_a_saved_prefix_gives_the_same_logits(load: Callable[[], ChatModel], tmp_path: Path) -> None:
    model, other = load(), load()
    session = model.session("a long beginning that is kept")
    tokens = session.save_prefix(tmp_path / "prefix")
    assert tokens == len(model.engine.tokens) > 20
    assert other.restore_prefix(tmp_path / "prefix") == tokens
    assert other.engine.tokens == model.engine.tokens
    for token in (70, 71, 72):
        np.testing.assert_array_equal(other.engine.append([token]), model.engine.append([token]))
    answer = other.session("a long beginning that is kept").respond("so", max_tokens=3)
    assert answer.stats.cached_tokens == tokens
    assert answer == load().session("a long beginning that is kept").respond("so", max_tokens=3)


def test_a_cancelled_turn_changes_no_later_answer(load: Callable[[], ChatModel]) -> None:
    expected = load().session().respond("hello", max_tokens=8)
    session = load().session()
    stream = session.stream("something else", max_tokens=8)
    next(stream, None)
    session.cancel()
    with pytest.raises(Cancelled):
        stream.drain()
    assert session.respond("hello", max_tokens=8) == expected
