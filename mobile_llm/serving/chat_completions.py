"""POST /v1/chat/completions. Where tools may be called the text is held back until it is known to be no call."""

from __future__ import annotations

import json
from dataclasses import dataclass

from starlette.requests import Request

from mobile_llm.generation.answer import Answer
from mobile_llm.generation.stream import Stream
from mobile_llm.generation.tools import NONE, ToolCall
from mobile_llm.serving.connection import read_json
from mobile_llm.serving.replies import Json, Reply, finish_reason
from mobile_llm.serving.schemas import ChatBody, read_chat
from mobile_llm.serving.server import Server


async def chat_completions(request: Request) -> Reply:
    server: Server = request.app.state.server
    settings = server.settings
    body = read_chat(await read_json(request, settings.body_limit), server.model.sampler, settings.describe_tools)
    server.check_model(body.writing.model)
    shape = ChatShape(held=body.tools is not None and body.tools.choice != NONE)
    return Reply(server, body.writing, shape, lambda: _begin(server, body))


def _begin(server: Server, body: ChatBody) -> Stream:
    writing = body.writing
    most = server.model.engine.context if writing.max_tokens is None else writing.max_tokens
    stream: Stream = server.model.stream(
        body.messages, most, writing.sampler, writing.seed, writing.stop, body.schema, body.tools
    )
    return stream


@dataclass(frozen=True)
class ChatShape:
    """`held` keeps pieces back until the answer is whole."""

    held: bool
    prefix = "chatcmpl"
    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"

    def whole(self, answer: Answer) -> Json:
        calls = [_call(call) for call in answer.tool_calls]
        message = {"role": "assistant", "content": answer.text if answer.text or not calls else None, "refusal": None}
        finish = finish_reason(answer)
        return {"index": 0, "message": message | ({"tool_calls": calls} if calls else {}), **_end(finish)}

    def opening(self) -> list[Json]:
        return [_delta(role="assistant", content="")]

    def piece(self, text: str) -> list[Json]:
        return [] if self.held else [_delta(content=text)]

    def ending(self, answer: Answer) -> list[Json]:
        calls = [{"index": n, **_call(call)} for n, call in enumerate(answer.tool_calls)]
        text = [_delta(content=answer.text)] if self.held and answer.text else []
        made = [_delta(tool_calls=calls)] if calls else []
        return [*text, *made, {**_delta(), **_end(finish_reason(answer))}]


def _delta(**parts: object) -> Json:
    return {"index": 0, "delta": parts, **_end(None)}


def _end(reason: str | None) -> Json:
    return {"logprobs": None, "finish_reason": reason}


def _call(call: ToolCall) -> Json:
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}
