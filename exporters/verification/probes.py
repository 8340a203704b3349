"""What is asked of a model and its artifacts: texts that tokenizers get wrong, and bare ids at odd lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mobile_llm.bundle.golden import GoldenText
from mobile_llm.tasks.tokenization import Encoded, Text

# Ordinary sentences first; then what tokenizers and normalizers differ on.
TEXTS = (
    "A warm, funny and surprisingly moving film about growing old.",
    "The plot makes no sense, the jokes fall flat, and it is forty minutes too long.",
    "Shares of the company rose 4.2% on Tuesday after it raised its forecast for 2027.",
    "not bad at all",
    "It's hard to imagine anyone sitting through this twice…",
    "Call me at +1 (555) 010-9999 or write to jane.doe@example.com!",
    "def add(a, b):\n\treturn a + b  # tabs\tand   spaces",
    "I loved it 😍👍🏽 — 10/10 👨‍👩‍👧 would watch again!!!",
    "Żółć, naïve café, Ünïcödé, straße, ﬁancée, İstanbul, Å vs Å",
    "这部电影非常感人,演员演得很好。 日本語のレビューも書きます。 한국어도요.",
    "مرحبا بالعالم שלום עולם नमस्ते दुनिया",
    "[CLS] literal control tokens [MASK] [SEP] <s> </s> <|endoftext|> ##ing",
    "  leading and trailing spaces \u00a0\u2003\u200b zero width \ufeff ",
    "antidisestablishmentarianism Donaudampfschifffahrtsgesellschaft x" + "y" * 120,
    "½ × ² ≠ ∞ √ ﬃ ① Ⅷ ℃ ™ \u0301\u0308",
    "",
    "?",
    "The film repeats itself, again and again, and again. " * 60,
)

# For models that take pairs: each of the two long, both, neither, and what ends or looks like a separator.
_LONG = "The film repeats itself, again and again, and again. " * 60
PAIRS = (
    ("A man is watching a film.", "Somebody looks at a screen."),
    ("The plot makes no sense, the jokes fall flat.", "The film is great."),
    ("not bad at all", "not good at all"),
    ("Is it worth watching? 😍👍🏽", "这部电影非常感人,演员演得很好。"),
    ("a [SEP] b </s> c", "[CLS] Żółć, naïve café <s>"),
    (_LONG, "too long?"),
    ("too long?", _LONG),
    (_LONG, _LONG[7:]),
    ("  spaces around ", "\ttabs\n"),
)

# No power of two, no multiple of eight: nothing is traced or fixed at these.
_LENGTHS = (3, 7, 19, 33, 61, 101, 130, 199, 257, 383, 509)


def golden_texts(tokenizer: Any, max_length: int, pairs: bool = False) -> tuple[GoldenText, ...]:
    """The texts, and with `pairs` the pairs, with the ids the reference tokenizer (transformers) gives them, truncated
    to `max_length`."""
    found = []
    given = [(text, None) for text in TEXTS] + (list(PAIRS) if pairs else [])
    for text, second in given:
        encoded = encode(tokenizer, text if second is None else (text, second), max_length)
        decoded = tokenizer.decode(encoded.ids, skip_special_tokens=True)
        found.append(GoldenText(text, encoded.ids, encoded.types, decoded, text_pair=second))
    return tuple(found)


def encode(tokenizer: Any, text: Text, max_length: int) -> Encoded:
    """A text or a pair by transformers, which cuts the longer of two texts first."""
    parts = [[part] for part in (text if isinstance(text, tuple) else (text,))]  # a batch: "" is a second text there
    found = tokenizer(*parts, truncation=True, max_length=max_length)
    ids = tuple(found["input_ids"][0])
    return Encoded(ids, tuple(found["token_type_ids"][0]) if "token_type_ids" in found else (0,) * len(ids))


# Of outputs with a row for each token, so many are compared and kept: single tokens of a bad layer stand out, and
# references stay small. Logits are narrow, and what they say of each token is the answer.
_TOKENS_KEPT = {"last_hidden_state": 2, "logits": 16}


def spread(name: str, values: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
    """Of an output (batch, sequence, W) the rows of some tokens, first and last real one included: (batch, n W)."""
    chosen = np.stack([token_places(name, length) for length in lengths])
    return np.take_along_axis(values, chosen[:, :, None], axis=1).reshape(len(values), -1)


def token_places(name: str, length: int) -> np.ndarray:
    """The tokens of a text of `length` that `spread` keeps; short ones are kept several times."""
    return np.linspace(0, length - 1, _TOKENS_KEPT[name]).round().astype(np.int64)


def random_sequences(vocabulary: int, limit: int, padding: int | None, seed: int = 0) -> tuple[tuple[int, ...], ...]:
    """Random ids at lengths up to the model's limit, one sequence each, without padding's: some models count positions
    by it."""
    random = np.random.default_rng(seed)
    lengths = [n for n in _LENGTHS if n < limit] + [limit]
    ids = np.array([i for i in range(vocabulary) if i != padding])
    return tuple(tuple(int(i) for i in ids[random.integers(0, len(ids), n)]) for n in lengths)
