"""`mobile_llm.serving` over a real socket: who may ask, what is refused with which status, and that it lives on."""

from __future__ import annotations

import base64
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mobile_llm
from mobile_llm.errors import InvalidInput, InvalidSpec, WrongTask

from .conftest import Chat
from .served import CHAT, Served, open_request, serving

from mobile_llm.serving.app import make_app  # isort: skip - after served, which skips without starlette
from mobile_llm.serving.settings import Settings, read_key  # isort: skip

HELLO = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def served(chat: Chat) -> Iterator[Served]:
    with serving(chat.model, Settings(port=0, body_limit=100_000, queue=2)) as server:
        yield server


def test_an_answer_and_its_figures(served: Served, chat: Chat) -> None:
    status, headers, answer = served.say("hello", temperature=0)
    assert (status, answer["object"], answer["model"]) == (200, "chat.completion", chat.bundle.name)
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": "hello", "refusal": None}
    assert choice["finish_reason"] == "stop"
    prompt, written = answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]
    assert (written, answer["usage"]["total_tokens"]) == (len(chat.ids("hello")), prompt + written)
    assert headers["x-request-id"].startswith("req_")
    again = served.say("hello")[2]
    assert again["usage"]["prompt_tokens_details"] == {"cached_tokens": prompt - 1}
    assert again["system_fingerprint"] == answer["system_fingerprint"]
    assert served.metric('mobile_llm_requests_total{route="/v1/chat/completions",status="200"}') == 2
    assert served.metric('mobile_llm_tokens_total{kind="answer"}') == 2 * written
    assert served.metric("mobile_llm_first_token_seconds_count") == 2
    assert served.metric('mobile_llm_first_token_seconds_bucket{le="+Inf"}') == 2
    assert served.metric("process_resident_memory_bytes") > 1e6


REFUSED: list[tuple[dict[str, Any], int, str | None, str]] = [
    ({"n": 2}, 400, "n", "n can only be 1 here"),
    ({"logprobs": True}, 400, "logprobs", "can only be False"),
    ({"logit_bias": {"5": 1}}, 400, "logit_bias", "can only be {}"),
    ({"frequency_penalty": 0.5}, 400, "frequency_penalty", "can only be 0"),
    ({"reasoning_effort": "low"}, 400, "reasoning_effort", "is not supported here and would change the answer"),
    ({"temperature": "hot"}, 400, "temperature", "temperature is a number, not a text"),
    ({"temperature": True}, 400, "temperature", "temperature is a number, not true or false"),
    ({"temperature": -1}, 400, None, "temperature is -1.0; it lies between 0 and 100"),
    ({"max_tokens": 0}, 400, None, "max_tokens is 0"),
    ({"max_completion_tokens": 0}, 400, None, "max_tokens is 0"),
    ({"stop": [1]}, 400, "stop", "stop is a text or a list of texts"),
    ({"stop": ""}, 400, None, "a stop string is empty"),
    ({"messages": []}, 400, "messages", "has no message"),
    ({"messages": ["hello"]}, 400, "messages[0]", "is a JSON object, not a text"),
    ({"messages": [{"role": "user"}]}, 400, "messages[0].content", "is missing"),
    ({"messages": [{"role": "king", "content": ""}]}, 400, None, "has the role 'king'"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        400,
        "messages[0].content[0].type",
        "is 'image_url'; this model takes parts with a text",
    ),
    ({"response_format": {"type": "xml"}}, 400, "response_format", "has the type"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {}}},
        400,
        "response_format.json_schema.schema",
        "",
    ),
    ({"tools": [{"type": "web_search"}]}, 400, "tools[0].type", 'is "function"'),
    ({"tools": [{"type": "function", "function": {"name": "go"}}]}, 400, None, "knows no tools"),
    ({"tool_choice": "required"}, 400, None, "there are no tools to call"),
    ({"model": "gpt-4"}, 404, None, "there is no model 'gpt-4' here"),
    ({"messages": [{"role": "user", "content": "z" * 9000}]}, 400, None, "and the context 1024"),
]


def test_what_cannot_be_answered_is_refused_by_its_name(served: Served) -> None:
    for more, status, param, sentence in REFUSED:
        for stream in (False, True):
            got, _, document = served.ask(CHAT, {**HELLO, **more, "stream": stream})
            assert (got, document.get("error", {}).get("param")) == (status, param), more
            assert sentence in document["error"]["message"]
    assert served.say("hello")[0] == 200


def test_codes_that_clients_look_for(served: Served) -> None:
    assert served.say("z" * 9000)[2]["error"]["code"] == "context_length_exceeded"
    assert served.say("hello", model="gpt-4")[2]["error"]["code"] == "model_not_found"


def test_a_malformed_body(served: Served) -> None:
    lone = b'{"messages": [{"role": "user", "content": "\\ud83d"}]}'
    for body in (b"", b"{", b"\xff", b"[" * 90_000, b'{"messages": NaN}', lone):
        status, _, document = served.ask(CHAT, body, "POST")
        assert (status, document["error"]["type"]) == (400, "invalid_request_error")
        assert "the body is no JSON that can be read" in document["error"]["message"]
    assert served.say("hello")[0] == 200


def test_a_client_that_is_still_sending_sees_why_it_is_refused(served: Served) -> None:
    large = {"messages": [{"role": "user", "content": "z" * 10_000_000}]}
    status, _, document = served.ask(CHAT, large)
    assert status == 413
    assert "more than the 100,000 bytes that are taken; send less" in document["error"]["message"]
    assert served.ask("/v1/none", large)[0] == 404
    assert served.ask(CHAT, large, content_type="text/plain")[0] == 415
    assert served.ask(CHAT, large, host="evil.example")[0] == 403
    assert served.say("hello")[0] == 200


def test_a_body_that_never_comes(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mobile_llm.serving.connection._BODY_SECONDS", 0.05)
    connection = socket.create_connection(("127.0.0.1", served.port))
    head = "Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 9"
    connection.sendall(f"POST {CHAT} HTTP/1.1\r\n{head}\r\n\r\n".encode())
    assert connection.recv(64).startswith(b"HTTP/1.1 408 ")
    connection.close()


def test_what_would_not_change_the_answer_is_ignored(served: Served) -> None:
    ignored = {
        "user": "me",
        "metadata": {"a": "b"},
        "store": False,
        "n": 1,
        "logit_bias": None,
        "parallel_tool_calls": True,
    }
    assert served.say("hello", **ignored, max_tokens=None)[2]["choices"][0]["message"]["content"] == "hello"
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    status, _, answer = served.ask(CHAT, {"messages": [{"role": "user", "content": parts}]})
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "hello")


def test_paths_and_methods_that_are_not_served(served: Served) -> None:
    for path, body, status in (("/v1/embeddings", {}, 404), (CHAT, None, 405), ("/", None, 404)):
        got, _, document = served.ask(path, body)
        assert got == status
        assert "served are /v1/chat/completions, /v1/completions" in document["error"]["message"]
    assert served.ask("/v1/models/other")[0] == 404


def test_pages_of_other_sites_are_kept_out(served: Served) -> None:
    """They can neither come under a name of their own, nor say that they send JSON without being asked about it."""
    for host in ("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "[::2]:80"):
        assert served.ask("/v1/models", host=host)[0] == 403
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1:8000", "[::1]:8000", "[::1]"):
        assert served.ask("/v1/models", host=host)[0] == 200
    assert served.ask(CHAT, HELLO, content_type="text/plain")[0] == 415
    status, headers, _ = served.ask(CHAT, method="OPTIONS", origin="https://evil.example")
    assert status == 405
    assert not any(name.lower().startswith("access-control") for name in headers)


def test_a_key(chat: Chat) -> None:
    with serving(chat.model, Settings(port=0, api_key="secret")) as served:
        for given in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": "secret"},
            {"authorization": "Bearer é"},
        ):
            status, headers, document = served.ask("/v1/models", **given)
            assert (status, document["error"]["code"]) == (401, "invalid_api_key")
            assert "x-request-id" in headers
            assert served.ask("/metrics", **given)[0] == 401
        assert served.ask("/v1/models", authorization="Bearer secret")[0] == 200


def test_others_are_served_with_a_key_only(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match=r"others can reach 0\.0\.0\.0, so it needs a key"):
        Settings("0.0.0.0")
    assert not Settings("0.0.0.0", api_key="k").loopback
    file = tmp_path / "key"
    file.write_text("from-file\n")
    variable = {"MOBILE_LLM_API_KEY": "from-variable"}
    assert (read_key(str(file), variable), read_key(None, variable), read_key(None, {})) == (
        "from-file",
        "from-variable",
        None,
    )
    for text in ("", "two words", "clé"):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(InvalidInput, match="is empty or not one word of ASCII"):
            read_key(str(file), {})
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_key(str(tmp_path / "none"), {})


def test_a_port_that_is_taken(served: Served) -> None:
    from mobile_llm.serving.listening import listen

    with pytest.raises(InvalidSpec, match="choose another --port"):
        listen(Settings(port=served.port))


def test_the_log_has_ids_and_nothing_of_what_was_said(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mobile_llm.serving"):
        assert served.ask(CHAT, HELLO, x_request_id="mine-7")[1]["x-request-id"] == "mine-7"
        assert served.ask(CHAT, HELLO, x_request_id="a b")[1]["x-request-id"] != "a b"
        served.ask("/secret%0apath")
        served.wait_for(lambda: len(caplog.messages) == 3)
    assert caplog.messages[0].startswith("mine-7 POST /v1/chat/completions 200 ")
    assert " GET other 404 " in caplog.messages[2]
    assert "hello" not in caplog.text


def test_what_nobody_expected_says_nothing_to_the_client(
    served: Served, chat: Chat, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise OSError("/home/me/weights is gone")

    chat.decoder.before_append = fail
    status, headers, document = served.say("hello")
    assert (status, document["error"]["type"]) == (500, "server_error")
    assert "weights" not in json.dumps(document)
    assert f"{headers['x-request-id']} failed" in caplog.text
    chat.decoder.before_append = lambda: None
    assert served.say("hello")[0] == 200


def test_a_full_queue_refuses_and_forgets_nobody(served: Served, chat: Chat) -> None:
    go = threading.Event()
    chat.decoder.before_append = lambda: go.wait(10)
    answers: dict[str, str] = {}

    def ask(text: str) -> None:
        answers[text] = served.say(text)[2]["choices"][0]["message"]["content"]

    threads = []
    for number, text in enumerate(("one", "two", "three")):
        threads.append(threading.Thread(target=ask, args=(text,)))
        threads[-1].start()
        served.wait_for(lambda: len(served.app.state.server.desk._jobs) == number + 1)  # noqa: B023
    status, headers, document = served.say("four")
    assert (status, headers["retry-after"], document["error"]["code"]) == (429, "2", "rate_limit_exceeded")
    assert "one request is being answered and 2 wait" in document["error"]["message"]
    assert served.metric("mobile_llm_waiting_requests") == 2
    go.set()
    for thread in threads:
        thread.join()
    assert answers == {"one": "one", "two": "two", "three": "three"}


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_has_its_turn_undone(stream: bool, served: Served, chat: Chat) -> None:
    chat.decoder.before_append = lambda: time.sleep(0.005)
    before = chat.model.engine.tokens
    gone = open_request(served.port, {"messages": [{"role": "user", "content": "z" * 400}], "stream": stream})
    served.wait_for(lambda: chat.decoder.taken[-1:] == [1])
    gone.close()
    served.wait_for(lambda: served.metric('mobile_llm_requests_total{route="/v1/chat/completions",status="499"}') == 1)
    served.wait_for(lambda: chat.model.engine.tokens == before)
    assert len(chat.decoder.taken) < 300
    assert served.say("hello")[2]["choices"][0]["message"]["content"] == "hello"


def test_a_client_that_leaves_the_queue_is_forgotten(served: Served, chat: Chat) -> None:
    go = threading.Event()
    chat.decoder.before_append = lambda: go.wait(10)
    first = threading.Thread(target=served.say, args=("one",))
    first.start()
    served.wait_for(lambda: len(chat.model.engine.tokens) == 0 and len(served.app.state.server.desk._jobs) == 1)
    waiting = open_request(served.port, {"messages": [{"role": "user", "content": "two"}]})
    served.wait_for(lambda: served.metric("mobile_llm_waiting_requests") == 1)
    waiting.close()
    served.wait_for(lambda: served.metric("mobile_llm_waiting_requests") == 0)
    go.set()
    first.join()


def test_stopping_the_server_tells_those_who_wait(chat: Chat) -> None:
    chat.decoder.before_append = lambda: time.sleep(0.005)
    answers: list[Any] = []
    with serving(chat.model, Settings(port=0)) as served:

        def ask(stream: bool) -> None:
            answers.append(served.say("z" * 400, stream=stream))

        threads = [threading.Thread(target=ask, args=(stream,)) for stream in (True, False)]
        for thread in threads:
            thread.start()
        served.wait_for(lambda: len(chat.decoder.taken) > 9 and served.metric("mobile_llm_waiting_requests") == 1)
    for thread in threads:
        thread.join()
    assert len(chat.decoder.taken) < 400
    ended = {status: document for status, _, document in answers}
    assert sorted(ended) in ([200, 503], [503])  # whichever came first had begun to stream, or to write
    assert all("was cancelled" in str(document) for document in ended.values())


def test_a_slow_reader_holds_up_nobody(served: Served, chat: Chat) -> None:
    slow = open_request(served.port, {"messages": [{"role": "user", "content": "z" * 480}], "stream": True}, 1024)
    for text in ("one", "two", "three"):
        assert served.say(text)[2]["choices"][0]["message"]["content"] == text
    received = b""
    while not received.endswith(b"0\r\n\r\n"):
        received += slow.recv(4096)
    slow.close()
    events = [line[6:] for line in received.decode().splitlines() if line.startswith("data: {")]
    pieces = [choice["delta"].get("content", "") for event in events for choice in json.loads(event)["choices"]]
    assert "".join(pieces) == "z" * 480
    assert b"data: [DONE]" in received


def test_an_error_in_the_middle_of_a_stream_ends_it_with_the_error(served: Served, chat: Chat) -> None:
    def fail() -> None:
        if chat.decoder.taken[-1:] == [1]:
            raise InvalidSpec("it cannot go on")

    chat.decoder.before_append = fail
    status, _, text = served.say("hello", stream=True)
    assert status == 200
    *_, last = [line for line in text.splitlines() if line]
    assert json.loads(last.removeprefix("data: "))["error"]["message"] == "it cannot go on"
    assert "[DONE]" not in text


def test_text_is_continued(served: Served) -> None:
    status, _, answer = served.ask("/v1/completions", {"prompt": "abc", "temperature": 0})
    assert (status, answer["object"], answer["choices"][0]["finish_reason"]) == (200, "text_completion", "length")
    assert answer["usage"]["completion_tokens"] == 16
    for body, param in (
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
    ):
        assert served.ask("/v1/completions", body)[2]["error"]["param"] == param


def test_embeddings(embedder_bundle: Path) -> None:
    with mobile_llm_opened(embedder_bundle) as embedder, serving(embedder) as served:
        texts = ["a good film", "bad"]
        status, _, document = served.ask("/v1/embeddings", {"input": texts, "model": embedder_bundle.name})
        assert (status, [row["index"] for row in document["data"]]) == (200, [0, 1])
        rows = np.array([row["embedding"] for row in document["data"]], np.float32)
        np.testing.assert_array_equal(rows, embedder.embed(texts))
        assert document["usage"]["prompt_tokens"] == sum(embedder.count_tokens(text) for text in texts) > 4
        coded = served.ask("/v1/embeddings", {"input": "bad", "encoding_format": "base64"})[2]["data"][0]["embedding"]
        np.testing.assert_array_equal(np.frombuffer(base64.b64decode(coded), "<f4"), rows[1])
        for body, param in (
            ({"input": "a", "dimensions": 3}, "dimensions"),
            ({"input": [[1, 2]]}, "input"),
            ({"input": []}, "input"),
            ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
            ({"input": "a", "prompt_name": "none"}, None),
        ):
            status, _, refused = served.ask("/v1/embeddings", body)
            assert (status, refused["error"]["param"]) == (400, param)
        assert served.ask(CHAT, HELLO)[0] == 404


def mobile_llm_opened(bundle: Path) -> Any:
    from contextlib import closing

    return closing(mobile_llm.load(bundle, "onnx/fp32", threads=1))


def test_other_tasks_are_refused(classifier_bundle: Path) -> None:
    with (
        mobile_llm_opened(classifier_bundle) as classifier,
        pytest.raises(WrongTask, match="served are text-generation"),
    ):
        make_app(classifier, Settings())
