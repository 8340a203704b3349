"""Saved prefixes: of the very artifact, whole, or refused."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mobile_llm.backends.stateful import FlexibleDecoder
from mobile_llm.errors import BackendUnavailable, IntegrityFailed, InvalidInput
from mobile_llm.generation import prefix
from mobile_llm.generation.engine import DecoderEngine

from .conftest import Chat, open_chat

SYSTEM = "be nice, and short, and never mention the quick brown fox"


@pytest.fixture
def saved(chat: Chat, tmp_path: Path) -> Path:
    """Of a conversation of one turn."""
    session = chat.model.session(SYSTEM)
    session.respond("hello")
    path = tmp_path / "prefix"
    assert session.save_prefix(path) > len(chat.ids(SYSTEM))
    return path


def test_a_prefix_is_read_by_another_process(
    chat: Chat, saved: Path, table_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = open_chat(table_bundle, monkeypatch)
    tokens = other.model.restore_prefix(saved)
    assert other.read == 0
    history = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hello"}]
    answer = other.model.session(SYSTEM, history).respond("and now?")
    assert (answer.text, answer.stats.cached_tokens) == ("and now?", tokens)
    assert other.decoder.taken[0] == answer.prompt_tokens - tokens < 20


def test_saving_costs_the_conversation_nothing(chat: Chat, saved: Path) -> None:
    session = chat.model.session(SYSTEM)
    session.respond("hello")
    session.save_prefix(saved)
    before = chat.read
    session.save_prefix(saved)
    assert chat.read == before
    assert [path.name for path in saved.parent.iterdir()] == ["prefix"], "no temporary file is left"


@pytest.mark.parametrize(
    "change",
    [
        lambda engine: setattr(engine, "artifact_id", "onnx/int8"),
        lambda engine: setattr(
            engine,
            "artifact",
            replace(engine.artifact, files=tuple(replace(f, sha256="0" * 64) for f in engine.artifact.files)),
        ),
    ],
    ids=["another artifact", "another export"],
)
def test_a_prefix_of_another_artifact_is_refused(
    change: Callable[[DecoderEngine], None], chat: Chat, saved: Path
) -> None:
    tokens = chat.model.engine.tokens
    change(chat.model.engine)
    with pytest.raises(InvalidInput, match="prefix was saved from onnx/fp32 of another bundle or export, and this is"):
        chat.model.restore_prefix(saved)
    assert chat.model.engine.tokens == tokens


def test_a_damaged_prefix_is_refused(chat: Chat, saved: Path) -> None:
    whole, draw = saved.read_bytes(), random.Random(0)
    tokens = chat.model.engine.tokens
    damaged = [whole[:size] for size in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1)]
    for _ in range(200):
        place = draw.randrange(len(whole))
        damaged.append(whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1 :])
    for data in damaged:
        saved.write_bytes(data)
        with pytest.raises((IntegrityFailed, InvalidInput), match=r"^prefix (is damaged|was saved from)"):
            chat.model.restore_prefix(saved)
        assert chat.model.engine.tokens == tokens


def test_places_that_are_none(chat: Chat, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="missing cannot be read"):
        chat.model.restore_prefix(tmp_path / "missing")
    session = chat.model.session(SYSTEM)
    with pytest.raises(InvalidInput, match="cannot be written"):
        session.save_prefix(tmp_path / "missing" / "prefix")
    assert session.state == "ready"


def test_the_old_file_stands_until_the_new_one_does(chat: Chat, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()
    monkeypatch.setattr("os.replace", lambda *given: (_ for _ in ()).throw(OSError(28, "no room")))
    with pytest.raises(InvalidInput, match=r"cannot be written \(no room\)"):
        chat.model.session("another").save_prefix(saved)
    assert saved.read_bytes() == before
    assert len(list(saved.parent.iterdir())) == 1


def test_rows_of_another_cache_are_refused(chat: Chat, saved: Path) -> None:
    """Of an artifact that its manifest calls the same."""
    chat.decoder.save_cache = lambda position: {"key.0": chat.decoder._rows[..., :3, :]}  # type: ignore[method-assign]
    chat.model.session(SYSTEM).save_prefix(saved)
    with pytest.raises(IntegrityFailed, match="of other layers or sizes"):
        chat.model.restore_prefix(saved)


def test_nothing_is_no_prefix(chat: Chat, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nothing to save"):
        prefix.save(chat.model.engine, 0, tmp_path / "prefix")


def test_an_artifact_that_keeps_its_cache_says_so() -> None:
    decoder = FlexibleDecoder({}, 8, lambda entry, inputs: {}, lambda: None)
    for call in (lambda: decoder.save_cache(1), lambda: decoder.load_cache({}, 1)):
        with pytest.raises(BackendUnavailable, match="take an ONNX or TFLite one"):
            call()
