"""Conversations: what a turn costs is counted in tokens that the engine reads, not in seconds."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mobile_llm.errors import Busy, Cancelled, ContextFull, InvalidInput, InvalidSpec
from mobile_llm.generation import loop
from mobile_llm.generation.sampler import Sampler

from .conftest import EMOJI_AND_CJK, Chat, open_chat, write_manifest


def test_an_answer_is_streamed_and_kept(chat: Chat) -> None:
    session = chat.model.session(system="be nice")
    stream = session.stream(EMOJI_AND_CJK)
    assert session.state == "generating"
    pieces = list(stream)
    assert "".join(pieces) == stream.answer.text == EMOJI_AND_CJK
    assert len(pieces) > 20
    assert all(pieces)
    assert session.state == "ready"
    assert [(m["role"], m["content"]) for m in session.messages] == [
        ("system", "be nice"),
        ("user", EMOJI_AND_CJK),
        ("assistant", EMOJI_AND_CJK),
    ]


def test_an_answer_has_figures(chat: Chat) -> None:
    session = chat.model.session()
    first, second = session.respond("one"), session.respond("two and three")
    assert first.finish == second.finish == "stop"
    assert first.stats.cached_tokens == 0
    assert second.stats.cached_tokens == first.prompt_tokens + len(first.tokens)
    assert second.stats.answer_tokens == len(second.tokens) > 1
    assert second.stats.first_token_seconds > 0
    assert second.stats.prefill_rate > 0
    assert (second.stats.decode_rate or 0) > 0
    assert (second.stats.peak_memory or 0) > 1e6


def test_a_second_turn_reads_its_new_tokens_only(chat: Chat) -> None:
    session = chat.model.session(system="be nice")
    session.respond("hello")
    before = chat.read
    session.respond("again", max_tokens=1)
    assert chat.read - before == len(chat.ids("<eos><|user|>again<eos><|assistant|>"))


def test_tokens_that_no_tokenizer_would_choose_are_kept(chat: Chat) -> None:
    """The model writes byte by byte; its text tokenized anew would be other tokens."""
    chat.decoder.answers["hello"] = chat.bytes("the quick 你好")
    session = chat.model.session()
    answer = session.respond("hello")
    assert answer.text == "the quick 你好"
    assert list(answer.tokens) != chat.ids(answer.text)
    before = chat.read
    session.respond("again", max_tokens=1)
    assert chat.read - before == len(chat.ids("<eos><|user|>again<eos><|assistant|>"))


def test_a_stop_string_is_not_part_of_the_answer_nor_of_the_conversation(chat: Chat) -> None:
    chat.decoder.answers["hello"] = chat.ids("one<two three")
    session = chat.model.session()
    answer = session.respond("hello", stop=["three", "<two t"])
    assert (answer.text, answer.finish) == ("one", "stop")
    assert session.messages[-1]["content"] == "one"
    assert session.respond("next").text == "next"


@pytest.mark.parametrize(("limit", "finish"), [(3, "length"), (1000, "stop")])
def test_answers_end_where_they_are_asked_to(limit: int, finish: str, chat: Chat) -> None:
    answer = chat.model.session().respond(EMOJI_AND_CJK, max_tokens=limit)
    assert answer.finish == finish
    assert len(answer.tokens) == min(limit, len(chat.ids(EMOJI_AND_CJK)))


def test_two_conversations_share_what_they_begin_with(chat: Chat) -> None:
    system = "x" * 200
    chat.model.session(system).respond("hello")
    answer = chat.model.session(system).respond("goodbye")
    assert answer.stats.cached_tokens == len(chat.ids(f"<|system|>{system}<eos><|user|>"))


def test_a_session_goes_on_where_another_ended(chat: Chat) -> None:
    first = chat.model.session()
    first.respond("hello")
    second = chat.model.session(messages=first.messages)
    assert second.respond("again").text == "again"
    assert [m["content"] for m in second.messages] == ["hello", "hello", "again", "again"]


def test_a_cancelled_turn_leaves_nothing(chat: Chat) -> None:
    session = chat.model.session()
    session.respond("hello")
    messages, tokens = session.messages, chat.model.engine.tokens
    stream = session.stream("something long to say")
    assert next(stream)
    session.cancel()
    assert session.state == "ready"
    with pytest.raises(Cancelled, match="as it was before"):
        next(stream)
    assert (session.messages, chat.model.engine.tokens) == (messages, tokens)
    assert session.respond("again").text == "again"


def test_a_cancel_between_two_tokens_is_noticed_inside(chat: Chat) -> None:
    """As another thread does it, while this one is in the middle of a step."""
    session = chat.model.session()
    chat.decoder.before_append = lambda: session.cancel() if len(chat.decoder.taken) == 3 else None
    with pytest.raises(Cancelled):
        session.respond("something long to say")
    assert (session.messages, session.state, chat.model.engine.tokens) == ((), "ready", ())
    assert chat.decoder.taken[3:] == [1]


def test_a_cancel_of_a_finished_turn_does_nothing(chat: Chat) -> None:
    session = chat.model.session()
    stream = session.stream("hello")
    answer = stream.drain()
    session.cancel()
    stream.close()
    assert list(stream) == []
    assert (stream.answer, session.messages[-1]["content"]) == (answer, "hello")


def test_a_long_prompt_is_cancelled_while_it_is_read(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_PIECE", 16)
    session = chat.model.session()
    chat.decoder.before_append = lambda: session.cancel() if len(chat.decoder.taken) == 2 else None
    with pytest.raises(Cancelled):
        session.prefill("z" * 500)
    assert chat.decoder.taken == [16, 16, 16]
    assert session.state == "ready"


@pytest.mark.parametrize("leave", ["close", "drop"])
def test_a_stream_that_is_left_is_a_cancelled_turn(leave: str, chat: Chat) -> None:
    session = chat.model.session()
    stream = session.stream("hello")
    next(stream)
    with pytest.raises(Busy, match="in the middle of another turn"):
        chat.model.session().respond("me too")
    with pytest.raises(Busy):
        session.prefill("me")
    with pytest.raises(InvalidSpec, match="not whole yet"):
        _ = stream.answer
    if leave == "close":
        stream.close()
    del stream
    assert (session.messages, session.state, chat.model.engine.tokens) == ((), "ready", ())
    assert session.respond("hello").text == "hello"


def test_an_error_of_the_runtime_undoes_the_turn(chat: Chat) -> None:
    session = chat.model.session()
    session.respond("hello")
    tokens = chat.model.engine.tokens
    stream = session.stream("something long")
    next(stream)
    chat.decoder.before_append = lambda: (_ for _ in ()).throw(RuntimeError("native"))
    with pytest.raises(RuntimeError, match="native"):
        next(stream)
    chat.decoder.before_append = lambda: None
    assert (session.state, len(session.messages), chat.model.engine.tokens) == ("ready", 2, tokens)
    with pytest.raises(Cancelled):
        next(stream)
    assert session.respond("again").text == "again"


def test_closed_is_closed(chat: Chat) -> None:
    session, other = chat.model.session(), chat.model.session()
    stream = session.stream("hello")
    session.close()
    with pytest.raises(Cancelled):
        next(stream)
    assert session.state == "closed"
    with pytest.raises(InvalidSpec, match="this session is closed; open another one"):
        session.respond("hello")
    stream = other.stream("hello")
    chat.model.close()
    chat.model.close()
    with pytest.raises(Cancelled):
        next(stream)
    with pytest.raises(InvalidSpec, match="this model is closed; load it again"):
        other.respond("hello")
    assert chat.decoder.closed == 1


def test_what_is_typed_is_read_meanwhile(chat: Chat) -> None:
    said = "please tell me about the quick brown fox and the lazy dog"
    session = chat.model.session(system="be nice")
    for end in range(0, len(said), 5):
        session.prefill(said[:end])
    before = chat.read
    answer = session.respond(said, max_tokens=1)
    typed = len(chat.ids(said))
    assert chat.read - before < typed / 3
    assert answer.stats.cached_tokens > answer.prompt_tokens - typed / 3
    assert session.prefill() > 0
    assert session.prefill() == 0, "it is there already"


def test_typing_changes_no_answer(chat: Chat) -> None:
    said = "今日は " + EMOJI_AND_CJK
    expected = chat.model.session().respond(said)
    session = chat.model.session()
    for end in (3, 20, 11, len(said)):
        session.prefill(said[:end])
    assert session.respond(said) == expected


@pytest.fixture
def narrow(table_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Chat:
    return open_chat(table_bundle, monkeypatch, context=100)


def test_a_full_context_is_an_error_by_default(narrow: Chat) -> None:
    session = narrow.model.session(system="be nice")
    session.respond("a message")
    session.respond("y" * 20)
    with pytest.raises(ContextFull, match=r"the conversation has \d+ tokens and the context 100; .*'drop_oldest'"):
        session.respond("z" * 80)
    assert len(session.messages) == 5
    assert session.state == "ready"


def test_the_oldest_turns_may_be_dropped(narrow: Chat) -> None:
    session = narrow.model.session(system="be nice", when_full="drop_oldest")
    sizes = []
    for i in range(20):
        assert session.respond(f"message number {i}", max_tokens=20).text == f"message number {i}"
        sizes.append(len(session.messages))
    assert session.messages[0] == {"role": "system", "content": "be nice"}
    assert session.messages[-2]["content"] == "message number 19"
    assert max(sizes) < 12
    assert sum(after < before for before, after in pairwise(sizes)) < 10, "several turns go at once"
    with pytest.raises(ContextFull, match="shorten the message"):
        session.respond("x" * 200)
    assert len(session.messages) == sizes[-1], "nothing was dropped for a message that never fits"


def test_an_answer_may_fill_the_context(narrow: Chat) -> None:
    narrow.decoder.answers["hello"] = narrow.bytes("y" * 200)
    answer = narrow.model.session().respond("hello", max_tokens=1000)
    assert answer.finish == "context"
    assert answer.prompt_tokens + len(answer.tokens) == narrow.decoder.context + 1


def test_a_turn_can_be_undone(chat: Chat) -> None:
    session = chat.model.session(system="be nice")
    session.respond("hello")
    session.undo()
    assert [m["role"] for m in session.messages] == ["system"]
    with pytest.raises(InvalidSpec, match="no turn to undo"):
        session.undo()


def test_the_same_seed_says_the_same(chat: Chat) -> None:
    def said(seed: int) -> list[str]:
        session = chat.model.session(sampler=Sampler(temperature=6.0), seed=seed)
        return [session.respond("hello", max_tokens=8).text for _ in range(2)]

    assert said(1) == said(1)
    assert said(1) != said(2)
    assert len(set(said(1))) == 2, "each answer draws anew"


class Only:
    """Allows the tokens of one text, in their order."""

    def __init__(self, ids: list[int]) -> None:
        self.left = list(ids)

    def apply(self, logits: np.ndarray) -> None:
        kept = logits[self.left[0]]
        logits[:] = -np.inf
        logits[self.left[0]] = kept

    def accept(self, token: int) -> None:
        assert token == self.left.pop(0)

    def finished(self) -> bool:
        return not self.left


def test_a_constraint_stands_between_logits_and_the_choice(chat: Chat) -> None:
    forced = chat.ids("forced 你好")
    request = loop.Request(tuple(chat.ids("hello")), Sampler(), 0, 50, (), constraint=Only(forced))
    tokens = loop.write(chat.model.engine, request, lambda: None, loop.OneByOne(chat.model.engine))
    assert [next(tokens) for _ in forced] == forced
    with pytest.raises(StopIteration, match="stop"):
        next(tokens)


@pytest.mark.parametrize(
    ("open_", "sentence"),
    [
        (
            lambda m: m.session(messages=[{"role": "asistant", "content": ""}]),
            "message 1 has the role 'asistant'; roles",
        ),
        (lambda m: m.generate([{"role": "user", "content": "a"}, {"role": "model"}]), "message 2 has the role 'model'"),
        (lambda m: m.session(messages=["hello"]), "a message is a mapping"),
    ],
)
def test_messages_that_are_none(open_: Callable[[object], object], sentence: str, chat: Chat) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        open_(chat.model)


def test_settings_that_cannot_be(chat: Chat) -> None:
    session = chat.model.session()
    with pytest.raises(InvalidSpec, match="when_full is 'forget'; it is one of error, drop_oldest"):
        chat.model.session(when_full="forget")  # type: ignore[arg-type]
    with pytest.raises(InvalidSpec, match="max_tokens is 0"):
        session.respond("hello", max_tokens=0)
    with pytest.raises(InvalidSpec, match="a stop string is empty"):
        session.respond("hello", stop=[""])
    assert session.state == "ready"
    assert session.respond("hello").text == "hello"


def test_a_model_without_a_template_has_no_sessions(
    table_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tokenizer.json", "model.onnx"):
        (tmp_path / name).write_bytes((table_bundle / name).read_bytes())
    write_manifest(tmp_path, template=False)
    model = open_chat(tmp_path, monkeypatch).model
    with pytest.raises(InvalidInput, match="this model has no chat template"):
        model.session()
