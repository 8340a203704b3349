"""Tools in conversations: definitions, messages, the syntax told from a template, calls read back and forced."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from mobile_llm.errors import InvalidInput, InvalidSpec, UnsupportedModel
from mobile_llm.generation.grammars import Grammars
from mobile_llm.generation.prompts import calls_of, prompt_of
from mobile_llm.generation.sampler import Sampler
from mobile_llm.generation.template import ChatTemplate
from mobile_llm.generation.tools import Tool, ToolCall, Tools, assistant_message, tool_message

_TURNS = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}"
    "{% for c in m.tool_calls or [] %}CALL{% endfor %}{% endfor %}[assistant]"
)
_TOOLS = "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}"


def _knowing(call: str) -> str:
    """A template that knows tools, and writes calls as `call` has it."""
    return _TOOLS + _TURNS.replace("CALL", call)


_CALL = '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
PLAIN = _TURNS.replace("CALL", "")
HERMES = _knowing(f"<tool_call>\n{_CALL}\n</tool_call>")
MISTRAL = _knowing(f"[TOOL_CALLS][{_CALL}]")
SPACED = _knowing(f"[TOOL_CALLS] [{_CALL}]")
LLAMA = '{% if tools %}Answer as {"name": a name, "parameters": its parameters}{% endif %}' + _knowing(
    _CALL.replace('arguments":', 'parameters":')
)
WEATHER = Tool(
    "weather",
    "The weather in a city.",
    {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 9}, "days": {"$ref": "#/$defs/days"}},
        "required": ["city", "days"],
        "additionalProperties": False,
        "$defs": {"days": {"type": "integer", "minimum": 1, "maximum": 9}},
    },
)
STOP = Tool("stop", "Stops.", {"type": "object", "properties": {}, "additionalProperties": False})
CALL = ToolCall("weather", {"city": "Köln", "days": 2}, "abc123def")


@pytest.mark.parametrize("source", [HERMES, MISTRAL, SPACED, LLAMA])
def test_a_call_that_the_template_writes_is_read_back(source: str) -> None:
    template = ChatTemplate(source)
    calls = calls_of(template, Tools((WEATHER, STOP)))
    assert calls is not None
    prompt = prompt_of(template, [{"role": "user", "content": "hi"}, assistant_message("", [CALL])], calls.tools)
    written = prompt.split("[assistant]")[1]
    text, made = calls.read(written)
    assert text == ""
    assert [(call.name, call.arguments) for call in made] == [("weather", {"city": "Köln", "days": 2})]
    assert made[0].id.isalnum()
    assert len(made[0].id) == 9


@pytest.mark.parametrize("source", [HERMES, MISTRAL, SPACED, LLAMA])
def test_a_template_gets_definitions_as_transformers_passes_them(source: str) -> None:
    prompt = prompt_of(ChatTemplate(source), [{"role": "user", "content": "hi"}], Tools((STOP,)))
    assert json.dumps({"type": "function", "function": {"name": "stop", **_of(STOP)}}) in prompt


def _of(tool: Tool) -> dict[str, Any]:
    return {"description": tool.description, "parameters": tool.parameters}


@pytest.mark.parametrize(
    ("written", "words", "names"),
    [
        ('Let me see. <tool_call>\n{"name": "stop", "arguments": {}}\n</tool_call>', "Let me see.", ["stop"]),
        (2 * '<tool_call>{"name": "stop", "arguments": {}}</tool_call>', "", ["stop", "stop"]),
        ('<tool_call>{"name": "stop", "arguments": {"a": "</tool_call>"}}', "", ["stop"]),
        ("no call", "no call", []),
        ('<tool_call>{"name": "go", "arguments": {}}', '<tool_call>{"name": "go", "arguments": {}}', []),
        ('<tool_call>{"name": "stop"}', '<tool_call>{"name": "stop"}', []),
        ('<tool_call>{"name": "stop", "argu', '<tool_call>{"name": "stop", "argu', []),
        ("<tool_call>[1]", "<tool_call>[1]", []),
    ],
)
def test_what_is_no_call_stays_words(written: str, words: str, names: list[str]) -> None:
    calls = calls_of(ChatTemplate(HERMES), Tools((STOP,)))
    assert calls is not None
    text, made = calls.read(written)
    assert (text, [call.name for call in made]) == (words, names)


def test_bare_json_is_a_call_only_of_a_tool_that_there_is() -> None:
    calls = calls_of(ChatTemplate(LLAMA), Tools((STOP,)))
    assert calls is not None
    assert calls.read('<|python_tag|>{"name": "stop", "parameters": {}}')[1][0].name == "stop"
    assert calls.read('{"name": "Ada", "parameters": {}}') == ('{"name": "Ada", "parameters": {}}', ())


def test_a_template_that_knows_no_tools_says_so() -> None:
    template, conversation = ChatTemplate(PLAIN), [{"role": "user", "content": "hi"}, assistant_message("", [CALL])]
    for refused in (
        lambda: calls_of(template, Tools((STOP,))),
        lambda: prompt_of(template, conversation, None),
        lambda: prompt_of(template, [tool_message(CALL, "rain")], None),
    ):
        with pytest.raises(UnsupportedModel, match=r"knows no tools and would leave them out .* \(describe=True\)"):
            refused()
    assert calls_of(template, Tools((STOP,), "none")) is None


def test_tools_are_described_on_request() -> None:
    tools = Tools((STOP,), describe=True)
    turns = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "hi"},
        assistant_message("Wait.", [CALL]),
        tool_message(CALL, "rain"),
    ]
    prompt = prompt_of(ChatTemplate(PLAIN), turns, tools)
    assert prompt.startswith(
        "[system]Be kind.\n\nYou can call these functions:\n" + json.dumps({"name": "stop", **_of(STOP)})
    )
    assert '[assistant]Wait.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Köln", "days": 2}}' in prompt
    assert prompt.endswith("[user]<tool_response>\nrain\n</tool_response>[assistant]")
    calls = calls_of(ChatTemplate(PLAIN), tools)
    assert calls is not None
    assert calls.read('<tool_call>{"name": "stop", "arguments": {}}')[1]


def test_another_syntax_is_refused() -> None:
    for sign in ("<tool_call><function={{ c }}>", "[TOOL_CALLS]{{ c.name }}[ARGS]", "```python"):
        with pytest.raises(UnsupportedModel, match="those of Hermes and Qwen, of Llama 3 and of Mistral are"):
            calls_of(ChatTemplate(_knowing(sign)), Tools((STOP,)))


def test_definitions_are_read_as_openai_has_them() -> None:
    definition = {"type": "function", "function": {"name": "stop", **_of(STOP)}}
    tools = Tools.read([definition, {"name": "go"}], {"type": "function", "function": {"name": "go"}})
    assert tools.tools == (STOP, Tool("go"))
    assert tools.forced == (Tool("go"),)
    assert Tools.read([definition], "required").forced == (STOP,)
    assert Tools.read([definition]).forced == ()


@pytest.mark.parametrize(
    ("definitions", "choice", "sentence"),
    [
        ([], "auto", "there are no tools to call"),
        (["stop"], "auto", 'a tool is a mapping with a "name"'),
        ([{"name": ""}], "auto", "a tool has no name"),
        ([{"name": "a"}, {"name": "a"}], "auto", "two tools have one name"),
        ([{"name": "a"}], "b", r"tool_choice is 'b'; it is .* one of \['a'\]"),
        ([{"name": "a", "parameters": {"type": "string"}}], "auto", "no JSON schema of an object"),
    ],
)
def test_definitions_that_are_none_are_refused(definitions: list[Any], choice: str, sentence: str) -> None:
    with pytest.raises(InvalidSpec, match=sentence):
        Tools.read(definitions, choice)


def test_arguments_may_come_as_text() -> None:
    def turn(arguments: Any) -> dict[str, Any]:
        call = {"type": "function", "function": {"name": "weather", "arguments": arguments}}
        return {"role": "assistant", "content": None, "tool_calls": [call]}

    template = ChatTemplate(HERMES)
    assert prompt_of(template, [turn('{"city": "Köln"}')], None) == prompt_of(template, [turn({"city": "Köln"})], None)
    assert "None" not in prompt_of(template, [turn({})], None)
    for arguments in ("{", "[1]", 3):
        with pytest.raises(InvalidInput, match="the arguments of the call of weather are no JSON object"):
            prompt_of(template, [turn(arguments)], None)
    with pytest.raises(InvalidInput, match="a tool call is"):
        prompt_of(template, [{"role": "assistant", "tool_calls": [{"name": "weather"}]}], None)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Of bytes, with the markers of calls as tokens: Mistral's special, Hermes' not, as their models have them."""
    vocabulary = ["<stop>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(vocabulary)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<stop>", "[TOOL_CALLS]"])
    tokenizer.add_tokens(["<tool_call>", "</tool_call>"])
    return tokenizer


@pytest.mark.parametrize("choice", ["required", "weather"])
@pytest.mark.parametrize("source", [HERMES, MISTRAL, SPACED, LLAMA])
def test_a_forced_call_is_valid_from_random_logits(source: str, choice: str, tokenizer: Tokenizer) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    pytest.importorskip("llguidance")
    grammars = Grammars(tokenizer.to_str(), [0])
    calls = calls_of(ChatTemplate(source), Tools((WEATHER, STOP), choice))
    assert calls is not None
    for seed in range(5):
        constraint = grammars.start(calls.grammar(grammars.marker), 150)
        random, choose = np.random.default_rng(seed), Sampler(temperature=1.0).start(seed)
        ids: list[int] = []
        while not constraint.finished():
            logits = random.standard_normal(tokenizer.get_vocab_size()).astype(np.float32)
            constraint.apply(logits)
            ids.append(choose(logits, ids))
            constraint.accept(ids[-1])
        text, made = calls.read(tokenizer.decode(ids, skip_special_tokens=False))
        assert (text, len(made)) == ("", 1)
        tool = {"weather": WEATHER, "stop": STOP}[made[0].name]
        assert choice == "required" or tool is WEATHER
        jsonschema.validate(made[0].arguments, tool.parameters)
        assert ids[0] == tokenizer.token_to_id(calls.syntax.marker or "{")
