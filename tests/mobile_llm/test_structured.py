"""Answers under a grammar, from random logits over a vocabulary of real merges: the hardest case there is, since
nothing leans towards JSON."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import numpy as np
import pytest

from benchmarks.structured import SCHEMAS
from mobile_llm.errors import BackendUnavailable, InvalidSpec, UnsupportedModel
from mobile_llm.generation.grammars import Grammar, Grammars, Lark, Regex
from mobile_llm.generation.json_schema import ANY_OBJECT
from mobile_llm.generation.sampler import Sampler

pytest.importorskip("llguidance")
import jsonschema
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

STOP = 0
BUDGET = 120


def _endless() -> dict[str, Any]:
    """A matryoshka without a smallest one, by way of an array and a choice."""
    shell = {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/doll"}]}, "minItems": 1}
    return {
        "type": "object",
        "properties": {"outer": {"$ref": "#/$defs/doll"}},
        "required": ["outer"],
        "$defs": {"doll": {"type": "object", "properties": {"inner": shell}, "required": ["inner"]}},
    }


def _logits(tokenizer: Tokenizer) -> np.ndarray:
    return np.zeros(tokenizer.get_vocab_size() + 7, np.float32)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Byte-level BPE with merges of JSON and prose."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = ['{"name": "a", "items": [1, 2], "ok": true}, {"größe": null}', "a text of words and 名 numbers 2024"] * 9
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=["<stop>", "<call>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    return tokenizer


@pytest.fixture(scope="module")
def grammars(tokenizer: Tokenizer) -> Grammars:
    return Grammars(tokenizer.to_str(), [STOP])


class Written:
    """What comes out of random logits."""

    def __init__(self, tokenizer: Tokenizer, grammars: Grammars, grammar: Grammar, budget: int, seed: int) -> None:
        self.constraint = grammars.start(grammar, budget)
        random, choose = np.random.default_rng(seed), Sampler(temperature=1.0).start(seed)
        ids: list[int] = []
        while len(ids) < budget and not self.constraint.finished():
            logits = (2 * random.standard_normal(tokenizer.get_vocab_size() + 7)).astype(np.float32)
            self.constraint.apply(logits)
            token = choose(logits, ids)
            if token == STOP:
                break
            ids.append(token)
            self.constraint.accept(token)
        self.ids = ids
        self.text = tokenizer.decode(ids)


@pytest.mark.parametrize("name", list(SCHEMAS))
def test_random_logits_give_valid_json(name: str, tokenizer: Tokenizer, grammars: Grammars) -> None:
    validator = jsonschema.Draft202012Validator(SCHEMAS[name], format_checker=jsonschema.FormatChecker())
    for seed in range(10):
        written = Written(tokenizer, grammars, SCHEMAS[name], BUDGET, seed)
        assert written.constraint.complete, written.text
        validator.validate(json.loads(written.text))


@pytest.mark.parametrize("seed", range(5))
def test_other_grammars_are_followed(seed: int, tokenizer: Tokenizer, grammars: Grammars) -> None:
    assert re.fullmatch(r"(ab|c)+\.\d{2}", Written(tokenizer, grammars, Regex(r"(ab|c)+\.[0-9]{2}"), 40, seed).text)
    written = Written(tokenizer, grammars, Lark('start: "yes" | "no" WHY\nWHY: /, [a-z ]{3,9}/'), 40, seed)
    assert re.fullmatch("yes|no, [a-z ]{3,9}", written.text)


def test_white_space_is_bounded(tokenizer: Tokenizer, grammars: Grammars) -> None:
    constraint = grammars.start({"type": "array"}, 100)
    for text, allowed in (("[", True), ("\n", True), (" ", True), ("\n", False)):
        token = tokenizer.encode(text).ids[0]
        constraint.apply(logits := _logits(tokenizer))
        assert np.isfinite(logits[token]) == allowed
        if allowed:
            constraint.accept(token)


def test_logits_that_are_no_tokens_are_never_chosen(tokenizer: Tokenizer, grammars: Grammars) -> None:
    logits = _logits(tokenizer)
    grammars.start(ANY_OBJECT, 100).apply(logits)
    assert np.isinf(logits[tokenizer.get_vocab_size() :]).all()
    assert logits.argmax() == tokenizer.token_to_id("{")


def test_a_budget_changes_nothing_while_it_is_far(tokenizer: Tokenizer, grammars: Grammars) -> None:
    schema = {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 3, "maxItems": 6}
    short, long = (Written(tokenizer, grammars, schema, budget, seed=3) for budget in (90, 900))
    assert short.ids == long.ids
    assert not short.constraint.shortened


def test_an_answer_is_brought_to_its_end_and_says_so(tokenizer: Tokenizer, grammars: Grammars) -> None:
    written = Written(tokenizer, grammars, {"type": "string"}, 12, seed=0)
    assert written.constraint.complete
    assert written.constraint.shortened
    assert isinstance(json.loads(written.text), str)


def test_an_end_that_is_out_of_reach_is_not_hidden(tokenizer: Tokenizer, grammars: Grammars) -> None:
    written = Written(tokenizer, grammars, {"type": "string", "minLength": 60}, 9, seed=0)
    assert len(written.ids) == 9
    assert not written.constraint.complete


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        ([1], r'^a JSON schema is a mapping such as {"type": "object"}, not list$'),
        ({"type": "strin"}, "^this is no JSON schema: Invalid type: strin$"),
        ({"properties": 3}, "^this is no JSON schema: properties must be an object$"),
        ({"type": {"a", "b"}}, "^this is no JSON schema: Object of type set is not JSON serializable; pass what"),
        ({"pattern": "["}, "^this is no JSON schema: a pattern in it is no regular expression, unclosed"),
        ({"$ref": "#/$defs/a"}, "^this is no JSON schema: Pointer '/\\$defs/a' does not exist$"),
        (
            {"uniqueItems": True},
            '^this schema asks for "uniqueItems", which cannot be followed; leave it out, and check',
        ),
        ({"format": "color"}, "^this schema asks for the format color, which is not known; leave it out"),
        ({"$ref": "http://a.b/c"}, "^this schema refers to http://a.b/c, outside of itself; copy"),
        ({"pattern": "a(?!b)"}, "^a pattern of this schema cannot be followed: look-around"),
        ({"oneOf": [{"type": "string"}, {"maxLength": 1}]}, "^this schema has a oneOf whose choices overlap"),
        ({"enum": []}, "^no answer can meet this schema: anyOf is empty$"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "^no answer can meet this schema: minimum .5. is greater"),
        (_endless(), "^no answer can meet this schema: something in it has to hold itself without end$"),
        (Regex("(a"), "^this regular expression cannot be followed: unclosed group$"),
        (Regex(r"[^\s\S]"), "^no answer can follow this grammar: there is nothing that it could begin with$"),
        (Lark("start: b"), '^this grammar cannot be followed: .*unknown name: "b"$'),
    ],
)
def test_what_cannot_be_followed_is_refused(schema: Any, sentence: str, grammars: Grammars) -> None:
    with pytest.raises(InvalidSpec, match=sentence) as refused:
        grammars.start(schema, 50)
    assert "\n" not in str(refused.value)


def test_what_can_hold_itself_is_no_contradiction(grammars: Grammars) -> None:
    for way_out in ({"anyOf": [{"type": "null"}, {"$ref": "#"}]}, {"type": "array", "items": {"$ref": "#"}}):
        grammars.start({"type": "object", "properties": {"a": way_out}, "required": ["a"]}, 50)


def test_a_compiled_grammar_is_kept(grammars: Grammars) -> None:
    before = grammars._compiled.cache_info().hits
    grammars.start({"type": "object", "title": "kept"}, 50)
    grammars.start({"type": "object", "title": "kept"}, 50)
    assert grammars._compiled.cache_info().hits == before + 1


def test_letters_that_are_bytes_too_are_one_text() -> None:
    """SentencePiece with a byte fallback: what is forced is allowed as one of two tokens only."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *'▁abcn{}[]:,"0123456789.-']
    model = models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=[], byte_fallback=True, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    schema = {
        "type": "object",
        "properties": {"a b": {"type": "string"}, "n": {"type": "integer"}},
        "required": ["a b", "n"],
        "additionalProperties": False,
    }
    for seed in range(10):
        written = Written(tokenizer, Grammars(tokenizer.to_str(), [STOP]), schema, 60, seed)
        jsonschema.validate(json.loads(written.text), schema)


def test_a_tokenizer_that_cannot_be_followed_is_refused() -> None:
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece()
    with pytest.raises(UnsupportedModel, match="llguidance cannot hold answers of this tokenizer to a grammar"):
        Grammars(tokenizer.to_str(), [0])


def test_without_the_library_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(BackendUnavailable, match=r"mobile-llm\[structured\]"):
        Grammars("{}", [0])
