"""Lines in, answers out: with a prompt, history and Ctrl-C where a person sits, plainly where a program does.

Line editing and history are those of the standard library's `readline`: no package is needed, and people know its keys.
Where Python has none (Windows) the console edits lines itself, and history ends with the program.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mobile_llm.errors import Cancelled, MobileLlmError
from mobile_llm.generation.session import ChatSession
from mobile_llm.terminal.talk import Talk, Write, figures, obey

HISTORY = "MOBILE_LLM_HISTORY"  # names the file; empty keeps none
_LINES_KEPT = 1000


def converse_by_lines(talk: Talk, write: Write) -> None:
    """Every line of stdin is a message or a command, and what it is answered is written. The first error ends it."""
    with suppress(EOFError):
        for line in sys.stdin:
            obey(talk, line.rstrip("\n"), write)


def converse(talk: Talk) -> None:
    """With the person at the terminal, until Ctrl-D. An error is said, and the conversation goes on."""
    show(f"{talk.model.engine.artifact_id}: /help lists commands, Ctrl-C stops an answer, Ctrl-D leaves\n")
    with _history(), suppress(EOFError):
        while True:
            try:
                _turn(talk)
            except (KeyboardInterrupt, Cancelled):
                show("\n")
            except (MobileLlmError, OSError) as error:
                show(f"{error}\n")


def show(text: str) -> None:
    """At once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _turn(talk: Talk) -> None:
    with _reading_ahead(talk.session):
        line = input("> ")
    with _stopped_by_interrupts(talk):
        answer = obey(talk, line, show)
    if answer:
        show(_dim(figures(answer.stats, answer.finish)) + "\n")


@contextmanager
def _reading_ahead(session: ChatSession) -> Iterator[None]:
    """While the person types, the model reads what comes before the message."""

    def read() -> None:
        with suppress(MobileLlmError):  # the turn itself will say it
            session.prefill()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        session.cancel()
        reader.join()


@contextmanager
def _stopped_by_interrupts(talk: Talk) -> Iterator[None]:
    """Ctrl-C ends the answer, not the program, and between two tokens, not within one."""
    before = signal.signal(signal.SIGINT, lambda *_: talk.session.cancel())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _history() -> Iterator[None]:
    """Lines of former conversations, by the arrow keys."""
    place = os.environ.get(HISTORY, "~/.mobile_llm_history")
    try:
        import readline
    except ImportError:
        place = ""
    if not place:
        yield
        return
    path = str(Path(place).expanduser())
    with suppress(OSError):  # there is none yet
        readline.read_history_file(path)
    try:
        yield
    finally:
        readline.set_history_length(_LINES_KEPT)
        with suppress(OSError):  # a conversation does not fail because nothing can be kept of it
            readline.write_history_file(path)


def _dim(text: str) -> str:
    return f"\033[2m{text}\033[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text
