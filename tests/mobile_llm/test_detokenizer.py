"""Text while it is written: whole characters only, adding up to the whole, whatever the tokens cut through."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from tokenizers import Tokenizer, decoders, models

from mobile_llm.generation.detokenizer import Detokenizer, overlap

from .conftest import EMOJI_AND_CJK, byte_level

BROKEN = "\ufffd"
CUTS = 2_500  # of each tokenizer, with and without stop strings: 10,000


def byte_fallback() -> Tokenizer:
    """As Llama 2, Mistral and Gemma have it: words behind ▁, the first space of a text dropped, and bytes for whatever
    is not in the vocabulary."""
    words = ["▁", "▁the", "▁dog", "▁好", "好", "世", "e", "▁caf", "ok", "。"]
    names = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *words, "▁done"]
    tokenizer = Tokenizer(models.BPE({n: i for i, n in enumerate(names)}, [], byte_fallback=True, unk_token="<unk>"))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def metaspace() -> Tokenizer:
    tokenizer = byte_fallback()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()])
    return tokenizer


TOKENIZERS = {"byte-level": byte_level, "byte-fallback": byte_fallback, "metaspace": metaspace}


def random_ids(name: str, tokenizer: Tokenizer, draw: random.Random) -> list[int]:
    """Tokens of text, cut as the tokenizer would not, or at single bytes."""
    start = draw.randrange(len(EMOJI_AND_CJK))
    text = EMOJI_AND_CJK[start : start + draw.randrange(1, 40)]
    if name == "byte-level":
        pieces = [text[i : i + 3] for i in range(0, len(text), 3)] if draw.random() < 0.5 else [text]
        return [i for piece in pieces for i in tokenizer.encode(piece).ids]
    ids: list[int] = []
    for letter in text.replace(" ", "▁"):
        known = tokenizer.token_to_id(letter)
        bytes_ = [tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in letter.encode()]
        ids += bytes_ if known is None or (letter != "▁" and draw.random() < 0.3) else [known]
        if draw.random() < 0.1:
            ids.append(tokenizer.token_to_id(draw.choice(["▁the", "▁dog", "▁done", "▁"])))
    return ids


def streamed(tokenizer: Tokenizer, ids: Sequence[int], stop: Sequence[str] = ()) -> tuple[list[str], str]:
    """Pieces while tokens came, and the last one."""
    detokenizer = Detokenizer(tokenizer.decode, stop)
    pieces = []
    for token in ids:
        pieces.append(detokenizer.push(token))
        if detokenizer.stopped:
            break
    return pieces, detokenizer.finish()


@pytest.mark.parametrize("name", ["byte-level", "byte-fallback"])
def test_pieces_are_whole_and_add_up(name: str) -> None:
    tokenizer, draw = TOKENIZERS[name](), random.Random(0)
    for _ in range(CUTS):
        ids = random_ids(name, tokenizer, draw)
        pieces, last = streamed(tokenizer, ids)
        assert "".join(pieces) + last == tokenizer.decode(ids)
        assert all(BROKEN not in piece for piece in (*pieces, last))
        cut = draw.randrange(len(ids))
        begun, rest = streamed(tokenizer, ids[:cut])
        assert begun == pieces[:cut]
        held = rest.rstrip(BROKEN)  # what a token had before its incomplete character
        assert BROKEN not in held
        assert tokenizer.decode(ids).startswith("".join(begun) + held)


@pytest.mark.parametrize("name", ["byte-level", "byte-fallback"])
def test_a_stop_string_ends_the_text_wherever_tokens_cut_it(name: str) -> None:
    tokenizer, draw = TOKENIZERS[name](), random.Random(1)
    stopped = 0
    for _ in range(CUTS):
        ids = random_ids(name, tokenizer, draw)
        whole = tokenizer.decode(ids)
        place, size = draw.randrange(len(whole) or 1), draw.randrange(1, 5)
        stops = [whole[place : place + size] or "x", "done", "世x"]
        ends = [(whole.index(stop) + len(stop), -len(stop)) for stop in stops if stop in whole]
        expected = whole[: sum(min(ends))] if ends else whole
        pieces, last = streamed(tokenizer, ids, stops)
        assert "".join(pieces) + last == expected
        assert all(BROKEN not in piece for piece in pieces)
        stopped += bool(ends)
    assert stopped > CUTS // 2


def test_the_first_space_is_dropped_once() -> None:
    for tokenizer in (byte_fallback(), metaspace()):
        ids = [tokenizer.token_to_id(token) for token in ("▁the", "▁dog", "▁", "▁the", "▁", "ok", "▁done")]
        pieces, last = streamed(tokenizer, ids)
        assert "".join(pieces) + last == tokenizer.decode(ids) == "the dog  the ok done"


def test_a_beginning_of_a_stop_string_waits_and_no_more() -> None:
    tokenizer = byte_level()
    ids = [i for letter in "one<two<|end|>three" for i in tokenizer.encode(letter).ids]
    detokenizer = Detokenizer(tokenizer.decode, ["<|end|>"])
    assert [detokenizer.push(token) for token in ids[:5]] == ["o", "n", "e", "", "<t"]
    pieces, last = streamed(tokenizer, ids, ["<|end|>"])
    assert (pieces[5:], last) == (["w", "o", *[""] * 7], "")


def test_bytes_that_are_no_text_are_given_once_something_follows() -> None:
    tokenizer = byte_fallback()
    tokens = [f"<0x{byte:02X}>" for byte in "你".encode()] + ["<0xFF>", "▁dog", "<0xE4>"]
    pieces, last = streamed(tokenizer, [tokenizer.token_to_id(token) for token in tokens])
    assert (pieces, last) == (["", "", "你", "", f"{BROKEN} dog", ""], BROKEN)


@pytest.mark.parametrize(
    ("text", "stop", "length"),
    [("ab", "bc", 1), ("ab", "ab", 0), ("aab", "abaa", 2), ("", "a", 0), ("xaba", "abab", 3)],
)
def test_overlap(text: str, stop: str, length: int) -> None:
    assert overlap(text, stop) == length


def test_the_tokenizers_cut_through_characters() -> None:
    """Otherwise nothing above was tried."""
    tokenizer = byte_level()
    ids = tokenizer.encode(EMOJI_AND_CJK).ids
    assert any(BROKEN in tokenizer.decode([i]) for i in ids)
