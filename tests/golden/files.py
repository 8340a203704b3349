"""The golden files by name, and their texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import prompts, sampling, sessions, texts

FOLDER = Path(__file__).parent


def contents() -> dict[str, str]:
    """A text of JSON for each file, one case a line."""
    files = {
        "pcg32.json": sampling.numbers(),
        "sampler.json": sampling.choices(),
        "tokenizers.json": texts.tokenized(),
        "detokenizer.json": texts.streamed(),
        "stop_strings.json": texts.stopped(),
        "templates.json": prompts.rendered(),
        "sessions.json": sessions.transcripts(),
    }
    return {name: _in_lines(content) for name, content in files.items()}


def _in_lines(content: dict[str, Any]) -> str:
    head = {key: value for key, value in content.items() if key != "cases"}
    head["description"] = " ".join(head["description"].split())
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in content["cases"])
    return json.dumps(head, ensure_ascii=False, indent=1)[:-2] + f',\n "cases": [\n{lines}\n]}}\n'
