"""Texts to tokens, and tokens to texts while they are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

from mobile_llm.generation.detokenizer import Detokenizer

from .inputs import NAMES, tokenizer

_TEXTS = (
    "",
    " ",
    "the quick brown fox",
    "  two  spaces\tand\n\nlines ",
    "naïve café — “quoted”",
    "你好，世界！再见",
    "👋🏽 👩‍👩‍👧‍👦 🇫🇷🇯🇵",
    "안녕하세요 𝒳𝓎 ﷽",
    "e\u0301 is not é",
    "<|user|>control<eos> tokens<|assistant|>",
    "\ufffd \u200b\ufeff end",
)
_CUT = "é 👍🏽好。"
_STOPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("one two three", ("three",)),
    ("one two three", ("two t", "one two")),
    ("one two three", ("x", "threee")),
    ("aaab", ("aab",)),
    ("再见 再见 done", ("见 d",)),
    ("ok 👍🏽 ok", ("👍",)),
    ("stop", ("stop",)),
    ("abcabd", ("abd", "bca")),
    ("ab", ("abc",)),
)


def tokenized() -> dict[str, Any]:
    return {
        "description": """
            `ids` are those of `text` by inputs/TOKENIZER.json with the special tokens around it, if it has any; `back`
            is their text with special tokens left out, `back_special` with them.
        """,
        "cases": [_tokenized(name, text) for name in NAMES for text in _TEXTS],
    }


def _tokenized(name: str, text: str) -> dict[str, Any]:
    ids = tokenizer(name).encode(text).ids
    back, special = (tokenizer(name).decode(ids, skip_special_tokens=skip) for skip in (True, False))
    return {"tokenizer": name, "text": text, "ids": ids, "back": back, "back_special": special}


def streamed() -> dict[str, Any]:
    cases = [_pushed(name, ids) for name in NAMES for ids in _cuts(tokenizer(name))]
    return {
        "description": """
            Tokens of inputs/TOKENIZER.json are pushed one by one: `deltas` are the texts given, one for each id, often
            empty; `rest` is what finish() gives. Cases are a text as the tokenizer cuts it, the same byte by byte, and
            that broken off after every byte: bytes that are no whole character come as U+FFFD at the end.
        """,
        "cases": cases,
    }


def _cuts(own: Tokenizer) -> list[list[int]]:
    single = _single_bytes(own, _CUT)
    return [own.encode(_CUT).ids, *(single[:end] for end in range(1, len(single) + 1)), single[1:]]


def _single_bytes(own: Tokenizer, text: str) -> list[int]:
    """One token for each byte."""
    letters = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)[0][0]
    byte_tokens = [f"<0x{byte:02X}>" for byte in text.encode()]
    names = byte_tokens if own.token_to_id(byte_tokens[0]) is not None else letters
    return [own.token_to_id(name) for name in names]


def stopped() -> dict[str, Any]:
    return {
        "description": """
            As detokenizer.json, with stop strings `stop`, by inputs/byte_level.json: pushing ends with the id at whose
            push a stop string was whole (`stopped`); `deltas` have the texts until then. The stop string is no part of
            any delta. `rest` is empty where it stopped.
        """,
        "cases": [
            _pushed("byte_level", ids, stop)
            for text, stop in _STOPS
            for ids in (tokenizer("byte_level").encode(text).ids, _single_bytes(tokenizer("byte_level"), text))
        ],
    }


def _pushed(name: str, ids: Sequence[int], stop: Sequence[str] = ()) -> dict[str, Any]:
    own = tokenizer(name)
    text = Detokenizer(lambda tokens: own.decode(tokens, skip_special_tokens=True), stop)
    deltas = []
    for token in ids:
        deltas.append(text.push(token))
        if text.stopped:
            break
    asked = {"tokenizer": name, "ids": list(ids), **({"stop": list(stop)} if stop else {})}
    found = {"deltas": deltas, "rest": text.finish(), **({"stopped": text.stopped} if stop else {})}
    return asked | found
