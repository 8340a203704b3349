"""Answers under a schema and forced calls, from a bundle whose model has random weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import exporters
import mobile_llm
from mobile_llm.commands import main
from mobile_llm.errors import InvalidInput, InvalidSpec, UnsupportedModel
from mobile_llm.generation.grammars import Regex
from mobile_llm.generation.sampler import Sampler
from mobile_llm.generation.tools import Tool, Tools, tool_message
from mobile_llm.tasks.text_generation import ChatModel

pytest.importorskip("llguidance")
jsonschema = pytest.importorskip("jsonschema")

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 130}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
TURNS = [{"role": "user", "content": "hi"}]
PING = Tool("ping", "Pings.", {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]})


@pytest.fixture(scope="module")
def model(decoder_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatModel]:
    """A Llama with room for 512 tokens, whose template knows no tools."""
    folder = tmp_path_factory.mktemp("structured")
    source = Path(shutil.copytree(decoder_folder("llama"), folder / "model"))
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    (source / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 512}), encoding="utf-8")
    made = exporters.export(source, "text-generation", folder / "bundle", formats=("onnx",), recipes=("fp32",))
    model = mobile_llm.load(made.bundle)
    yield model
    model.close()


def test_the_command_line_takes_a_schema(model: ChatModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(SCHEMA), encoding="utf-8")
    bundle = str(model.engine.bundle.folder)
    assert main(["run", bundle, "hi", "--schema", str(file), "--max-tokens", "120", "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["answers"]
    jsonschema.validate(json.loads(answer["answer"]), SCHEMA)
    file.write_text("{", encoding="utf-8")
    for path, sentence in (
        (file, "schema.json is not JSON"),
        (tmp_path / "missing.json", "missing.json cannot be read"),
    ):
        assert main(["run", bundle, "hi", "--schema", str(path)]) == 2
        assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("seed", range(5))
def test_an_answer_meets_its_schema(seed: int, model: ChatModel) -> None:
    answer = model.generate(TURNS, 120, Sampler(temperature=1.0), seed, schema=SCHEMA)
    assert answer.complete
    jsonschema.validate(json.loads(answer.text), SCHEMA)


def test_an_answer_that_is_cut_says_so(model: ChatModel) -> None:
    answer = model.generate(TURNS, 8, schema=SCHEMA)
    assert (answer.finish, answer.complete, len(answer.tokens)) == ("length", False, 8)


def test_an_answer_that_had_to_end_says_so(model: ChatModel) -> None:
    free = model.generate(TURNS, 60, schema={"type": "string"})
    assert (free.finish, free.complete) == ("length", True)
    assert isinstance(json.loads(free.text), str)
    assert model.generate(TURNS, 60, schema=Regex("yes")).finish == "stop"


def test_the_context_is_a_limit_too(model: ChatModel) -> None:
    answer = model.generate("x" * 480, 100, schema={"type": "string"})
    assert answer.complete
    assert len(answer.tokens) <= 512 - 480 + 1


def test_a_forced_call_and_its_result(model: ChatModel) -> None:
    tools = Tools((PING,), "required", describe=True)
    answer = model.generate(TURNS, 120, tools=tools)
    (call,) = answer.tool_calls
    assert (call.name, answer.text, answer.complete) == ("ping", "", True)
    jsonschema.validate(call.arguments, PING.parameters)
    turns = [*TURNS, answer.message(), tool_message(call, "pong")]
    assert model.generate(turns, 4, tools=Tools((PING,), describe=True)).tool_calls == ()


def test_what_cannot_be_is_refused(model: ChatModel) -> None:
    with pytest.raises(UnsupportedModel, match="chat template knows no tools"):
        model.generate(TURNS, tools=Tools((PING,)))
    with pytest.raises(InvalidInput, match="tools are part of a conversation"):
        model.generate("hi", tools=Tools((PING,), describe=True))
    with pytest.raises(InvalidSpec, match="cannot meet a schema and be a call too"):
        model.generate(TURNS, schema=SCHEMA, tools=Tools((PING,), "ping", describe=True))
    with pytest.raises(InvalidSpec, match="no answer can meet this schema"):
        model.generate(TURNS, schema={"enum": []})
    assert model.generate(TURNS, 4, tools=Tools((PING,), "none")) == model.generate(TURNS, 4)
