"""A bundle's tokenizer and chat template against what transformers made of the same texts and conversations."""

from __future__ import annotations

from collections.abc import Iterator

import jinja2
import tokenizers

from exporters.verification.rows import Row, here, not_checked
from exporters.verification.tokens import count_row, tokenizer_rows
from mobile_llm.bundle import Bundle
from mobile_llm.bundle.golden_decoder import DecoderProbes
from mobile_llm.generation.writer import chat_template
from mobile_llm.tasks.tokenization import TextTokenizer


def check_prompts(bundle: Bundle, probes: DecoderProbes) -> Iterator[Row]:
    """Ids, texts that come back, and prompts."""
    yield from tokenizer_rows(TextTokenizer(bundle), probes.texts, here(f"tokenizers {tokenizers.__version__}"))
    template = chat_template(bundle)
    if template is None:
        yield not_checked("bundle", "chat template", "prompts", "the model has none")
        return
    if not probes.chats:
        yield not_checked("bundle", "chat template", "prompts", "it refuses every conversation of the probes")
        return
    wrong = sum(template.render(chat.messages) != chat.prompt for chat in probes.chats)
    yield count_row("chat template", "prompts that differ", wrong, here(f"jinja2 {jinja2.__version__}"))
