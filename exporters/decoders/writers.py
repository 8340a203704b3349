"""How each format writes a model that writes: the model, the precision and the folder are all that differs from one
artifact to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

from exporters.architectures.decoders.blocks import DecoderModel
from exporters.formats import coreml, litertlm
from exporters.formats.litertlm.texts import read_texts
from exporters.formats.lowered import Lowered
from mobile_llm.bundle.manifest import Generation

Writers = Mapping[str, Callable[[DecoderModel, str, Path], Lowered]]


def writers_for(formats: Sequence[str], context: int, folder: Path, generation: Generation, origin: str) -> Writers:
    """By format; `folder` has the model's tokenizer and chat template, `origin` is its id. Raises UnsupportedModel
    where a format packs them and there is no tokenizer.json."""

    def write(name: str) -> Callable[[DecoderModel, str, Path], Lowered]:
        if name == "litertlm":
            return partial(litertlm.lower_decoder, context=context, texts=read_texts(folder, generation))
        if name == "coreml":
            return partial(coreml.lower_decoder, context=context, origin=origin)
        return partial(import_module(f"exporters.formats.{name}").lower_decoder, context=context)

    return {name: write(name) for name in formats}
