"""Answers under a grammar, from random logits over a vocabulary of real merges: the hardest case there is, since nothing
leans towards JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from mobile_llm.errors import InvalidSpec
from mobile_llm.generation.grammars import Grammar, Grammars, Lark, Regex
from mobile_llm.generation.json_schema import ANY_OBJECT
from mobile_llm.generation.sampler import Sampler

pytest.importorskip("llguidance")
import jsonschema
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

STOP = 0
BUDGET = 120
_ADDRESS = {
    "type": "object",
    "properties": {"street": {"type": "string", "maxLength": 20}, "number": {"type": "integer", "minimum": 1}},
    "required": ["street", "number"],
    "additionalProperties": False,
}
_TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 3},
            },
            "required": ["value", "children"],
            "additionalProperties": False,
        }
    },
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "any object": ANY_OBJECT,
    "nested": {"type": "object", "properties": {"home": _ADDRESS, "work": _ADDRESS}, "required": ["home", "work"]},
    "optional": {"type": "object", "properties": {"a": {"type": "boolean"}, "b": _ADDRESS}, "required": ["b"]},
    "array": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 5},
    "tuple": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "null"}], "items": False, "minItems": 2},
    "matrix": {"type": "array", "items": {"type": "array", "items": {"type": "number"}, "maxItems": 2}, "minItems": 1},
    "enum": {"enum": ["red", "green", "dark blue", 7, None, [1, 2], {"a": True}]},
    "const": {"type": "object", "properties": {"kind": {"const": "invoice"}}, "required": ["kind"]},
    "integers": {"type": "integer", "minimum": -20, "maximum": 315},
    "numbers": {"type": "number", "exclusiveMinimum": 0.25, "maximum": 1},
    "multiples": {"type": "integer", "multipleOf": 5, "minimum": 10, "maximum": 200},
    "lengths": {"type": "string", "minLength": 3, "maxLength": 12},
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}(/[a-z]+)?$"},
    "address": {"type": "string", "pattern": "^[a-z]+@[a-z]+[.]org$"},
    "formats": {"type": "array", "items": {"type": "string", "format": "date"}, "minItems": 1, "maxItems": 2},
    "unicode": {
        "type": "object",
        "properties": {"größe": {"enum": ["klein", "groß", "大", "👍🏽", 'a"b\\c\n']}, "名": {"type": "string"}},
        "required": ["größe", "名"],
    },
    "any of": {"anyOf": [{"type": "null"}, _ADDRESS, {"type": "array", "items": {"type": "boolean"}}]},
    "one of": {"oneOf": [{"type": "string", "maxLength": 5}, {"type": "integer"}]},
    "all of": {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 50}]},
    "tree": _TREE,
    "map": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}, "maxProperties": 3},
}


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
