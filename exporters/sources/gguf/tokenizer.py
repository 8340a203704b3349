"""The tokenizer of a GGUF file, as transformers rebuilds it from vocabulary, merges and marks."""

from __future__ import annotations

from typing import Any

from exporters.sources.gguf.header import Header
from exporters.sources.quiet import quiet
from mobile_llm.errors import InvalidInput, UnsupportedModel

# Of byte-level tokenizers: those that cut text as GPT-2 does. SmolLM's cuts digits apart too, and knows no longer ones.
_AS_GPT2 = ("gpt-2", "smollm")


def build_tokenizer(header: Header) -> Any:
    """A fast tokenizer with the file's chat template.

    Raises UnsupportedModel for a way to cut text that transformers does not rebuild, InvalidInput for a vocabulary that
    makes no tokenizer.
    """
    from transformers import PreTrainedTokenizerFast
    from transformers.integrations.gguf import convert_gguf_tokenizer, get_gguf_tokenizer

    _refuse_unknown_cut(header)
    try:
        with quiet():
            architecture, vocabulary, settings = get_gguf_tokenizer(str(header.path))
            backend, more = convert_gguf_tokenizer(architecture, vocabulary)
            return PreTrainedTokenizerFast(
                tokenizer_object=backend, model_max_length=header.setting("context_length"), **settings, **more
            )
    except Exception as error:  # the native tokenizer raises this type itself
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidInput(
            f"{header.path} has settings tokenizer.* that make no tokenizer ({reason}); fetch it again, or put it into "
            "a folder beside the model's tokenizer.json"
        ) from None


def _refuse_unknown_cut(header: Header) -> None:
    """Merges are right only where text is first cut as it was when they were learned."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    cut = header.settings.get("tokenizer.ggml.pre")
    known = cut in GGUF_PRE_TOKENIZER_SPLITS or cut in _AS_GPT2
    if header.settings.get("tokenizer.ggml.model") == "gpt2" and not known:
        raise UnsupportedModel(
            f"{header.path} cuts text in a way that is not covered (tokenizer.ggml.pre = {cut!r}); put it into a "
            "folder of its own beside the model's tokenizer.json and tokenizer_config.json, and export the folder"
        )
