"""The server as OpenAI's own Python client sees it: streams, tools, JSON schemas, cancelling, eight clients at once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")
import openai

from .conftest import TEMPLATE, Chat, open_chat, write_manifest
from .served import Served, serving

from mobile_llm.serving.settings import Settings  # isort: skip - after served, which skips without starlette

_CALL = '<tool_call>\n{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>'
_CALLING = "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}" + TEMPLATE.replace(
    "{{ message.content }}",
    "{{ message.content }}{% for c in message.tool_calls or [] %}" + _CALL + "{% endfor %}",
)
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 9}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
AGE = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["age"],
    "additionalProperties": False,
}


@pytest.fixture
def calling(table_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chat:
    """A model whose template knows tools, in Hermes' syntax."""
    bundle = shutil.copytree(table_bundle, tmp_path / "table")
    (bundle / "chat_template.jinja").write_text(_CALLING, encoding="utf-8")
    write_manifest(bundle)
    return open_chat(bundle, monkeypatch, 4096)


@pytest.fixture
def served(calling: Chat) -> Iterator[Served]:
    with serving(calling.model, Settings(port=0, queue=7)) as server:
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[Any]:
    with openai.OpenAI(base_url=served.url, api_key="any", max_retries=0) as made:
        yield made


def _user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def _streamed(client: Any, text: str, **more: Any) -> list[Any]:
    return list(client.chat.completions.create(model="table", messages=_user(text), stream=True, **more))


def _text(chunks: list[Any]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def test_it_streams(client: Any) -> None:
    said = "你好 👋🏽 a\u2028b"
    chunks = _streamed(client, said, stream_options={"include_usage": True})
    assert _text(chunks) == said
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[-3:-1]] == [None, "stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == chunks[-1].usage.prompt_tokens + chunks[-1].usage.completion_tokens
    assert len({chunk.id for chunk in chunks}) == 1
    assert [model.id for model in client.models.list()] == ["table"]
    assert client.models.retrieve("table").id == "table"


def test_stop_strings_and_limits(client: Any) -> None:
    assert _text(_streamed(client, "one two three", stop=" three")) == "one two"
    cut = client.chat.completions.create(model="table", messages=_user("one two three"), max_completion_tokens=2)
    assert (cut.choices[0].finish_reason, cut.usage.completion_tokens) == ("length", 2)
    pieces = list(client.completions.create(model="table", prompt="abc", stream=True, max_tokens=3))
    assert pieces[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": "weather"}}])
def test_tools(choice: Any, client: Any, calling: Chat) -> None:
    if choice != "auto":
        pytest.importorskip("llguidance")
    calling.decoder.answers["Köln?"] = calling.ids(
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'
    )
    asked = {"tools": [WEATHER], "tool_choice": choice, "temperature": 0, "max_tokens": 200}
    whole = client.chat.completions.create(model="table", messages=_user("Köln?"), **asked).choices[0]
    chunks = _streamed(client, "Köln?", **asked)
    (delta,) = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or []]
    assert _text(chunks) == ""
    assert (whole.message.content, whole.finish_reason, chunks[-1].choices[0].finish_reason) == (
        None,
        "tool_calls",
        "tool_calls",
    )
    for call in (delta, whole.message.tool_calls[0]):
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Köln"})
    result = {"role": "tool", "tool_call_id": delta.id, "content": "rain"}
    turns = [*_user("Köln?"), whole.message.model_dump(), result]
    assert client.chat.completions.create(model="table", messages=turns, tools=[WEATHER]).choices


def test_words_where_a_call_was_possible(client: Any) -> None:
    chunks = _streamed(client, "hello", tools=[WEATHER])
    assert (_text(chunks), chunks[-1].choices[0].finish_reason) == ("hello", "stop")
    assert _text(_streamed(client, "hello", tools=[WEATHER], tool_choice="none")) == "hello"


def test_a_schema(client: Any, calling: Chat) -> None:
    pytest.importorskip("llguidance")
    calling.decoder.answers["how old"] = calling.ids('{"age": 7}')
    schema = {"type": "json_schema", "json_schema": {"name": "age", "schema": AGE, "strict": True}}
    chunks = _streamed(client, "how old", response_format=schema, temperature=0)
    assert json.loads(_text(chunks)) == {"age": 7}
    calling.decoder.answers["how old"] = calling.ids("seven")
    assert 1 <= json.loads(_text(_streamed(client, "how old", response_format=schema, temperature=0)))["age"] <= 9
    with pytest.raises(openai.BadRequestError, match="no answer can meet this schema"):
        _streamed(
            client,
            "how old",
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {**AGE, "maxProperties": 0}},
            },
        )
    assert _text(_streamed(client, "hello")) == "hello"


def test_errors_are_the_clients_own(client: Any, served: Served) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-4' here"):
        client.chat.completions.create(model="gpt-4", messages=_user("hello"))
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="table", messages=_user("z" * 20_000), stream=True)
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(openai.APIStatusError) as large:
        client.chat.completions.create(model="table", messages=_user("z" * 10_000_000))
    assert large.value.status_code == 413


def test_leaving_a_stream_cancels_it(client: Any, calling: Chat, served: Served) -> None:
    calling.decoder.before_append = lambda: time.sleep(0.002)
    before = calling.model.engine.tokens
    with client.chat.completions.create(model="table", messages=_user("z" * 900), stream=True) as stream:
        for _ in range(3):
            next(iter(stream))
    served.wait_for(lambda: calling.model.engine.tokens == before)
    assert len(calling.decoder.taken) < 900
    assert _text(_streamed(client, "hello")) == "hello"


def test_eight_clients_at_once_are_never_mixed(served: Served, calling: Chat) -> None:
    start = threading.Barrier(8)

    def ask(number: int) -> list[str]:
        with openai.OpenAI(base_url=served.url, api_key="any", max_retries=0) as client:
            start.wait()
            return [_text(_streamed(client, f"client {number} turn {turn} " * 9)) for turn in range(3)]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert answers == [[f"client {number} turn {turn} " * 9 for turn in range(3)] for number in range(8)]


def test_more_than_the_queue_holds_are_refused(calling: Chat) -> None:
    calling.decoder.before_append = lambda: time.sleep(0.002)
    with serving(calling.model, Settings(port=0, queue=2)) as served, ThreadPoolExecutor(8) as pool:

        def ask(number: int) -> str | int:
            with openai.OpenAI(base_url=served.url, api_key="any", max_retries=0) as client:
                try:
                    return _text(_streamed(client, f"client {number} " * 9))
                except openai.RateLimitError as error:
                    return error.status_code

        answers = list(pool.map(ask, range(8)))
    given = [answer for number, answer in enumerate(answers) if answer == f"client {number} " * 9]
    assert len(given) >= 3
    assert len(given) + answers.count(429) == 8
    assert 429 in answers


def test_the_command(embedder_bundle: Path) -> None:
    """In a process of its own: it says where it listens, the client embeds, Ctrl-C ends it."""
    code = "import sys; from mobile_llm.commands import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "serve", str(embedder_bundle), "--port", "0", "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            name, _, url = process.stdout.readline().split(";")[0].split(" ")
            with openai.OpenAI(base_url=url, api_key="any") as client:
                rows = client.embeddings.create(model=name, input=["a good film", "bad"]).data
            process.send_signal(2)
            _, log = process.communicate(timeout=20)
        finally:
            process.kill()
    assert [len(row.embedding) for row in rows] == [32, 32]
    assert process.returncode == 130
    assert "POST /v1/embeddings 200" in log
