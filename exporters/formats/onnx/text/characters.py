"""What a tokenizer's normalizer and pre-tokenizer do to each character, asked of them and not written again.

BERT's do it character by character: one is dropped, another is a space, stands alone, or becomes others (accents gone,
lower case, Hangul in letters). So a table says it all, and is right for the tokenizer's version of Unicode. Not
covered: marks that NFD would put in another order and that are no accents (a dozen, of musical notation and of Brahmic
scripts); they keep the order of the text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, groupby

from tokenizers import Tokenizer

# Planes without a character in any version of Unicode, and those for private use: all in one behave alike.
_ALIKE = (range(0x40000, 0xDFFFE), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))
_OTHERS = chain(range(1, 0xD800), range(0xE000, 0x40000), range(0xDFFFE, 0xF0000), (0xFFFFE, 0xFFFFF))
_ASKED = (*_OTHERS, 0x10FFFE, 0x10FFFF)
_LONG = 64  # characters in a row; they are a range of a pattern, fewer are entries of the table
_UNWRITABLE = "\t\n"  # what separates the table's entries

Range = tuple[int, int]


@dataclass(frozen=True)
class Characters:
    """`single[c]` is what the character c becomes, where words are what stands between spaces. Whole ranges are
    dropped, are spaces, or stand alone. `mark` is a character that is dropped."""

    single: Mapping[str, str]
    dropped: tuple[Range, ...]
    spaces: tuple[Range, ...]
    alone: tuple[Range, ...]
    mark: str


@lru_cache(maxsize=4)
def characters(normalizer: str, pre_tokenizer: str) -> Characters | None:
    """The table for two components of a tokenizer.json. None where no character is dropped: a mark is needed that no
    normalized text holds."""
    table = _table(normalizer, pre_tokenizer)
    groups: dict[str, list[int]] = {"": [], " ": [], "alone": []}
    for code, found in table.items():
        groups.setdefault("alone" if found == f" {chr(code)} " else found, []).append(code)
    if not groups[""]:
        return None
    dropped, spaces, alone = (tuple(_in_patterns(groups[kind])) for kind in ("", " ", "alone"))
    in_patterns = {code for first, last in (*dropped, *spaces, *alone) for code in range(first, last + 1)}
    mark = chr(groups[""][0])
    single = {chr(code): found or mark for code, found in table.items() if code not in in_patterns}
    return Characters(single, dropped, spaces, alone, mark)


def _table(normalizer: str, pre_tokenizer: str) -> dict[int, str]:
    """What becomes of each character that does not stay as it is."""
    ask = _Asking(normalizer, pre_tokenizer)
    table = {code: found for code in _ASKED if (found := ask(code)) != chr(code)}
    for plane in _ALIKE:
        if (found := ask(plane[0])) != chr(plane[0]):
            kind = "{}" if found else ""
            table.update((code, kind and found.replace(chr(plane[0]), chr(code))) for code in plane)
    return table


class _Asking:
    """What becomes of a character between two letters."""

    def __init__(self, normalizer: str, pre_tokenizer: str) -> None:
        model = {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "a", "continuing_subword_prefix": "##"}
        definition = {
            "version": "1.0",
            "added_tokens": [],
            "normalizer": json.loads(normalizer),
            "pre_tokenizer": json.loads(pre_tokenizer),
            "model": model | {"max_input_chars_per_word": 100},
        }
        tokenizer = Tokenizer.from_str(json.dumps(definition))
        self._normalizer, self._pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer

    def __call__(self, code: int) -> str:
        text = f"a{chr(code)}a"
        normalized = self._normalizer.normalize_str(text) if self._normalizer else text
        return " ".join(word for word, _ in self._pre_tokenizer.pre_tokenize_str(normalized))[1:-1]


def _in_patterns(codes: Iterable[int]) -> Iterator[Range]:
    for _, row in groupby(enumerate(codes), key=lambda pair: pair[1] - pair[0]):
        found = [code for _, code in row]
        if len(found) >= _LONG or any(chr(code) in _UNWRITABLE for code in found):
            yield found[0], found[-1]
