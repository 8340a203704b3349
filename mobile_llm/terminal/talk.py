"""What a conversation in a terminal consists of, wherever its lines come from: messages, and commands that begin with
a slash."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mobile_llm.errors import InvalidInput
from mobile_llm.generation.answer import Answer, Stats
from mobile_llm.generation.sampler import Sampler
from mobile_llm.generation.session import ChatSession, WhenFull
from mobile_llm.tasks.text_generation import ChatModel

Write = Callable[[str], object]


@dataclass
class Talk:
    """A session that can be begun anew, and what was said in it."""

    model: ChatModel
    system: str | None
    sampler: Sampler
    seed: int
    when_full: WhenFull
    max_tokens: int
    stop: tuple[str, ...]
    session: ChatSession = field(init=False)
    said: list[tuple[str, Answer]] = field(init=False)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget everything but the system's message."""
        self.session = self.model.session(self.system, (), self.sampler, self.seed, self.when_full)
        self.said = []

    def say(self, text: str, write: Write) -> Answer:
        """The answer, each piece of which is written as it comes."""
        stream = self.session.stream(text, self.max_tokens, self.stop)
        for piece in stream:
            write(piece)
        self.said.append((text, stream.answer))
        return stream.answer

    def document(self) -> dict[str, Any]:
        """The transcript with its figures, as JSON data."""
        answers = [
            {"message": text, "answer": answer.text, "finish": answer.finish, **asdict(answer.stats)}
            for text, answer in self.said
        ]
        settings = {"sampler": asdict(self.sampler), "seed": self.seed, "when_full": self.when_full}
        return {"artifact": self.model.engine.artifact_id, "system": self.system, **settings, "turns": answers}


def obey(talk: Talk, line: str, write: Write) -> Answer | None:
    """Answer a line, or do what it says where it is a command such as `/undo`; `//` begins a message with a slash.
    Gives the answer where there is one. Raises EOFError where the conversation is to end, InvalidInput for an unknown
    command, and what these raise."""
    if line.startswith("/") and not line.startswith("//"):
        return _command(talk, line, write)
    if not line.strip():
        return None
    answer = talk.say(line.removeprefix("/"), write)
    write("\n")
    return answer


def _command(talk: Talk, line: str, write: Write) -> Answer | None:
    name, _, rest = line[1:].partition(" ")
    if name not in COMMANDS:
        raise InvalidInput(f"there is no /{name}; /help lists what there is, and // begins a message with a slash")
    return COMMANDS[name][1](talk, rest.strip(), write)


def _help(talk: Talk, rest: str, write: Write) -> None:
    for name, (text, _) in COMMANDS.items():
        write(f"/{name:<8}{text}\n")


def _system(talk: Talk, rest: str, write: Write) -> None:
    talk.system = rest or None
    talk.begin()


def _clear(talk: Talk, rest: str, write: Write) -> None:
    talk.begin()


def _undo(talk: Talk, rest: str, write: Write) -> None:
    talk.session.undo()
    talk.said.pop()


def _retry(talk: Talk, rest: str, write: Write) -> Answer | None:
    text = talk.said[-1][0] if talk.said else ""
    _undo(talk, rest, write)
    return obey(talk, f"/{text}" if text.startswith("/") else text, write)


def _save(talk: Talk, rest: str, write: Write) -> None:
    if not rest:
        raise InvalidInput("say where to: /save FILE")
    Path(rest).write_text(json.dumps(talk.document(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _stats(talk: Talk, rest: str, write: Write) -> None:
    for text, answer in talk.said:
        write(f"{figures(answer.stats, answer.finish)}  {text[:40]}\n")


def _exit(talk: Talk, rest: str, write: Write) -> None:
    raise EOFError


COMMANDS: Mapping[str, tuple[str, Callable[[Talk, str, Write], Answer | None]]] = {
    "help": ("lists the commands", _help),
    "system": ("TEXT begins anew, with this message of the system; without TEXT with none", _system),
    "clear": ("begins anew", _clear),
    "undo": ("forgets the last turn", _undo),
    "retry": ("answers the last message again", _retry),
    "stats": ("the figures of every answer", _stats),
    "save": ("FILE writes the conversation and its figures as JSON", _save),
    "exit": ("leaves, as Ctrl-D does", _exit),
}


def figures(stats: Stats, finish: str) -> str:
    """A line about an answer."""
    rate = f", {stats.decode_rate:.1f} tokens/s" if stats.decode_rate else ""
    prompt = f"{stats.prompt_tokens} tokens of prompt, {stats.cached_tokens} read before"
    return f"{stats.answer_tokens} tokens, first after {stats.first_token_seconds:.2f} s{rate}; {prompt}; {finish}"
