"""How each format writes a model that writes: the model, the precision and the folder are all that differs from one
artifact to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

from exporters.architectures.decoders.blocks import DecoderModel
from exporters.formats import litertlm
from exporters.formats.lowered import Lowered
from mobile_llm.bundle.manifest import Generation
from mobile_llm.errors import UnsupportedModel
from mobile_llm.tasks.text_generation import TEMPLATE_FILE

Writers = Mapping[str, Callable[[DecoderModel, str, Path], Lowered]]


def writers_for(formats: Sequence[str], context: int, folder: Path, generation: Generation) -> Writers:
    """By format; `folder` has the model's tokenizer and chat template. Raises UnsupportedModel where a format packs a
    tokenizer that the model does not have."""

    def write(name: str) -> Callable[[DecoderModel, str, Path], Lowered]:
        if name == "litertlm":
            return partial(litertlm.lower_decoder, context=context, texts=_texts(folder, generation))
        return partial(import_module(f"exporters.formats.{name}").lower_decoder, context=context)

    return {name: write(name) for name in formats}


def _texts(folder: Path, generation: Generation) -> litertlm.Texts:
    tokenizer, template = folder / "tokenizer.json", folder / TEMPLATE_FILE
    if not tokenizer.is_file():
        raise UnsupportedModel("the model has no tokenizer.json, which LiteRT-LM needs; leave out the format litertlm")
    source = template.read_text(encoding="utf-8") if template.is_file() else None
    return litertlm.Texts(tokenizer.read_bytes(), source, generation)
