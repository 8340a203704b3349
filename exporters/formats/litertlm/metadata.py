"""What LiteRT-LM is told of a model beside its graph: LlmMetadata, a protocol buffer, and the tokenizer.

The chat template is the model's own, behind a preamble for what LiteRT-LM does otherwise than transformers: contents
come as lists of parts, and special tokens are not among the variables. Tools are left to templates that know them.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping

from exporters.formats.litertlm.texts import Texts
from mobile_llm.bundle.manifest import Generation

_VARINT, _BYTES, _FLOAT = 0, 2, 5
# Numbers of LlmMetadata and of the messages inside it.
_START, _STOP, _SAMPLER, _MOST_TOKENS, _KIND, _TEMPLATE, _THINKS, _CALLS = 1, 2, 4, 5, 6, 7, 11, 12
_TOKEN_IDS, _IDS, _GENERIC = 1, 1, 1
_TOP_K, _TOP_P = 1, 2
_ALL = 1024  # of the likeliest tokens, where the model does not limit them
# Contents that are lists of parts become one text.
_PARTS = (
    "{%- set flat = namespace(messages=[]) -%}"
    "{%- for message in messages -%}"
    "{%- if message['content'] is string -%}"
    "{%- set flat.messages = flat.messages + [message] -%}"
    "{%- else -%}"
    "{%- set text = namespace(all='') -%}"
    "{%- for part in message['content'] or [] -%}"
    "{%- if part['type'] == 'text' -%}{%- set text.all = text.all + part['text'] -%}{%- endif -%}"
    "{%- endfor -%}"
    "{%- set flat.messages = flat.messages + [dict(message, content=text.all)] -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- set messages = flat.messages -%}"
)


def llm_metadata(context: int, texts: Texts) -> bytes:
    """A serialized LlmMetadata of a model of no special kind."""
    generation, template = texts.generation, texts.template
    return b"".join(
        [
            _token(_START, texts.start) if texts.start is not None else b"",
            *(_token(_STOP, token) for token in generation.stop),
            _field(_SAMPLER, _sampler(generation)),
            _number(_MOST_TOKENS, context),
            _field(_KIND, _field(_GENERIC, b"")),
            _field(_TEMPLATE, packed_template(template, generation.special).encode()) if template else b"",
            _number(_THINKS, 0),
            _number(_CALLS, 0),
        ]
    )


def packed_template(template: str, special: Mapping[str, str]) -> str:
    tokens = (f"{{%- set {name} = {json.dumps(token)} -%}}" for name, token in special.items())
    return "".join(tokens) + _PARTS + template


def packed_tokenizer(contents: bytes) -> bytes:
    """tokenizer.json, compressed."""
    return len(contents).to_bytes(8, "little") + zlib.compress(contents)


def _sampler(generation: Generation) -> bytes:
    """The model's own sampling; the likeliest token where it has none."""
    if not generation.temperature:
        return _number(1, _TOP_K) + _number(2, 1)
    chosen = [_number(1, _TOP_P), _number(2, generation.top_k or _ALL), _float(3, generation.top_p)]
    return b"".join([*chosen, _float(4, generation.temperature)])


def _token(number: int, token: int) -> bytes:
    return _field(number, _field(_TOKEN_IDS, _field(_IDS, _varint(token))))


def _field(number: int, contents: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(contents)) + contents


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3 | _VARINT) + _varint(value)


def _float(number: int, value: float) -> bytes:
    return _varint(number << 3 | _FLOAT) + struct.pack("<f", value)


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
