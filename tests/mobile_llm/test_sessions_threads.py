"""Conversations in several threads: one is served at a time, and who is not is told so."""

from __future__ import annotations

import gc
import random
import threading
import weakref
from collections import Counter

from mobile_llm.errors import Busy, Cancelled
from mobile_llm.generation.session import ChatSession

from .conftest import Chat


def test_two_hundred_sessions_from_eight_threads(chat: Chat) -> None:
    """Opened, read, cancelled, closed at random; who is not served is told Busy or Cancelled, and nothing is left."""
    told: Counter[str] = Counter()
    sessions: list[ChatSession] = [chat.model.session(system="be nice") for _ in range(200)]
    alive = [weakref.ref(session) for session in sessions]

    def work(number: int) -> None:
        draw = random.Random(number)
        for session in sessions[number::8]:
            other = draw.choice(sessions)
            try:
                stream = session.stream("the quick brown fox")
                for _ in range(draw.randrange(12)):
                    next(stream, None)
                    draw.choice([other.cancel, session.cancel, str, str, str, str, str])()
                draw.choice([stream.drain, stream.close, session.close, stream.drain])()
                told["served"] += 1
            except (Busy, Cancelled) as error:
                told[type(error).__name__] += 1

    failed: list[object] = []
    threading.excepthook, hook = lambda args: failed.append(args.exc_value), threading.excepthook
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        threading.excepthook = hook
    assert not failed
    assert sum(told.values()) == 200
    assert told["served"] > 0
    assert told["Busy"] + told["Cancelled"] > 0
    assert chat.model.session().respond("still here").text == "still here"
    sessions.clear()
    gc.collect()
    assert not [ref for ref in alive if ref() is not None]


def test_a_model_is_closed_while_another_thread_reads(chat: Chat) -> None:
    """The engine is freed after the step that is under way, not within it."""
    inside, go_on, told = threading.Event(), threading.Event(), []

    def wait() -> None:
        if len(chat.decoder.taken) == 2:
            inside.set()
            go_on.wait(5)
            assert not chat.decoder.closed

    def respond() -> None:
        try:
            chat.model.session().respond("something long to say")
        except Cancelled as error:
            told.append(error)

    chat.decoder.before_append = wait
    reader, closer = threading.Thread(target=respond), threading.Thread(target=chat.model.close)
    reader.start()
    assert inside.wait(5)
    closer.start()
    go_on.set()
    reader.join(5)
    closer.join(5)
    assert (len(told), chat.decoder.closed) == (1, 1)
