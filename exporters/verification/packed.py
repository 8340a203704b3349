"""What a LiteRT-LM file holds beside its model, against what the bundle says: read from the file, nothing is run but
the template, in this package's sandbox. Not covered: whether LiteRT-LM's own tokenizer and template engine agree with
ours on a text; `python -m benchmarks.interop BUNDLE` asks it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from exporters.verification.rows import Row, Status, here, not_checked
from mobile_llm.artifacts.litertlm import Contents, unpack
from mobile_llm.bundle import Bundle
from mobile_llm.bundle.golden_decoder import DecoderProbes, GoldenChat
from mobile_llm.generation.template import ChatTemplate

_REASON = "nothing may differ from the bundle's own"


def check_packed(bundle: Bundle, artifact_id: str, probes: DecoderProbes) -> Iterator[Row]:
    """Tokenizer, ends of an answer, context, and prompts with contents as texts and as lists of parts."""
    artifact = bundle.manifest.artifacts[artifact_id]
    contents, generation = unpack(bundle.path(artifact.path)), bundle.manifest.task.generation
    differing = {
        "tokenizer": contents.tokenizer != bundle.own_file("tokenizer.json").read_bytes(),
        "stop tokens": contents.stop != (generation.stop if generation else ()),
        "context": artifact.cache is None or contents.most_tokens != artifact.cache.context,
    }
    for what, differs in differing.items():
        yield _row(artifact_id, f"{what} packed that differ", float(differs))
    yield _prompts(artifact_id, contents, probes)


def _prompts(artifact_id: str, contents: Contents, probes: DecoderProbes) -> Row:
    if not contents.template or not probes.chats:
        return not_checked(artifact_id, "packed", "prompts", "the bundle has no chat template, or no conversation")
    template = ChatTemplate(contents.template)
    wrong = sum(template.render(messages) != chat.prompt for chat in probes.chats for messages in _both_ways(chat))
    return _row(artifact_id, "prompts of the packed template that differ", float(wrong))


def _both_ways(chat: GoldenChat) -> Iterator[list[dict[str, Any]]]:
    yield [dict(message) for message in chat.messages]
    yield [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in chat.messages]


def _row(artifact_id: str, metric: str, value: float) -> Row:
    status: Status = "failed" if value else "passed"
    return Row(artifact_id, "packed", metric, value, 0.0, status, _REASON, here("the file"))
