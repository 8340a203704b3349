"""POST /v1/completions: what follows a text, without the chat template."""

from __future__ import annotations

from starlette.requests import Request

from mobile_llm.generation.answer import Answer
from mobile_llm.generation.stream import Stream
from mobile_llm.serving.connection import read_json
from mobile_llm.serving.replies import Json, Reply, finish_reason
from mobile_llm.serving.schemas import CompletionBody, read_completion
from mobile_llm.serving.server import Server


async def completions(request: Request) -> Reply:
    server: Server = request.app.state.server
    body = read_completion(await read_json(request, server.settings.body_limit), server.model.sampler)
    server.check_model(body.writing.model)
    return Reply(server, body.writing, TextShape(), lambda: _begin(server, body))


def _begin(server: Server, body: CompletionBody) -> Stream:
    writing = body.writing
    stream: Stream = server.model.stream(body.prompt, writing.max_tokens, writing.sampler, writing.seed, writing.stop)
    return stream


class TextShape:
    """The same object for a whole answer and for a piece."""

    prefix = "cmpl"
    kind = "text_completion"
    chunk_kind = "text_completion"

    def whole(self, answer: Answer) -> Json:
        return _choice(answer.text, finish_reason(answer))

    def opening(self) -> list[Json]:
        return []

    def piece(self, text: str) -> list[Json]:
        return [_choice(text, None)]

    def ending(self, answer: Answer) -> list[Json]:
        return [_choice("", finish_reason(answer))]


def _choice(text: str, finish: str | None) -> Json:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
