"""WordPiece in a graph, equal to `tokenizers`.

BertTokenizer of onnxruntime-extensions alone is not: its normalizer knows fewer characters (no "İ", no Hangul, the
punctuation of one version of Unicode), it takes "[MASK]" in a text apart, and of a word that it cannot finish it keeps
the pieces before the unknown one. So the text is cut into characters and special tokens, each is replaced by a table
(`characters`), and the operator only looks words up; a mark after each word then shows where one ends, and what stands
before an unknown piece is taken out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from exporters.formats.onnx.graph import BOOL, EXTENSIONS, INT64, Graph
from exporters.formats.onnx.text.characters import Characters, Range, characters
from exporters.formats.onnx.text.ids import BareIds
from exporters.formats.onnx.text.strings import literal, replaced
from mobile_llm.errors import UnsupportedModel

_WORD_LIMIT = 100  # characters; fixed in the operator
# They look at a character without its neighbours, so a table can hold what they do.
_NORMALIZERS = ("BertNormalizer",)
_PRE_TOKENIZERS = ("BertPreTokenizer",)


def wordpiece(tokenizer: Any, definition: Mapping[str, Any]) -> BareIds:
    """Raises UnsupportedModel for a normalizer, a pre-tokenizer or tokens that cannot go into a graph."""
    _check_kind("normalizer", definition, _NORMALIZERS)
    _check_kind("pre_tokenizer", definition, _PRE_TOKENIZERS)
    model = definition["model"]
    if model["max_input_chars_per_word"] != _WORD_LIMIT:
        raise UnsupportedModel(
            f"this tokenizer's words end at {model['max_input_chars_per_word']} characters, those of the operator at "
            f"{_WORD_LIMIT}; export without text input"
        )
    table = characters(*(json.dumps(definition[name], sort_keys=True) for name in ("normalizer", "pre_tokenizer")))
    if table is None:
        raise UnsupportedModel("this tokenizer keeps control characters (clean_text); export without text input")
    special = special_tokens(definition)
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)

    def build(graph: Graph, text: str) -> str:
        words = _words(graph, text, table, special)
        unknown = model["unk_token"]
        lines = _lines(vocabulary, table.mark)
        marked = _looked_up(graph, words, lines, unknown, model["continuing_subword_prefix"])
        return _without_cut_words(graph, marked, len(lines) - 1, vocabulary[unknown])

    return build


def special_tokens(definition: Mapping[str, Any]) -> list[str]:
    """The tokens that are found in a text as they stand, the longest first. Spaces beside them that they take with
    them (`lstrip`) are dropped anyway. Raises UnsupportedModel for those found in another way."""
    for token in definition["added_tokens"]:
        if token["normalized"] or token["single_word"] or set(token["content"]) & set("\0\t\n"):
            raise UnsupportedModel(
                f"the added token {token['content']!r} is looked for in normalized text, as a whole word, or holds a "
                "control character, which the operators cannot do; export without text input"
            )
    return sorted((token["content"] for token in definition["added_tokens"]), key=len, reverse=True)


def _words(graph: Graph, text: str, table: Characters, special: list[str]) -> str:
    """The normalized text (1,): words, each followed by the mark, with a space between any two."""
    either = "|".join([*map(literal, special), "(?s:.)"])
    cut = [text, graph.strings(f"({either})"), graph.strings("(?s).+")]
    parts = graph.nodes("StringRegexSplitWithOffsets", cut, 4, domain=EXTENSIONS)[0]
    for ranges, rewrite in ((table.dropped, table.mark), (table.spaces, " "), (table.alone, r" \0 ")):
        if ranges:
            parts = replaced(graph, parts, f"^[{_class(ranges)}]$", rewrite)
    entries = {**table.single, **{token: f" {token} " for token in special}}
    lines = "\n".join(f"{found}\t{becomes}" for found, becomes in entries.items())
    mapped = graph.node("StringMapping", [parts], domain=EXTENSIONS, map=lines)
    ended = graph.node("Concat", [mapped, graph.strings(" ")], axis=0)
    joined = graph.node("StringJoin", [ended, graph.strings(""), graph.vector(0)], domain=EXTENSIONS)
    kept = replaced(graph, joined, literal(table.mark), "")
    marked = replaced(graph, kept, " +", f" {table.mark} ")
    return replaced(graph, marked, "^ ", "")


def _looked_up(graph: Graph, words: str, lines: list[str], unknown: str, continuing: str) -> str:
    """The ids of pieces and marks. The operator wants all special tokens to exist, and puts two of them around."""
    special: dict[str, Any] = dict.fromkeys(("unk_token", "cls_token", "sep_token", "pad_token", "mask_token"), unknown)
    settings: dict[str, Any] = {"do_lower_case": 0, "do_basic_tokenize": 0, "suffix_indicator": continuing}
    vocabulary = "\n".join(lines)
    found = graph.nodes("BertTokenizer", [words], 3, domain=EXTENSIONS, vocab_file=vocabulary, **settings, **special)
    return graph.node("Slice", [found[0], graph.vector(1), graph.vector(-1), graph.vector(0)])


def _without_cut_words(graph: Graph, ids: str, mark: int, unknown: int) -> str:
    """A word with an unknown piece, which is its last, is that piece alone; marks go."""
    g = graph
    scalars = {value: g.constant(f"scalar_{value}", np.array(value, np.int64)) for value in (mark, unknown, 1)}
    is_mark = g.node("Equal", [ids, scalars[mark]])
    marks_before = g.node("CumSum", [g.node("Cast", [is_mark], to=INT64), g.constant("axis", np.array(0, np.int32))])
    ends = g.node("Squeeze", [g.node("NonZero", [is_mark]), g.vector(0)])
    # Of a mark itself the next one is taken, or the last: it goes in any case.
    word = g.node("Min", [marks_before, g.node("Sub", [g.node("Size", [ends]), scalars[1]])])
    last = g.node("Sub", [g.node("Gather", [ends, word]), scalars[1]])
    cut = g.node("Equal", [g.node("Gather", [ids, last]), scalars[unknown]])
    places = g.node("Range", [g.constant("zero", np.array(0, np.int64)), g.node("Size", [ids]), scalars[1]])
    whole = g.node("Or", [g.node("Not", [cut]), g.node("Equal", [places, last])])
    kept = g.node("And", [g.node("Not", [is_mark]), whole])
    return g.node("Compress", [ids, g.node("Cast", [kept], to=BOOL)], axis=0)


def _lines(vocabulary: Mapping[str, int], mark: str) -> list[str]:
    """One token a line, its number its id, and the mark. Raises UnsupportedModel for tokens that hold a line's end."""
    tokens = {index: token for token, index in vocabulary.items()}
    lines = [tokens.get(index, f"no token {index}") for index in range(max(tokens) + 1)]
    broken = next((token for token in lines if not token or set(token) & set("\r\n\0")), None)
    if broken is not None or mark in vocabulary:
        raise UnsupportedModel(
            f"the vocabulary has the token {broken or mark!r}, which cannot go into a graph; export without text input"
        )
    return [*lines, mark]


def _check_kind(part: str, definition: Mapping[str, Any], covered: tuple[str, ...]) -> None:
    kind = (definition[part] or {}).get("type", "none")
    if kind not in covered:
        raise UnsupportedModel(
            f"the tokenizer's {part} {kind} cannot go into an ONNX graph (covered is {', '.join(covered)}); export "
            "without text input"
        )


def _class(ranges: Iterable[Range]) -> str:
    return "".join(f"\\x{{{first:X}}}-\\x{{{last:X}}}" for first, last in ranges)
