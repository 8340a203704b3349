"""The token ids that all contestants read: prompts of given lengths, and windows for quality, from one text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.peers.race import Prompts
from mobile_llm.errors import InvalidInput

WINDOW = 256
_PLAIN = "The ending is not what I had expected, yet every scene before it prepares the ground with care. "


def prompts_of(model: Path, text: Path | None, lengths: tuple[int, ...], tokens: int) -> Prompts:
    """Windows of `tokens` tokens in all from the beginning of `text`; without a text there are none, and the prompts
    are of a sentence repeated. Raises InvalidInput for a text that is too short or cannot be read."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    words = _PLAIN * max(lengths) if text is None else _read(text)
    ids: list[int] = tokenizer.encode(words, add_special_tokens=False).ids
    needed = max(tokens if text else 0, *lengths)
    if len(ids) < needed:
        raise InvalidInput(
            f"{text} has {len(ids)} tokens, {needed} are needed; give a longer text or a smaller --tokens"
        )
    windows = [ids[i : i + WINDOW] for i in range(0, tokens - WINDOW + 1, WINDOW)] if text else []
    return Prompts({length: (ids[:length], _decoded(tokenizer, ids[:length])) for length in lengths}, windows)


def _decoded(tokenizer: Any, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=False)
    return text


def _read(text: Path) -> str:
    try:
        return text.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{text} cannot be read as UTF-8 ({error}); give a text file") from None
