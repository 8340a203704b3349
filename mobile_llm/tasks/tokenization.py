"""Texts to tensors, from the bundle alone: tokenizer.json and the manifest's truncation policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from mobile_llm.bundle import Bundle
from mobile_llm.errors import IntegrityFailed, InvalidInput

TOKENIZER_FILE = "tokenizer.json"
NOT_CUT = "none"  # the truncation policy of models that refuse what does not fit

# A text, or a pair of texts (premise and hypothesis, question and passage).
Text = str | tuple[str, str]


@dataclass(frozen=True)
class Encoded:
    """One text's ids and token types, without padding."""

    ids: tuple[int, ...]
    types: tuple[int, ...]


@dataclass(frozen=True)
class Token:
    """A token's place in its text, in code points; whether it is special, and whether it goes on with the word before
    it."""

    start: int
    end: int
    special: bool
    continues: bool


class TextTokenizer:
    """Tokenizes as the model was trained to, truncated to its limit."""

    def __init__(self, bundle: Bundle) -> None:
        policy = bundle.manifest.text_policy
        try:
            self._tokenizer = read_tokenizer(bundle.own_file(TOKENIZER_FILE))
        except InvalidInput as error:
            raise IntegrityFailed(f"{error}; fetch the bundle again") from None
        self._token_types = policy.token_types
        self._tokenizer.no_padding()
        if policy.truncation == NOT_CUT:
            self._tokenizer.no_truncation()
        else:
            self._tokenizer.enable_truncation(policy.max_length, direction=policy.truncation)
        model = self._tokenizer.model
        self._prefix = getattr(model, "continuing_subword_prefix", None)
        unknown = getattr(model, "unk_token", None)
        self._unknown = self._tokenizer.token_to_id(unknown) if isinstance(unknown, str) else None

    def encode(self, text: Text, special: bool = True) -> Encoded:
        """A text's ids, with the special tokens around it or without. Of a pair that is too long the longer text is cut
        first. Raises InvalidInput for what is not text."""
        first, second = parts_of(text)
        return self._encoded(self._tokenizer.encode(first, second, add_special_tokens=special))

    def encode_words(self, words: Sequence[str]) -> tuple[Encoded, tuple[int | None, ...]]:
        """A text that is split into words already, and of each token the word it is of (None for special ones)."""
        encoding = self._tokenizer.encode(list(words), is_pretokenized=True)
        return self._encoded(encoding), tuple(encoding.word_ids)

    def tokens(self, text: str) -> list[Token]:
        """The tokens of a text, special ones included, one for each id that `encode` gives."""
        encoding = self._tokenizer.encode(text)
        rows = zip(encoding.ids, encoding.tokens, encoding.offsets, encoding.special_tokens_mask)
        return [
            Token(start, end, bool(special), self._continues(text, token_id, token, start, end))
            for token_id, token, (start, end), special in rows
        ]

    def _encoded(self, encoding: Any) -> Encoded:
        types = encoding.type_ids if self._token_types else [0] * len(encoding.ids)
        return Encoded(tuple(encoding.ids), tuple(types))

    def _continues(self, text: str, token_id: int, token: str, start: int, end: int) -> bool:
        """As transformers decides it: by the prefix of word pieces, elsewhere by the space before."""
        if token_id == self._unknown:
            return False
        if self._prefix:
            return len(token) != end - start
        return start > 0 and " " not in text[start - 1 : start + 1]

    def decode(self, ids: Sequence[int], special: bool = False) -> str:
        """The text of ids, with the special tokens among them or without."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=not special)


def parts_of(text: Text) -> tuple[str, str | None]:
    """The text, and the second one of a pair. Raises InvalidInput for what is neither."""
    parts = text if isinstance(text, tuple) else (text,)
    for part in parts:
        if not isinstance(part, str):
            raise InvalidInput(f"a text should be a str, not {type(part).__name__}")
    if not isinstance(text, tuple):
        return text, None
    if len(text) != 2:
        raise InvalidInput(f"a tuple is a pair of texts, and this one has {len(text)}; put several texts in a list")
    return text


def read_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer.json. Raises InvalidInput, naming the file, for what is none."""
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:
        if type(error) is not Exception:  # tokenizers' own errors are of no narrower type
            raise
        raise InvalidInput(f"{path.name} cannot be read ({error})") from None


def stack(encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
    """int64 tensors (batch, longest sequence), padded on the right with zeros that the mask leaves out."""
    width = max(len(item.ids) for item in encoded)
    names = ("input_ids", "attention_mask", "token_type_ids")
    tensors = {name: np.zeros((len(encoded), width), np.int64) for name in names}
    for row, item in enumerate(encoded):
        size = len(item.ids)
        tensors["input_ids"][row, :size] = item.ids
        tensors["attention_mask"][row, :size] = 1
        tensors["token_type_ids"][row, :size] = item.types
    return tensors
