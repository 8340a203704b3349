"""What a LiteRT-LM file has beside its model, taken from a bundle's own files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tokenizers

from mobile_llm.bundle.manifest import Generation
from mobile_llm.errors import UnsupportedModel
from mobile_llm.generation.template import TEMPLATE_FILE


@dataclass(frozen=True)
class Texts:
    """`tokenizer` is tokenizer.json. `start` is put before every conversation, so it is only there where no `template`
    decides how one begins."""

    tokenizer: bytes
    template: str | None
    generation: Generation
    start: int | None = None


def read_texts(folder: Path, generation: Generation) -> Texts:
    """Those of the files in `folder`. Raises UnsupportedModel without a tokenizer.json."""
    tokenizer, template = folder / "tokenizer.json", folder / TEMPLATE_FILE
    if not tokenizer.is_file():
        raise UnsupportedModel("the model has no tokenizer.json, which LiteRT-LM needs; leave out the format litertlm")
    contents = tokenizer.read_bytes()
    if template.is_file():
        return Texts(contents, template.read_text(encoding="utf-8"), generation)
    return Texts(contents, None, generation, _first_token(contents))


def _first_token(tokenizer: bytes) -> int | None:
    """What the tokenizer puts before a text; LiteRT-LM leaves that to its start token."""
    read = tokenizers.Tokenizer.from_buffer(tokenizer)
    first = read.encode("a").ids[0]
    return None if first == read.encode("a", add_special_tokens=False).ids[0] else int(first)
