"""Artifacts that take strings against the two-step path (tokenizer.json, then ids), on seeded random strings.

    python -m benchmarks.fuzz_text_input BUNDLE --strings 10000 --seed 0 [--artifact onnx/int8-text] [--json]

Every string whose ids, label or embedding differs is listed, escaped, and so is every string that the artifact refuses.
Exit code 1 where a label differs. Not covered: lone surrogates, which are no text in UTF-8.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from benchmarks.strings import random_strings
from mobile_llm.bundle import Bundle
from mobile_llm.engine import Engine
from mobile_llm.errors import InvalidInput, MobileLlmError
from mobile_llm.tasks.encoding import ENCODE_TEXT, TOKENIZE, StringEncoder
from mobile_llm.tasks.tokenization import TextTokenizer, stack

_SUFFIX = "-text"


@dataclass
class Comparison:
    """What one artifact made of the strings. `smallest_cosine` is over embeddings or logits of all that were compared;
    strings are escaped."""

    artifact: str
    strings: int
    ids_differ: list[str] = field(default_factory=list)
    labels_differ: list[str] = field(default_factory=list)
    outputs_differ: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    truncated: int = 0
    smallest_cosine: float = 1.0
    largest_difference: float = 0.0


def compare(bundle: Bundle, artifact_id: str, texts: Sequence[str], threads: int = 2) -> Comparison:
    """Each text through the artifact as a string, and through its twin without a tokenizer as ids."""
    found = Comparison(artifact_id, len(texts))
    tokenizer = TextTokenizer(bundle)
    with (
        Engine.open(bundle, artifact_id, threads) as with_text,
        Engine.open(bundle, artifact_id.removesuffix(_SUFFIX), threads) as with_ids,
    ):
        strings = StringEncoder(with_text)
        for text in texts:
            try:
                inside = strings.run(text, ENCODE_TEXT, TOKENIZE)
            except InvalidInput:
                found.refused.append(ascii(text))
                continue
            encoded = tokenizer.encode(text)
            found.truncated += len(encoded.ids) == bundle.manifest.text_policy.max_length
            if tuple(inside["input_ids"][0]) != encoded.ids:
                found.ids_differ.append(ascii(text))
            _compare_outputs(found, text, inside, with_ids.run("encode", stack([encoded])))
    return found


def _compare_outputs(found: Comparison, text: str, inside: dict[str, Any], beside: dict[str, Any]) -> None:
    """The answer about the whole text: logits, or the embedding."""
    name = "logits" if "logits" in beside else "sentence_embedding"
    one, other = inside[name][0].astype(np.float64), beside[name][0].astype(np.float64)
    if name == "logits" and one.argmax() != other.argmax():
        found.labels_differ.append(ascii(text))
    difference = float(np.abs(one - other).max())
    if difference > 0:
        found.outputs_differ.append(ascii(text))
    found.largest_difference = max(found.largest_difference, difference)
    cosine = float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
    found.smallest_cosine = min(found.smallest_cosine, cosine)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--strings", type=int, default=10_000, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--artifact", metavar="ID", help="default: all that take strings")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    try:
        results = _compared(args)
    except MobileLlmError as error:
        print(f"fuzz_text_input: {error}", file=sys.stderr)
        return error.exit_code
    if args.json:
        print(json.dumps({"seed": args.seed, "artifacts": [asdict(result) for result in results]}, indent=2))
    else:
        for result in results:
            _print(result)
    return 1 if any(result.labels_differ for result in results) else 0


def _compared(args: argparse.Namespace) -> list[Comparison]:
    bundle = Bundle.open(args.bundle)
    able = [name for name, artifact in bundle.manifest.artifacts.items() if ENCODE_TEXT in artifact.entry_points]
    chosen = [args.artifact] if args.artifact else able
    if not chosen or not set(chosen) <= set(able):
        raise InvalidInput(f"{args.bundle} has no such artifact that takes strings; export with --text-input")
    texts = random_strings(args.strings, args.seed)
    return [compare(bundle, artifact_id, texts) for artifact_id in chosen]


def _print(result: Comparison) -> None:
    lists = {
        "ids that differ": result.ids_differ,
        "labels that differ": result.labels_differ,
        "outputs that differ": result.outputs_differ,
        "refused": result.refused,
    }
    print(f"{result.artifact}: {result.strings} strings, {result.truncated} of them at the model's limit")
    print(f"  smallest cosine {result.smallest_cosine:.9f}, largest difference {result.largest_difference:.3g}")
    for name, strings in lists.items():
        print(f"  {name}: {len(strings)}")
        for text in strings:
            print(f"    {text}")


if __name__ == "__main__":
    sys.exit(main())
