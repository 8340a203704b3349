"""Asking the PyTorch model, and its twins, for the golden references of a bundle that writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from exporters.architectures.decoders.blocks import DecoderModel
from exporters.decoders.reference import DecoderReference
from exporters.held import holding
from exporters.verification.probes import golden_texts
from mobile_llm.bundle.golden import GoldenText
from mobile_llm.bundle.golden_decoder import REFERENCE, DecoderProbes, GoldenChat, GoldenDecoder

_LONGEST = 96  # tokens of a probe that is read one by one; one of them is longer, to get past static shapes
_LONG = 300
_PROBES, _PROMPTS, _WRITTEN = 6, 3, 24
_NOT_CUT = 1_000_000
_CHATS = (
    (("user", "What is the capital of France?"),),
    (("system", "You answer in one sentence."), ("user", "Why is the sky blue? 🌌")),
    (("user", "Hi!"), ("assistant", "Hello, how can I help?"), ("user", "写一首关于秋天的短诗。")),
)


def make_golden(
    model: Any, tokenizer: Any, context: int, stop: Sequence[int], twins: Mapping[str, DecoderModel]
) -> GoldenDecoder:
    """The references of the torch model itself, and of each artifact's twin, which holds that artifact's weights."""
    texts = golden_texts(tokenizer, _NOT_CUT)
    chats = _chats(tokenizer)
    sequences = _sequences(texts, chats, tokenizer, context)
    prompts = [ids[: max(1, context - _WRITTEN)] for ids in sequences[:_PROMPTS]]
    reference = DecoderReference(model, stop)

    def ask() -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        count = min(_WRITTEN, context - 1)
        return tuple(map(reference.expected, sequences)), tuple(reference.write(p, count) for p in prompts)

    answers = {REFERENCE: ask()}
    for artifact_id, blocks in twins.items():
        with holding(model, blocks):
            answers[artifact_id] = ask()
    written = {source: found for source, (_, found) in answers.items()}
    probes = DecoderProbes(texts, chats, sequences, written)
    return GoldenDecoder(probes, {source: expected for source, (expected, _) in answers.items()})


def _chats(tokenizer: Any) -> tuple[GoldenChat, ...]:
    """The prompts that transformers renders; a conversation that a template refuses (a system turn, say) is left
    out."""
    if not getattr(tokenizer, "chat_template", None):
        return ()
    found = []
    for turns in _CHATS:
        messages = [{"role": role, "content": content} for role, content in turns]
        try:
            prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except Exception:  # jinja2's own errors, of whatever kind the template raises
            continue
        found.append(GoldenChat(tuple(r for r, _ in turns), tuple(c for _, c in turns), prompt))
    return tuple(found)


def _sequences(
    texts: Sequence[GoldenText], chats: Sequence[GoldenChat], tokenizer: Any, context: int
) -> tuple[tuple[int, ...], ...]:
    """Conversations first, then texts, then all texts as one long one."""
    prompts = [tuple(tokenizer(chat.prompt, add_special_tokens=False)["input_ids"]) for chat in chats]
    candidates = [*prompts, *(text.ids for text in texts if len(text.ids) > 2)]
    short = [ids[: min(_LONGEST, context)] for ids in candidates][:_PROBES]
    together = tuple(i for text in texts for i in text.ids)
    return (*short, together[: min(_LONG, context)])
