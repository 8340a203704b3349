"""The small files of a Hugging Face folder, made from a GGUF file where they do not lie beside it."""

from __future__ import annotations

from pathlib import Path

from exporters.sources.gguf.config import config_settings, family_of, token_ids
from exporters.sources.gguf.header import Header
from exporters.sources.gguf.tokenizer import build_tokenizer
from mobile_llm.bundle.codec import read_json
from mobile_llm.errors import InvalidInput


def write_small_files(header: Header, folder: Path) -> None:
    """config.json, generation_config.json and the tokenizer's, in `folder`; those that are there stay as they are.

    Raises InvalidInput for a config.json of another model, UnsupportedModel for what the file cannot say.
    """
    if (folder / "config.json").is_file():
        _check_family(header, folder / "config.json")
    else:
        _write_config(header, folder)
    if not (folder / "generation_config.json").is_file():
        _write_generation(header, folder)
    if not (folder / "tokenizer.json").is_file():
        build_tokenizer(header).save_pretrained(folder)


def _write_config(header: Header, folder: Path) -> None:
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    settings = config_settings(header)
    model_type = settings.pop("model_type")
    architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]]
    AutoConfig.for_model(model_type, architectures=architectures, **settings).save_pretrained(folder)


def _write_generation(header: Header, folder: Path) -> None:
    from transformers import GenerationConfig

    GenerationConfig(**token_ids(header)).save_pretrained(folder)


def _check_family(header: Header, path: Path) -> None:
    stated, expected = read_json(path), family_of(header).model_types
    if not isinstance(stated, dict) or stated.get("model_type") not in expected:
        raise InvalidInput(
            f"the config.json beside {header.path} is not of {' or '.join(expected)}, as the file is; remove it, or "
            "put the right one there"
        )
