"""Byte-level BPE in a graph: HfJsonTokenizer of onnxruntime-extensions, given the tokenizer.json.

Measured equal for RoBERTa's but for U+0085, which it takes for no space (listed as not checked in the verification);
what it gets wrong of other pre-tokenizers is found by comparison. It leaves out
normalizers (ModernBERT's NFC), so a tokenizer with one is refused. Special tokens around the text are added by the
graph and not by the operator, which guesses them from names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from exporters.formats.onnx.graph import EXTENSIONS, Graph
from exporters.formats.onnx.text.ids import BareIds
from exporters.formats.onnx.text.strings import literal, replaced
from mobile_llm.errors import UnsupportedModel

# The class decides about nothing but the special tokens around a text; this one adds none.
_CONFIG = {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": False, "add_eos_token": False}
_SPACES = r"[\t-\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}]+"


def byte_level(tokenizer: Any, definition: Mapping[str, Any]) -> BareIds:
    """Raises UnsupportedModel for BPE that is not over bytes."""
    if not _over_bytes(definition["pre_tokenizer"]):
        raise UnsupportedModel(
            "a BPE tokenizer that is not over bytes (no ByteLevel) cannot go into an ONNX graph; export without text "
            "input"
        )
    if definition["normalizer"]:
        raise UnsupportedModel(
            f"the tokenizer's normalizer {definition['normalizer']['type']} is one that HfJsonTokenizer leaves out; "
            "export without text input"
        )
    words = next((token["content"] for token in definition["added_tokens"] if token["single_word"]), None)
    if words is not None:
        raise UnsupportedModel(
            f"the added token {words!r} is looked for as a whole word, which HfJsonTokenizer does not; export without "
            "text input"
        )
    tokens = definition["added_tokens"]
    # Where a text ends soon after what could begin a special token ("<3"), the operator drops its last character; so
    # every text is ended by one, whose id is taken off again.
    closing = next((token["content"] for token in tokens if token["special"] and "\\" not in token["content"]), None)
    if closing is None:
        raise UnsupportedModel("this BPE tokenizer has no special token to end a text with; export without text input")
    plain = [{**token, "lstrip": False, "rstrip": False} for token in tokens]
    bare = {**definition, "added_tokens": plain, "post_processor": None, "truncation": None, "padding": None}

    def build(graph: Graph, text: str) -> str:
        text = _without_spaces_beside(graph, text, tokens)
        settings = {"tokenizer_vocab": json.dumps(bare, ensure_ascii=False), "tokenizer_config": json.dumps(_CONFIG)}
        closed = replaced(graph, text, "$", closing)
        ids = graph.node("HfJsonTokenizer", [closed], domain=EXTENSIONS, **settings)
        flat = graph.node("Reshape", [ids, graph.vector(-1)])
        return graph.node("Slice", [flat, graph.vector(0), graph.vector(-1), graph.vector(0)])

    return build


def _without_spaces_beside(graph: Graph, text: str, tokens: Sequence[Mapping[str, Any]]) -> str:
    """Spaces that a token takes with it (`lstrip`, `rstrip`) are taken out: the operator would leave them."""
    for side, pattern in (("lstrip", f"{_SPACES}({{}})"), ("rstrip", f"({{}}){_SPACES}")):
        found = "|".join(literal(token["content"]) for token in tokens if token[side])
        if found:
            text = replaced(graph, text, pattern.replace("{}", found), r"\1")
    return text


def _over_bytes(pre_tokenizer: Mapping[str, Any] | None) -> bool:
    parts = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer])
    return any(part and part["type"] == "ByteLevel" for part in parts)
