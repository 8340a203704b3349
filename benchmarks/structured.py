"""What a JSON schema costs while a model writes, and whether every answer is valid by it.

    python -m benchmarks.structured BUNDLE [--artifact ID] [--answers 200] [--max-tokens 64] [--threads N] [--json]

Answers, greedy, take turns: one that meets a schema, then one without a constraint from the same prompt, of the same
length. Both find their prompt read. The schemas are those of schemas.json, each with several topics; validity is judged
by the package jsonschema. Answers that max_tokens cuts are counted apart, as are those that it brought to their end.
Not covered: phones, and whether an answer makes sense.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

import mobile_llm
from mobile_llm.errors import BackendUnavailable
from mobile_llm.tasks.text_generation import Answer, ChatModel

SCHEMAS: dict[str, dict[str, Any]] = json.loads(files("benchmarks").joinpath("schemas.json").read_text("utf-8"))
_TOPICS = ("a dog", "the sea", "Paris", "a bicycle", "winter", "a violin", "the moon", "bread", "a bank", "chess")


@dataclass(frozen=True)
class Row:
    """One answer under a schema, and the free one after it."""

    schema: str
    outcome: str  # valid, shortened (valid, for lack of tokens), cut or INVALID
    tokens: int
    seconds: float
    free_tokens: int
    free_seconds: float


@dataclass(frozen=True)
class Summary:
    artifact: str
    outcomes: dict[str, int]
    ms_per_token: float
    free_ms_per_token: float
    overhead: float  # 0.1 is a tenth more time for a token


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--artifact", metavar="ID")
    parser.add_argument("--answers", type=int, default=200, metavar="N")
    parser.add_argument("--max-tokens", type=int, default=64, metavar="N")
    parser.add_argument("--threads", type=int, metavar="N")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    model = mobile_llm.load(args.bundle, args.artifact, args.threads)
    rows = list(measure(model, args.answers, args.max_tokens))
    summary = summarize(model.engine.artifact_id, rows)
    if args.json:
        print(json.dumps(asdict(summary)))
    else:
        print(f"{summary.artifact}, greedy, at most {args.max_tokens} tokens: {_counted(summary.outcomes)}")
        print(f"{summary.ms_per_token:.2f} ms a token under a schema, {summary.free_ms_per_token:.2f} ms without,")
        print(f"in turns: {100 * summary.overhead:+.1f} % (an end near the last token takes longest)")
    return 1 if summary.outcomes.get("INVALID") else 0


def measure(model: ChatModel, answers: int, max_tokens: int) -> Iterator[Row]:
    """Raises BackendUnavailable where nothing can judge the answers."""
    is_valid = _validator()
    for i in range(answers):
        name = list(SCHEMAS)[i // len(_TOPICS) % len(SCHEMAS)]
        yield _pair(model, name, _TOPICS[i % len(_TOPICS)], max_tokens, is_valid)


def _pair(model: ChatModel, name: str, topic: str, max_tokens: int, is_valid: Callable[..., bool]) -> Row:
    schema = SCHEMAS[name]
    prompt = _prompt(model, schema, topic)
    model.generate(prompt, max_tokens=1, schema=schema)  # reads the prompt, compiles the schema
    answer, seconds = _timed(lambda: model.generate(prompt, max_tokens, schema=schema))
    free, free_seconds = _timed(lambda: model.generate(prompt, len(answer.tokens)))
    free_steps = len(free.tokens) + (free.finish == "stop")  # the stop token was computed too
    return Row(name, _outcome(answer, schema, is_valid), len(answer.tokens), seconds, free_steps, free_seconds)


def summarize(artifact: str, rows: list[Row]) -> Summary:
    ms = 1000 * sum(row.seconds for row in rows) / sum(row.tokens for row in rows)
    free = 1000 * sum(row.free_seconds for row in rows) / sum(row.free_tokens for row in rows)
    return Summary(artifact, dict(Counter(row.outcome for row in rows)), ms, free, ms / free - 1)


def _prompt(model: ChatModel, schema: dict[str, Any], topic: str) -> Any:
    text = f"Write JSON by this schema: {json.dumps(schema, ensure_ascii=False)}\nIt is about {topic}."
    return [{"role": "user", "content": text}] if model.chats else text


def _timed(work: Callable[[], Answer]) -> tuple[Answer, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def _outcome(answer: Answer, schema: dict[str, Any], is_valid: Callable[..., bool]) -> str:
    if not answer.complete:
        return "cut"
    if not is_valid(json.loads(answer.text), schema):
        return "INVALID"
    return "valid" if answer.finish == "stop" else "shortened"


def _validator() -> Callable[[Any, dict[str, Any]], bool]:
    try:
        from jsonschema import Draft202012Validator, FormatChecker
    except ImportError:
        raise BackendUnavailable(
            'answers are judged by jsonschema; install it with: pip install "jsonschema>=4"'
        ) from None
    return lambda value, schema: Draft202012Validator(schema, format_checker=FormatChecker()).is_valid(value)


def _counted(outcomes: dict[str, int]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())


if __name__ == "__main__":
    raise SystemExit(main())
