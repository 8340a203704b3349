"""How an answer under a grammar comes to its end before its tokens run out.

Far from the limit nothing is taken from the model: now and then the way to an end is measured, the oftener the nearer
the limit. Near it only those of the likeliest tokens are left from which an end is still in reach, and where there are
none, the way to the end that is known. Not covered: ends that a walk over single characters does not find, as may be
with long patterns; such an answer is cut.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_TRIED = 4  # of the likeliest tokens
_UNLIKELY = 6.0  # so much less than the likeliest's logit (a four-hundredth of its probability) is not tried
_NEAR = 16  # tokens before the limit, at least, where choices are looked at
_GROWTH = 3  # tokens by which one more may lengthen the way to the end, as a rule
_LONGEST = 512  # tokens of a walk
_OUTSIDE, _IN_STRING = '}]",:', '"}],:'  # what ends most comes first
_OPENING = "\\{[-"  # and what begins something, last
_OTHERS = [c for c in map(chr, range(0x21, 0x7F)) if c not in _OUTSIDE + _OPENING]


class Ending:
    """Follows one answer of up to `budget` tokens, whose `matcher` somebody else moves on."""

    def __init__(self, matcher: Any, walker: Walker, budget: int) -> None:
        self._matcher = matcher
        self._walker = walker
        self._left = budget
        self._look_at = budget  # as soon as so few tokens are left
        self._near: int | None = None
        self._known: list[int] | None = None  # a way from here that was found a token ago
        self._ways: dict[int, list[int]] = {}  # and those after each of the tokens that were left
        self.shortened = False

    def narrow(self, logits: np.ndarray) -> None:
        """Set those logits to -inf after whose tokens the answer would not end in time."""
        if self._left > self._look_at:
            return
        way = self._known if self._known is not None else self._walker.way(self._matcher.deep_copy(), self._left)
        if way is None:
            self._look_at = self._left * 3 // 4
            return
        if self._near is None:
            self._near = max(_NEAR, len(way))  # as much as the whole answer needs is what a part of it may need
        spare = self._left - len(way) - self._near
        self._look_at = self._left - max(1, spare // (1 + _GROWTH))
        if spare <= 0:
            self._keep_ending(logits, way)

    def accept(self, token: int) -> None:
        self._left -= 1
        self._known = self._ways.get(token)
        self._ways = {}

    def _keep_ending(self, logits: np.ndarray, way: list[int]) -> None:
        likely = np.argpartition(-logits, min(_TRIED, len(logits) - 1))[:_TRIED]
        best = int(likely[logits[likely].argmax()])
        likely = likely[logits[likely] > logits[best] - _UNLIKELY]
        after = {token: self._after(token, way) for token in likely.tolist()}
        self._ways = {token: rest for token, rest in after.items() if rest is not None} or self._ahead(way)
        kept = [token for token in self._ways if np.isfinite(logits[token])]
        if not kept:
            return  # the same text is allowed by other tokens only; the way is looked for again after one of them
        self.shortened |= best not in kept
        values = logits[kept]
        logits.fill(-np.inf)
        logits[kept] = values

    def _after(self, token: int, way: list[int]) -> list[int] | None:
        """The way to the end that is left after a token."""
        if way and self._walker.same(token, way[0]):
            return way[1:]
        matcher = self._matcher.deep_copy()
        return self._walker.way(matcher, self._left - 1) if matcher.consume_token(token) else None

    def _ahead(self, way: list[int]) -> dict[int, list[int]]:
        return {way[0]: way[1:]} if way else {token: [] for token in self._walker.stop}


class Walker:
    """Finds a short way to an end of the grammar by what ends things in JSON."""

    def __init__(self, tokenizer: Any) -> None:
        tokens = {c: tokenizer.greedy_tokenize(c) for c in [*_OUTSIDE, *_OTHERS, *_OPENING]}
        self._tokenizer = tokenizer
        self.stop = list(tokenizer.eos_tokens)
        self._single = {c: ids[0] for c, ids in tokens.items() if len(ids) == 1}
        self._others = np.array([self._single[c] for c in _OTHERS if c in self._single], np.int64)
        self._last = np.array([self._single[c] for c in _OUTSIDE + _OPENING if c in self._single], np.int64)

    def same(self, one: int, other: int) -> bool:
        """Whether two tokens are the same text: SentencePiece has a letter as a byte too."""
        return one == other or self._tokenizer.decode_bytes([one]) == self._tokenizer.decode_bytes([other])

    def way(self, matcher: Any, most: int) -> list[int] | None:
        """At most `most` tokens, which `matcher` has read then; None where no end was found."""
        way: list[int] = []
        while not matcher.is_accepting():
            tokens = self._forced(matcher) or [self._next(matcher, len(way))]
            way += tokens
            if len(way) > min(most, _LONGEST) or not matcher.consume_tokens(tokens):
                return None
        return way

    def _forced(self, matcher: Any) -> list[int]:
        """The tokens of what alone can follow, such as the name of a property."""
        forced = matcher.compute_ff_bytes()
        text = forced.decode("utf-8", "ignore")
        return list(self._tokenizer.greedy_tokenize(text)) if text.encode() == forced else []

    def _next(self, matcher: Any, step: int) -> int:
        """One token, by an order that turns with every step, so that no walk goes round in a circle: what ends an
        object ends no string, and a pattern may ask for one certain character."""
        in_string = self._may_follow(matcher, "\\") or step % 4 == 1
        ends = "" if step % 4 == 3 else _IN_STRING if in_string else _OUTSIDE
        for character in ends:
            if self._may_follow(matcher, character):
                return self._single[character]
        return self._any(matcher.compute_bitmask(), step * 7)

    def _may_follow(self, matcher: Any, character: str) -> bool:
        """A tenth of the time of a mask of the whole vocabulary."""
        return character in self._single and matcher.validate_tokens([self._single[character]]) == 1

    def _any(self, mask: bytes, turn: int) -> int:
        bits = np.frombuffer(mask, np.uint8)
        first = turn % len(self._others)
        ids = np.concatenate((self._others[first:], self._others[:first], self._last))
        allowed = bits[ids >> 3] >> (ids & 7) & 1
        if allowed.any():
            return int(ids[allowed.argmax()])
        return int(np.unpackbits(bits, bitorder="little").argmax())
