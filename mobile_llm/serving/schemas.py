"""The bodies of requests, checked. A field that would change the answer and is not supported is refused by its name;
one that is about accounts, storage or caches is ignored."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mobile_llm.generation.json_schema import ANY_OBJECT
from mobile_llm.generation.sampler import Sampler
from mobile_llm.generation.tools import AUTO, NONE, Tools
from mobile_llm.serving.fields import Fields
from mobile_llm.serving.messages import read_messages

_SAMPLING = ("temperature", "top_p", "min_p", "repetition_penalty")  # the last two, and top_k, are not OpenAI's
_WRITING = {"model", "stream", "stream_options", "max_tokens", "seed", "stop", "top_k", *_SAMPLING}
_CHAT = {*_WRITING, "messages", "max_completion_tokens", "response_format", "tools", "tool_choice"}
_NO_EFFECT = {
    *("user", "safety_identifier", "metadata", "store", "service_tier", "prediction"),
    *("prompt_cache_key", "prompt_cache_retention"),
}
_ONE_ANSWER = {"n": 1, "logit_bias": {}, "frequency_penalty": 0, "presence_penalty": 0}
_CHAT_ONLY = {**_ONE_ANSWER, "logprobs": False, "top_logprobs": 0, "parallel_tool_calls": True, "modalities": ["text"]}
_COMPLETION_ONLY = {**_ONE_ANSWER, "best_of": 1, "echo": False}
_COMPLETION_TOKENS = 16  # where nothing is asked for: OpenAI's default


@dataclass(frozen=True)
class Writing:
    """How an answer is written. `max_tokens` None is as many as fit. `usage` adds the figures to a stream."""

    model: str | None
    stream: bool
    usage: bool
    max_tokens: int | None
    sampler: Sampler
    seed: int
    stop: tuple[str, ...]


@dataclass(frozen=True)
class ChatBody:
    writing: Writing
    messages: tuple[Mapping[str, Any], ...]
    schema: Mapping[str, Any] | None
    tools: Tools | None


@dataclass(frozen=True)
class CompletionBody:
    writing: Writing
    prompt: str


@dataclass(frozen=True)
class EmbeddingBody:
    """`prompt_name` is not OpenAI's: one of the model's own prompts, which is put before each text."""

    model: str | None
    texts: tuple[str, ...]
    base64: bool
    prompt_name: str | None


def read_chat(body: Any, own: Sampler, describe_tools: bool) -> ChatBody:
    """`own` is how the model chooses tokens where nothing is asked for. Raises BadField, InvalidSpec, InvalidInput."""
    fields = Fields(body)
    fields.refuse_others(_CHAT, _NO_EFFECT, _CHAT_ONLY)
    most = fields.integer("max_tokens" if fields.any("max_completion_tokens") is None else "max_completion_tokens")
    return ChatBody(_writing(fields, own, most), read_messages(fields), _schema(fields), _tools(fields, describe_tools))


def read_completion(body: Any, own: Sampler) -> CompletionBody:
    """Raises BadField, InvalidSpec."""
    fields = Fields(body)
    fields.refuse_others({*_WRITING, "prompt"}, _NO_EFFECT, _COMPLETION_ONLY)
    prompts = fields.texts("prompt")
    if len(prompts) != 1:
        raise fields.bad("prompt", f"is one text, not {len(prompts)}; send a request for each")
    most = fields.integer("max_tokens")
    return CompletionBody(_writing(fields, own, _COMPLETION_TOKENS if most is None else most), prompts[0])


def read_embedding(body: Any) -> EmbeddingBody:
    """Raises BadField."""
    fields = Fields(body)
    fields.refuse_others({"model", "input", "encoding_format", "prompt_name"}, _NO_EFFECT)
    texts = tuple(fields.texts("input"))
    if not texts:
        raise fields.bad("input", "has no text; send at least one")
    coding = fields.text("encoding_format") or "float"
    if coding not in ("float", "base64"):
        raise fields.bad("encoding_format", f'is "float" or "base64", not {coding!r}')
    return EmbeddingBody(fields.text("model"), texts, coding == "base64", fields.text("prompt_name"))


def _writing(fields: Fields, own: Sampler, most: int | None) -> Writing:
    seed = fields.integer("seed")
    options = fields.inner("stream_options")
    return Writing(
        fields.text("model"),
        fields.flag("stream"),
        options.flag("include_usage") if options else False,
        most,
        _sampler(fields, own),
        secrets.randbits(32) if seed is None else seed,
        tuple(fields.texts("stop")),
    )


def _sampler(fields: Fields, own: Sampler) -> Sampler:
    asked: dict[str, Any] = {name: fields.number(name) for name in _SAMPLING}
    asked["top_k"] = fields.integer("top_k")
    return replace(own, **{name: value for name, value in asked.items() if value is not None})


def _schema(fields: Fields) -> Mapping[str, Any] | None:
    wanted = fields.inner("response_format")
    kind = wanted.text("type") if wanted else "text"
    if wanted is None or kind == "text":
        return None
    if kind == "json_object":
        return ANY_OBJECT
    described = wanted.inner("json_schema")
    if kind != "json_schema" or described is None:
        raise fields.bad(
            "response_format", 'has the type "text", "json_object" or "json_schema", the last one with a json_schema'
        )
    schema = described.any("schema")
    if not isinstance(schema, dict):
        raise described.bad("schema", "is missing or no JSON schema; send an object")
    return schema


def _tools(fields: Fields, describe: bool) -> Tools | None:
    definitions, choice = fields.items("tools"), fields.any("tool_choice") or AUTO
    if not definitions and choice in (AUTO, NONE):
        return None
    for tool in fields.objects("tools"):
        if tool.text("type") != "function":
            raise tool.bad("type", 'is "function"; other tools are not supported')
    return Tools.read(definitions, choice, describe)
