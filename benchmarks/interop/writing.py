"""What the bundle's own runtime writes, greedily, artifact by artifact: what every client's text is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.interop.judge import Row
from mobile_llm.bundle import Bundle
from mobile_llm.generation.engine import DecoderEngine
from mobile_llm.tasks.text_generation import ChatModel
from mobile_llm.tasks.tokenization import TextTokenizer

COUNT = 50  # tokens
# Logits between the likeliest token and another one below which a runtime of another version may choose the other: the
# sums of float32 come in another order; quantized, activations are rounded to 8 bits after them, which moves more. (How
# much is not settled: in our runtime alone SmolLM2's first two move by up to 0.95 when a prompt is read otherwise.)
TIE, QUANTIZED_TIE = 1e-3, 0.25
_KEPT = 8  # of the likeliest tokens of each step
_ASKED = (
    "What is the capital of France?",
    "Write one sentence about the sea 🌊, then translate it: “海はとても静かです。”",
)
_BEGUN = ("Once upon a time, in a village at the foot of a mountain,", "def fibonacci(n):\n    ")
Prompt = dict[str, Any]


@dataclass(frozen=True)
class Written:
    """The ids of a prompt, those written after it, and for each step how far below the best the likeliest few are."""

    prompt: list[int]
    tokens: list[int]
    below: list[Mapping[int, float]]


def prompts(chats: bool) -> list[Prompt]:
    """Texts to go on with, and conversations where the model has a template for them."""
    conversations = [{"messages": [{"role": "user", "content": text}]} for text in _ASKED]
    return [*({"text": text} for text in _BEGUN), *(conversations if chats else ())]


def write_all(bundle: Bundle, artifact_id: str, asked: Sequence[Prompt]) -> list[Written]:
    """`COUNT` tokens after each prompt, fewer where the text ends. Raises BackendUnavailable, IntegrityFailed."""
    model = ChatModel(DecoderEngine.open(bundle, artifact_id, threads=2))
    generation = bundle.manifest.task.generation
    stop = set(generation.stop) if generation else set()
    try:
        return [_written(model, prompt.get("messages") or prompt["text"], stop) for prompt in asked]
    finally:
        model.close()


def _written(model: ChatModel, prompt: Any, stop: set[int]) -> Written:
    ids = model.encode(prompt)
    found = Written(ids, [], [])
    logits = model.engine.continue_with(ids)
    while len(found.tokens) < COUNT:
        best = np.argsort(-logits, kind="stable")[:_KEPT]
        found.below.append({int(token): float(logits[best[0]] - logits[token]) for token in best})
        if int(best[0]) in stop:
            break
        found.tokens.append(int(best[0]))
        logits = model.engine.append([int(best[0])])
    return found


@dataclass(frozen=True)
class WritingJudge:
    """Judges a client's answer: {readings: [{artifact, way, prompts, written}], errors}, both lists of ids, an entry
    per prompt; a client that gives none gives `texts`."""

    bundle: Bundle
    wanted: Mapping[str, Sequence[Written]]  # by the artifact's path

    def __call__(self, client: str, artifact: str, answer: Mapping[str, Any]) -> list[Row]:
        readings = [reading for reading in answer["readings"] if reading["artifact"] == artifact]
        if not readings:
            note = answer["errors"].get(artifact, "the client gave no reading")
            return [Row(client, artifact, "", "FAIL", note=note)]
        return [self._judge(client, reading) for reading in readings]

    def _judge(self, client: str, reading: Mapping[str, Any]) -> Row:
        artifact, wanted = reading["artifact"], self.wanted[reading["artifact"]]
        given = reading.get("written") or reading["texts"]
        if len(given) != len(wanted):
            note = f"{len(given)} answers to {len(wanted)} prompts"
            return Row(client, artifact, reading["way"], "FAIL", note=note)
        written = [self._ended(one if isinstance(one, list) else self._ids(one, w)) for one, w in zip(given, wanted)]
        tie = TIE if artifact.endswith(("/model.onnx", "/fp32.litertlm")) else QUANTIZED_TIE
        pairs = zip(wanted, reading.get("prompts") or [w.prompt for w in wanted], written)
        faults = [fault for place, pair in enumerate(pairs) for fault in _faults(place, *pair, tie)]
        same = sum(ids == w.tokens for ids, w in zip(written, wanted))
        verdict = "FAIL" if any(wrong for wrong, _ in faults) else "pass"
        note = "; ".join(words for _, words in faults)
        return Row(client, artifact, reading["way"], verdict, same_texts=f"{same}/{len(wanted)}", note=note)

    def _ended(self, ids: Sequence[int]) -> list[int]:
        """Without the token that ended the text, which some clients give and some do not."""
        generation = self.bundle.manifest.task.generation
        stop = generation.stop if generation else ()
        return list(ids[: next((i for i, token in enumerate(ids) if token in stop), len(ids))])

    def _ids(self, text: str, wanted: Written) -> list[int]:
        """Of a client's text; a model does not always write the tokens that its own text is cut into."""
        tokenizer = TextTokenizer(self.bundle)
        return wanted.tokens if tokenizer.decode(wanted.tokens) == text else list(tokenizer.encode(text, False).ids)


def _faults(
    place: int, wanted: Written, prompt: Sequence[int], written: Sequence[int], tie: float
) -> list[tuple[bool, str]]:
    """What differs in one text, each with whether it is wrong."""
    if list(prompt) != wanted.prompt:
        return [(True, f"prompt {place}: other tokens")]
    if written == wanted.tokens:
        return []
    pairs = zip(written, wanted.tokens)
    first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(written), len(wanted.tokens)))
    if first == len(written) or first == len(wanted.below):
        return [(True, f"prompt {place}: {len(written)} tokens instead of {len(wanted.tokens)}")]
    gap = wanted.below[first].get(written[first], float("inf"))
    words = f"prompt {place}: another token at {first}, {gap:.2g} below the best (a tie up to {tie:g})"
    return [(not gap <= tie, words)]
