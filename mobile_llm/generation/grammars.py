"""Answers that follow a grammar: a JSON schema, a regular expression, or Lark's notation, by llguidance.

Built from a bundle's tokenizer.json alone. Covered: what llguidance covers, whose refusals become one sentence each.
JSON is written with at most one space, or one line break and its indentation, between its parts, since models left
alone with a free choice of white space may never stop writing it. Not covered: reading several forced tokens at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from mobile_llm.errors import BackendUnavailable, InvalidSpec, UnsupportedModel
from mobile_llm.generation import json_schema
from mobile_llm.generation.ending import Ending, Walker

_KEPT = 32  # compiled grammars


@dataclass(frozen=True)
class Regex:
    """The whole answer matches `pattern`, in the syntax of Rust's regex crate."""

    pattern: str


@dataclass(frozen=True)
class Lark:
    """The whole answer is a `start` of this grammar, in llguidance's dialect of Lark."""

    text: str


Grammar = Mapping[str, Any] | Regex | Lark  # a mapping is a JSON schema


class Grammars:
    """Compiles grammars for one tokenizer and keeps the compiled ones.

    Args:
        tokenizer: the text of a tokenizer.json.
        stop: ids of the tokens that end an answer.

    Raises BackendUnavailable where llguidance is not installed, UnsupportedModel for a tokenizer that it cannot read
    (those of models that write are byte-level BPE or have a byte fallback; WordPiece and Unigram are not covered).
    """

    def __init__(self, tokenizer: str, stop: Sequence[int]) -> None:
        self._library = _llguidance()
        self._tokenizer = self._read(tokenizer, stop)
        self._walker = Walker(self._tokenizer)
        self._compiled = lru_cache(_KEPT)(self._compile)

    def start(self, grammar: Grammar, budget: int) -> GrammarConstraint:
        """A constraint for one answer of at most `budget` tokens.

        Raises InvalidSpec for a grammar that is none, that no text follows, or that the library does not support.
        """
        kind, text = _source(grammar)
        matcher = self._compiled(kind, text).deep_copy()
        return GrammarConstraint(matcher, Ending(matcher, self._walker, budget))

    def marker(self, text: str) -> str:
        """Lark for a text that a model writes as one special token where it has such a token, else as a text."""
        ids = self._tokenizer.tokenize_str(text, parse_special=True)
        if len(ids) == 1 and self._tokenizer.is_special_token(ids[0]):
            return f"<[{ids[0]}]>"
        return json.dumps(text, ensure_ascii=False)

    def _read(self, tokenizer: str, stop: Sequence[int]) -> Any:
        # A length to cut or fill up to is for encoders; it would also apply to what the grammar itself tokenizes.
        settings = json.loads(tokenizer) | {"truncation": None, "padding": None}
        try:
            return self._library.LLTokenizer(json.dumps(settings), eos_token=list(stop) or None)
        except ValueError as error:
            raise UnsupportedModel(f"llguidance cannot hold answers of this tokenizer to a grammar: {error}") from None

    def _compile(self, kind: str, text: str) -> Any:
        grammar = _READERS[kind](self._library.LLMatcher, text)
        limits = self._library.LLParserLimits(verbose_errors=False)
        matcher = self._library.LLMatcher(self._tokenizer, grammar, log_level=0, limits=limits)
        if matcher.is_error():
            raise _REFUSALS[kind](matcher.get_error())
        matcher.compute_bitmask()
        if matcher.is_error():
            raise InvalidSpec("no answer can follow this grammar: there is nothing that it could begin with")
        return matcher


class GrammarConstraint:
    """A Constraint that also ends the answer within its budget, where an end is in reach."""

    def __init__(self, matcher: Any, ending: Ending) -> None:
        self._matcher = matcher
        self._ending = ending

    def apply(self, logits: np.ndarray) -> None:
        """Raises InvalidSpec where the grammar turns out to be too complex for the library."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        penalty = _PENALTIES.take(bits, axis=0).ravel()
        known = min(len(penalty), len(logits))  # a padded vocabulary has logits that are no tokens
        logits[:known] += penalty[:known]
        logits[known:] = -np.inf
        self._ending.narrow(logits)

    def accept(self, token: int) -> None:
        self._matcher.consume_token(token)
        self._check()
        self._ending.accept(token)

    def finished(self) -> bool:
        return bool(self._matcher.is_stopped())

    @property
    def complete(self) -> bool:
        """Whether what was written is a whole sentence of the grammar."""
        return bool(self._matcher.is_accepting())

    @property
    def shortened(self) -> bool:
        """Whether the budget took a choice from the model, so that the answer ends within it."""
        return self._ending.shortened

    def _check(self) -> None:
        if self._matcher.is_error():
            raise InvalidSpec(f"the grammar cannot be followed any further: {_one_line(self._matcher.get_error())}")


def _table() -> np.ndarray:
    """(256, 8) float32: for each byte of a bit mask, what is added to eight logits. One look-up per byte takes a
    quarter of the time of unpacking bits."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return np.where(bits > 0, np.float32(0), np.float32(-np.inf))


_PENALTIES = _table()


def _source(grammar: Grammar) -> tuple[str, str]:
    if isinstance(grammar, Regex):
        return "regex", grammar.pattern
    if isinstance(grammar, Lark):
        return "lark", grammar.text
    return "schema", json_schema.source(grammar)


_READERS: dict[str, Callable[[Any, str], str]] = {
    "schema": lambda matcher, text: matcher.grammar_from_json_schema(text),
    "regex": lambda matcher, text: matcher.grammar_from_regex(text),
    "lark": lambda matcher, text: matcher.grammar_from_lark(text),
}
_REFUSALS: dict[str, Callable[[str], InvalidSpec]] = {
    "schema": json_schema.refusal,
    "regex": lambda error: _refusal("regular expression", error),
    "lark": lambda error: _refusal("grammar", error),
}


def _refusal(what: str, error: str) -> InvalidSpec:
    """The library's first line names the fault; for an expression that is none, its last one does."""
    lines = error.splitlines()
    faults = [line for line in lines if line.startswith("error: ")]
    return InvalidSpec(f"this {what} cannot be followed: {(faults or lines)[0].removeprefix('error: ')}")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _llguidance() -> Any:
    try:
        import llguidance
    except ImportError:
        raise BackendUnavailable(
            'answers that follow a schema need llguidance; install it with: pip install "mobile-llm[structured]"'
        ) from None
    return llguidance
