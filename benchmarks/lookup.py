"""Whether prompt lookup leaves greedy answers as they are, and how much faster they come.

    python -m benchmarks.lookup BUNDLE [--artifact ID] [--prompts 50] [--max-tokens 64] [--threads N] [--force] [--json]

Each prompt is answered with lookup and without, in turns, after its first token was written once, so that both find it
read. Half of the prompts ask for what a text says, whose words are there to be taken; the others do not. `--force` asks
for lookup where it is off by default. Judged are the tokens, all of them. Not covered: phones, sampled answers.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import mobile_llm
from mobile_llm.tasks.text_generation import Answer, ChatModel

SUMMARIZING, OTHER = "summarizing", "other"
_PASSAGES = (
    "The lighthouse on the north cape was built in 1871. Its lamp burned whale oil until 1902, when a paraffin burner "
    "took its place. In 1956 the last keeper left, and the light has run on electricity since then.",
    "Bread rises because yeast turns sugar into carbon dioxide. The gas is caught in a net of gluten, which kneading "
    "makes strong. In the oven the gas grows, the starch sets, and the crust turns brown.",
    "The committee met on Tuesday. It agreed to repair the bridge over the mill stream before winter, to close the old "
    "ferry, and to ask the county for half of the cost. The next meeting is on the third of May.",
    "A glacier is ice that moves. Snow that falls in winter and does not melt in summer is pressed into ice by the "
    "snow above it. Where the ice is thick enough it flows downhill, a few metres in a year or many in a day.",
    "The phone has a screen of six inches, a battery of four thousand milliampere hours and two cameras. It charges in "
    "ninety minutes. The screen is bright enough for the sun, but the speaker is weak.",
)
_TASKS = (
    "Summarize this text:",
    "Repeat the most important sentences of this text:",
    "Correct the spelling of this text and change nothing else:",
    "Write this text down again:",
    "What does this text say? Quote it.",
)
_SUBJECTS = ("the sea", "a bicycle", "winter", "a violin", "the moon")
_QUESTIONS = (
    "Write a short poem about {}.",
    "Explain {} to a child.",
    "Name three facts about {}.",
    "Tell a story that begins with {}.",
    "Why do people like {}?",
)


@dataclass(frozen=True)
class Row:
    """One prompt, answered both ways."""

    kind: str
    identical: bool
    tokens: int
    plain_tokens: int
    proposed: int
    accepted: int
    seconds: float
    plain_seconds: float


@dataclass(frozen=True)
class Summary:
    """`speed` is tokens a second with lookup over those without, by kind; `load` of the machine, in the last minute."""

    artifact: str
    prompts: int
    identical: int
    proposed: int
    accepted: int
    speed: dict[str, float]
    load: float


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--artifact", metavar="ID")
    parser.add_argument("--prompts", type=int, default=50, metavar="N")
    parser.add_argument("--max-tokens", type=int, default=64, metavar="N")
    parser.add_argument("--threads", type=int, metavar="N")
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with mobile_llm.load(args.bundle, args.artifact, args.threads) as model:
        rows = list(measure(model, args.prompts, args.max_tokens, args.force or None))
        summary = summarize(model.engine.artifact_id, rows)
    print(json.dumps(asdict(summary)) if args.json else _in_words(summary))
    return 0 if summary.identical == summary.prompts else 1


def measure(model: ChatModel, count: int, max_tokens: int, lookup: bool | None) -> Iterator[Row]:
    for number, (kind, prompt) in enumerate(prompts()[:count]):
        asked: Any = [{"role": "user", "content": prompt}] if model.chats else prompt
        model.generate(asked, max_tokens=1)
        ways = (lookup, False) if number % 4 < 2 else (False, lookup)  # each kind is first as often as last
        answers = {way: _timed(model, asked, max_tokens, way) for way in ways}
        (looked, seconds), (plain, plain_seconds) = answers[lookup], answers[False]
        stats = looked.stats
        yield Row(
            kind,
            looked.tokens == plain.tokens,
            len(looked.tokens),
            len(plain.tokens),
            stats.proposed_tokens,
            stats.accepted_tokens,
            seconds,
            plain_seconds,
        )


def prompts() -> list[tuple[str, str]]:
    """50 with their kinds, one of each in turns."""
    about = [f"{task}\n\n{passage}" for passage in _PASSAGES for task in _TASKS]
    free = [question.format(subject) for subject in _SUBJECTS for question in _QUESTIONS]
    return [kind for pair in zip(about, free) for kind in zip((SUMMARIZING, OTHER), pair)]


def summarize(artifact: str, rows: list[Row]) -> Summary:
    return Summary(
        artifact,
        len(rows),
        sum(row.identical for row in rows),
        sum(row.proposed for row in rows),
        sum(row.accepted for row in rows),
        {kind: _speed([row for row in rows if row.kind == kind]) for kind in {row.kind for row in rows}},
        os.getloadavg()[0],
    )


def _speed(rows: list[Row]) -> float:
    plain = sum(row.plain_seconds for row in rows) / sum(row.plain_tokens for row in rows)
    return plain / (sum(row.seconds for row in rows) / sum(row.tokens for row in rows))


def _timed(model: ChatModel, prompt: Any, max_tokens: int, lookup: bool | None) -> tuple[Answer, float]:
    start = time.perf_counter()
    return model.generate(prompt, max_tokens, lookup=lookup), time.perf_counter() - start


def _in_words(summary: Summary) -> str:
    speeds = ", ".join(f"{speed:.2f} x on {kind} prompts" for kind, speed in sorted(summary.speed.items()))
    return (
        f"{summary.artifact}: {summary.identical} of {summary.prompts} greedy answers identical, "
        f"{summary.accepted} of {summary.proposed} guesses right\n{speeds} (load {summary.load:.1f})"
    )


if __name__ == "__main__":
    raise SystemExit(main())
