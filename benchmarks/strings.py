"""Seeded random strings that tokenizers differ on: every Unicode category, scripts, emoji, control tokens, spaces,
marks, long words, real words, and all of it mixed."""

from __future__ import annotations

import random
import sys
import unicodedata
from collections.abc import Callable
from functools import cache


def _listed(text: str) -> list[str]:
    return text.split(" ")


_WORDS = _listed(
    "the film is not bad at all and warm funny surprisingly moving but far too long don't can't it's U.S. e-mail "
    "naïve café straße Żółć İstanbul ΣΊΣΥΦΟΣ Привет мир مرحبا שלום नमस्ते 한국어 日本語 这部电影 tiếng Việt 12.5% $3,000 "
    "https://example.com/a?b=c jane.doe@example.com antidisestablishmentarianism unaffable"
)
_TOKENS = _listed(
    "[CLS] [SEP] [MASK] [PAD] [UNK] <s> </s> <mask> <pad> <unk> <|endoftext|> [mask] [ MASK ] [MASK ##ing ## # [[MASK]]"
)
_SPACES = [" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u2028", "\u0085", "\u200b", "\ufeff", "\v"]
_MARKS = [chr(code) for code in (*range(0x300, 0x370), 0x483, 0x5B0, 0x64B, 0x93C, 0x20D0, 0x3099, 0xFE0F, 0x1D165)]
_EMOJI = ["😍", "👍🏽", "👨‍👩‍👧", "🏳️‍🌈", "🇩🇪", "❤️", "☃", "1️⃣", "🤷🏾‍♀️", "🫠"]
_CJK = (
    range(0x3040, 0x3100),
    range(0x3400, 0x3500),
    range(0x4E00, 0x9FFF),
    range(0xAC00, 0xD7A4),
    range(0xF900, 0xFB00),
)

Kind = Callable[[random.Random], str]


def random_strings(count: int, seed: int) -> list[str]:
    """`count` strings; the same for the same seed and Python version."""
    chance = random.Random(seed)
    return [_string(chance) for _ in range(count)]


def _string(chance: random.Random) -> str:
    """A string of one kind, or of all kinds mixed; one in forty is longer than models read."""
    size = chance.randrange(400, 900) if chance.random() < 0.025 else chance.randrange(0, 30)
    kind = chance.choice(_KINDS)
    mixed = chance.random() < 0.5
    between = chance.choice(("", " ", None))
    parts = []
    for _ in range(size):
        parts.append((chance.choice(_KINDS) if mixed else kind)(chance))
        parts.append(chance.choice(_SPACES) if between is None else between)
    return "".join(parts)


def _any_category(chance: random.Random) -> str:
    return chance.choice(_by_category()[chance.choice(_CATEGORIES)])


def _any_character(chance: random.Random) -> str:
    code = chance.randrange(0x110000 - 0x800)
    return chr(code if code < 0xD800 else code + 0x800)


def _marked(chance: random.Random) -> str:
    return chance.choice("aeioucnsAEIOZ") + "".join(chance.choices(_MARKS, k=chance.randrange(1, 4)))


def _long_word(chance: random.Random) -> str:
    letters = "".join(chance.choices("etaoinshrdlu", k=chance.randrange(1, 12)))
    return (letters * 60)[: chance.choice((5, 20, 99, 100, 101, 130))]


_KINDS: tuple[Kind, ...] = (
    lambda chance: chance.choice(_WORDS),
    lambda chance: chance.choice(_WORDS).upper(),
    lambda chance: chance.choice(_WORDS) + chance.choice(_EMOJI),
    lambda chance: chance.choice(_TOKENS),
    lambda chance: chance.choice(_SPACES),
    lambda chance: chance.choice(_EMOJI),
    lambda chance: chr(chance.choice(chance.choice(_CJK))),
    lambda chance: chr(chance.randrange(0x20, 0x7F)),
    lambda chance: chr(chance.randrange(0x00, 0x250)),
    _any_category,
    _any_character,
    _marked,
    _long_word,
)
_CATEGORIES = (
    "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm",
    "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Co", "Cn",
)  # fmt: skip


@cache
def _by_category() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: [] for name in (*_CATEGORIES, "Cs")}
    for code in range(sys.maxunicode + 1):
        found[unicodedata.category(chr(code))].append(chr(code))
    return found
