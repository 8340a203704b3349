"""Tokenizers and templates that the vectors refer to. The tokenizers are tiny: one of bytes with merges inside and
across the characters of emoji and CJK text, one of words with bytes for whatever is no word."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tokenizers import Tokenizer

FOLDER = Path(__file__).parent
NAMES = ("byte_level", "byte_fallback")


@cache
def tokenizer(name: str) -> Tokenizer:
    return Tokenizer.from_file(str(FOLDER / f"{name}.json"))
