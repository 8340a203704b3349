"""What LiteRT-LM gave for a .litertlm file, against this package on the same bundle and artifact."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

import mobile_llm
from mobile_llm.bundle import Bundle
from mobile_llm.bundle.golden_decoder import GoldenDecoder
from mobile_llm.generation.writer import chat_template
from mobile_llm.tasks.text_generation import ChatModel
from mobile_llm.tasks.tokenization import TextTokenizer

Message = Mapping[str, str]
Verdict = Literal["pass", "FAIL", "NOT CHECKED"]
Ask = Callable[[Mapping[str, Any]], Mapping[str, Any]]
CONVERSATIONS: tuple[tuple[Message, ...], ...] = (
    ({"role": "user", "content": "What is the capital of France?"},),
    ({"role": "user", "content": "Write one sentence about the sea, with an emoji. 🌊"},),
    ({"role": "system", "content": "You answer briefly."}, {"role": "user", "content": "Why is the sky blue?"}),
    (
        {"role": "user", "content": "Hi!"},
        {"role": "assistant", "content": "Hello, how can I help?"},
        {"role": "user", "content": "写一首关于秋天的短诗。"},
    ),
)
MORE = "And in other words?"
MOST = 48  # tokens of an answer
_NEAR = 4  # a text that was cut inside a character may have that many fewer
# Logits nearer to each other than this may change places. Two runtimes add in different orders; where weights are
# integers, activations are rounded to integers too: in our runtime alone that moves the first two logits of SmolLM2
# apart or together by up to 0.95, whether these prompts are read at once or token by token (float32: 1e-4).
_NOISE: Mapping[str, float] = {"fp32": 1e-3, "fp16": 1e-3, "int8": 1.0, "int4": 1.0}


@dataclass(frozen=True)
class Row:
    """Of `compared` texts `differ` are not the same. `note` says where."""

    artifact: str
    what: str
    compared: int
    differ: int
    verdict: Verdict
    note: str = ""


def compare(bundle: Bundle, artifact_id: str, ask: Ask, threads: int) -> Iterator[Row]:
    """The rows of one artifact. Raises BackendUnavailable where the client does not answer."""
    artifact = bundle.manifest.artifacts[artifact_id]
    bundle.check_artifact(artifact)
    given = [text.text for text in GoldenDecoder.read(bundle.folder).probes.texts]
    answer = ask(
        {
            "file": str(bundle.path(artifact.path)),
            "threads": threads,
            "texts": given,
            "conversations": CONVERSATIONS,
            "more": MORE,
            "most": MOST,
        }
    )
    tokenizer = TextTokenizer(bundle)
    ours = [list(tokenizer.encode(text, special=False).ids) for text in given]
    yield _same(artifact_id, "ids of a text", answer["ids"], ours)
    template = chat_template(bundle)
    if template is None:
        yield Row(artifact_id, "prompts", 0, 0, "NOT CHECKED", "the model has no chat template")
        return
    prompts = [template.render(messages) for messages in CONVERSATIONS]
    yield _same(artifact_id, "prompts", [one["prompt"] for one in answer["answers"]], prompts)
    model = mobile_llm.load(bundle.folder, artifact_id, threads)
    try:
        texts = [one["texts"] for one in answer["answers"]]
        yield _answers(artifact_id, artifact.precision, Writer(model, tokenizer), texts)
    finally:
        model.close()


def _same(artifact_id: str, what: str, theirs: Sequence[Any], ours: Sequence[Any]) -> Row:
    wrong = [f"{a!r} instead of {b!r}" for a, b in zip(theirs, ours) if a != b]
    return Row(artifact_id, what, len(ours), len(wrong), "FAIL" if wrong else "pass", "; ".join(wrong)[:300])


def _answers(artifact_id: str, precision: str, writer: Writer, theirs: Sequence[Sequence[str]]) -> Row:
    """Both answers of every conversation; the second follows on their first, where that came to an end."""
    found = []
    for messages, (first, second) in zip(CONVERSATIONS, theirs):
        found.append(writer.margin(messages, first))
        if writer.ends(first):
            further = [*messages, {"role": "assistant", "content": first}, {"role": "user", "content": MORE}]
            found.append(writer.margin(further, second))
    margins, noise = [margin for margin in found if margin is not None], _NOISE[precision]
    note = f"at margins of {', '.join(f'{margin:.3f}' for margin in margins)}; {noise:g} is noise" if margins else ""
    verdict: Verdict = "FAIL" if any(margin > noise for margin in margins) else "pass"
    return Row(artifact_id, "greedy answers", len(found), len(margins), verdict, note)


@dataclass(frozen=True)
class Writer:
    """This package's answers."""

    model: ChatModel
    tokenizer: TextTokenizer

    def ends(self, theirs: str) -> bool:
        """Whether an answer is shorter than it might have been."""
        return len(self.tokenizer.encode(theirs, special=False).ids) < MOST - _NEAR

    def margin(self, messages: Sequence[Message], theirs: str) -> float | None:
        """None for the same text; else by how much our first token that is not theirs was above the second."""
        ours = self.model.generate(messages, max_tokens=MOST)
        if ours.text == theirs:
            return None
        beginning = self.model.encode(messages) + list(ours.tokens[: self._common(ours.tokens, theirs)])
        second, first = np.sort(self.model.engine.continue_with(beginning))[-2:]
        return float(first - second)

    def _common(self, tokens: Sequence[int], text: str) -> int:
        """How many tokens a text begins with."""
        counts = range(len(tokens), 0, -1)
        return next((count for count in counts if text.startswith(self.tokenizer.decode(tokens[:count]))), 0)
