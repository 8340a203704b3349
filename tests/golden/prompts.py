"""Conversations to prompts, and conversations that are refused."""

from __future__ import annotations

from typing import Any

from mobile_llm.errors import InvalidInput
from mobile_llm.generation.template import ChatTemplate

from .inputs import FOLDER

_SPECIAL = {"bos_token": "<s>", "eos_token": "<eos>"}
_TEMPLATES = ("smollm2", "plain", "strict")


def _said(*roles_and_texts: str) -> list[dict[str, str]]:
    pairs = zip(roles_and_texts[::2], roles_and_texts[1::2])
    return [{"role": role, "content": content} for role, content in pairs]


_CONVERSATIONS: tuple[Any, ...] = (
    [],
    _said("user", "hello"),
    _said("system", "be nice", "user", "hello"),
    _said("user", " a \n", "assistant", "b ", "user", "你好 👋🏽 <b>&amp;</b> {{ 1 }} 'q' \"q\""),
    _said("user", "a", "user", "b"),
    _said("assistant", "first"),
    _said("user", ""),
    _said("user", "a", "system", "late"),
    _said("narrator", "a"),
    [{"role": "user"}],
    [{"content": "a"}],
)


def rendered() -> dict[str, Any]:
    return {
        "description": """
            `messages` through inputs/TEMPLATE.jinja, with `bos_token` and `eos_token` of `special` and
            `add_generation_prompt` = `answer`, in an environment with trim_blocks and lstrip_blocks: `prompt`, or
            `error`, the name in the taxonomy. smollm2.jinja is that of SmolLM2-135M-Instruct (Hugging Face,
            Apache-2.0); the others are ours.
        """,
        "special": _SPECIAL,
        "cases": [
            _rendered(name, messages, answer)
            for name in _TEMPLATES
            for messages in _CONVERSATIONS
            for answer in (True, False)
        ],
    }


def _rendered(name: str, messages: Any, answer: bool) -> dict[str, Any]:
    template = ChatTemplate((FOLDER / f"{name}.jinja").read_text(encoding="utf-8"), _SPECIAL)
    asked = {"template": name, "messages": messages, "answer": answer}
    try:
        return asked | {"prompt": template.render(messages, answer=answer)}
    except InvalidInput as error:
        return asked | {"error": type(error).__name__}
