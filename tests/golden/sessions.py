"""Conversations over a model that is a table, and what its decoder was asked to do."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobile_llm.bundle import Bundle
from mobile_llm.errors import Cancelled, ContextFull, InvalidInput
from mobile_llm.generation.engine import DecoderEngine
from mobile_llm.generation.session import ChatSession, WhenFull
from mobile_llm.tasks.text_generation import ChatModel

from ..mobile_llm.conftest import TEMPLATE, TableDecoder, write_manifest
from .inputs import FOLDER, tokenizer

Step = dict[str, Any]
_TABLE = {"hello": "Hello! 你好 👋🏽", "count": "one, two, three, four"}


class Recorder(TableDecoder):
    """A table that keeps what it was asked to do."""

    def __init__(self, context: int) -> None:
        super().__init__(tokenizer("byte_level"), context)
        self.answers = {asked: tokenizer("byte_level").encode(answer).ids for asked, answer in _TABLE.items()}
        self.did: list[dict[str, Any]] = []

    def append(self, ids: Sequence[int]) -> np.ndarray:
        self.did.append({"append": list(ids)})
        return super().append(ids)

    def rewind(self, position: int) -> None:
        if position < self.position:
            self.did.append({"rewind": position})
        super().rewind(position)


def transcripts() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        _save(Path(folder))
        cases = [_transcript(Path(folder), *case) for case in _CASES]
    return {
        "description": """
            Sessions of a model that is a table: inputs/byte_level.json, the template `template`, the stop token <eos>.
            Its logits (330) are 0 but for one 10. Let A be the last <|assistant|> among the ids in the cache, U the
            last <|user|> before it: the message is what stands between, without the <eos> before A, as text; the answer
            is the ids of its entry in `table`, or of the message itself where it has none, then <eos>; with n ids after
            A the 10 is at the answer's n-th id (from 0), at its last one beyond. Without A all are 0. `steps` are calls
            in turn, each with what came of it: `text`, `finish`, `tokens` of an answer, or `error`, the name in the
            taxonomy; `messages` is the conversation after it. `did` is what the decoder was asked to do meanwhile:
            `append` some ids, `rewind` to a position (only where that forgets something). Prompts of more than 256 new
            tokens are appended in pieces of 256. A `cancel` is of a stream of which `after` pieces of text were read.
        """,
        "template": TEMPLATE,
        "table": _TABLE,
        "cases": cases,
    }


def _save(folder: Path) -> None:
    shutil.copy(FOLDER / "byte_level.json", folder / "tokenizer.json")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    (folder / "model.onnx").write_bytes(b"a table")
    write_manifest(folder)


def _transcript(folder: Path, name: str, context: int, when_full: WhenFull, steps: list[Step]) -> dict[str, Any]:
    bundle, decoder = Bundle.open(folder), Recorder(context)
    engine = DecoderEngine(bundle, "onnx/fp32", bundle.manifest.artifacts["onnx/fp32"], decoder)
    with ChatModel(engine) as model:
        session = model.session(system="be nice", when_full=when_full)
        done = [_step(session, decoder, step) for step in steps]
    return {"name": name, "system": "be nice", "context": context, "when_full": when_full, "steps": done}


def _step(session: ChatSession, decoder: Recorder, step: Step) -> dict[str, Any]:
    decoder.did = []
    try:
        found = _CALLS[step["call"]](session, step)
    except (Cancelled, ContextFull, InvalidInput) as error:
        found = {"error": type(error).__name__}
    return {**step, **found, "messages": list(session.messages), "did": decoder.did}


def _respond(session: ChatSession, step: Step) -> dict[str, Any]:
    answer = session.respond(step["said"], step.get("max_tokens", 256), step.get("stop", ()))
    return {"text": answer.text, "finish": answer.finish, "tokens": list(answer.tokens)}


def _cancel(session: ChatSession, step: Step) -> dict[str, Any]:
    stream = session.stream(step["said"])
    pieces = [next(stream) for _ in range(step["after"])]
    session.cancel()
    return {"pieces": pieces}


def _prefill(session: ChatSession, step: Step) -> dict[str, Any]:
    return {"taken": session.prefill(step["said"])}


def _undo(session: ChatSession, step: Step) -> dict[str, Any]:
    session.undo()
    return {}


_CALLS: dict[str, Callable[[ChatSession, Step], dict[str, Any]]] = {
    "respond": _respond,
    "cancel": _cancel,
    "prefill": _prefill,
    "undo": _undo,
}


def _said(said: str, **more: Any) -> Step:
    return {"call": "respond", "said": said, **more}


_CASES: tuple[tuple[str, int, WhenFull, list[Step]], ...] = (
    ("turns read their new tokens only", 1024, "error", [_said("hello"), _said("count"), _said("你好")]),
    ("an answer that is cut", 1024, "error", [_said("count", max_tokens=3), _said("hello")]),
    ("a stop string", 1024, "error", [_said("count", stop=["three"]), _said("hello")]),
    (
        "cancel leaves nothing",
        1024,
        "error",
        [_said("hello"), {"call": "cancel", "said": "count", "after": 2}, _said("count")],
    ),
    ("undo", 1024, "error", [_said("hello"), _said("count"), {"call": "undo"}, _said("hello")]),
    (
        "prefill while the user types",
        1024,
        "error",
        [{"call": "prefill", "said": "the quick "}, _said("the quick brown fox")],
    ),
    ("a context that is full", 40, "error", [_said("hello"), _said("count"), _said("hello")]),
    (
        "the oldest turns are dropped",
        80,
        "drop_oldest",
        [_said(word) for word in ("hello", "count", "a", "b", "hello")],
    ),
)
