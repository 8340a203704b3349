"""ONNX artifacts that take a string: the tokenizer, in onnxruntime-extensions' operators, before a written encoder.

Covered: WordPiece as BERT's tokenizers use it, exactly (see `wordpiece`), and byte-level BPE by HfJsonTokenizer. One
text at a time: the operators take no batch that would be padded as a batch of ids is. A text with NUL is cut there by
the operators, so the runtime refuses it. Other kinds of tokenizers are refused by their name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from exporters.formats.lowered import Lowered
from mobile_llm.bundle.codec import read_json
from mobile_llm.bundle.manifest import Artifact, EntryPoint, TensorBinding
from mobile_llm.errors import UnsupportedModel
from mobile_llm.tasks.encoding import ENCODE_TEXT, TOKENIZE
from mobile_llm.tasks.tokenization import read_tokenizer

VARIANT = "-text"
# 0.13 is the oldest that was run; it has every operator as it is used here.
_MINIMUM = {"onnxruntime-extensions": "0.13"}
_TEXT = {"text": TensorBinding("text", "string", (1,))}
_IDS = {"input_ids": TensorBinding("input_ids", "int64", (1, "sequence"))}


@dataclass(frozen=True)
class Ends:
    """The ids that go before and after those of every text, and how many there may be in all."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    max_length: int

    @property
    def room(self) -> int:
        return self.max_length - len(self.before) - len(self.after)


@dataclass(frozen=True)
class TextFront:
    """A tokenizer as a graph of its own: `model` takes `text` (1,) and gives `input_ids` and what belongs to them."""

    model: Any


def text_front(folder: Path, max_length: int) -> TextFront:
    """The tokenizer of a Hugging Face folder, truncated as the two-step path truncates it. Raises UnsupportedModel for
    one that the operators cannot reproduce."""
    from exporters.formats.onnx.text.ids import front_model

    definition = read_json(folder / "tokenizer.json")
    tokenizer = read_tokenizer(folder / "tokenizer.json")
    kind = definition["model"]["type"]
    builders = _builders()
    if kind not in builders:
        raise UnsupportedModel(
            f"a tokenizer of the model type {kind} cannot go into an ONNX graph (covered are {', '.join(builders)}); "
            "export without text input"
        )
    build = builders[kind](tokenizer, definition)
    return TextFront(front_model(build, ends_of(tokenizer, max_length)))


def _builders() -> Mapping[str, Callable[[Any, Any], Callable[[Any, str], str]]]:
    from exporters.formats.onnx.text.bytelevel import byte_level
    from exporters.formats.onnx.text.wordpiece import wordpiece

    return {"WordPiece": wordpiece, "BPE": byte_level}


def ends_of(tokenizer: Any, max_length: int) -> Ends:
    """Read off an encoded text. Raises UnsupportedModel where token types are not all zero."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    whole, bare = tokenizer.encode("a"), tokenizer.encode("a", add_special_tokens=False).ids
    before = next(i for i in range(len(whole.ids) + 1) if whole.ids[i : i + len(bare)] == bare)
    if any(whole.type_ids):
        raise UnsupportedModel("this tokenizer gives a lone text token types other than 0; export without text input")
    return Ends(tuple(whole.ids[:before]), tuple(whole.ids[before + len(bare) :]), max_length)


def add_text_input(artifact_id: str, artifact: Artifact, front: TextFront, bundle: Path) -> tuple[str, Lowered]:
    """Write the artifact that takes strings beside a written one, which is left as it is: its id, and what
    `describe_artifact` wants to know of it."""
    from exporters.formats.onnx.text.graft import graft

    path = artifact.path.removesuffix(".onnx") + "_text.onnx"
    graft(bundle / artifact.path, front.model, bundle / path)
    (entry,) = artifact.entry_points["encode"]
    outputs = {name: replace(binding, shape=(1, *binding.shape[1:])) for name, binding in entry.outputs.items()}
    entries = {ENCODE_TEXT: (EntryPoint(_TEXT, outputs),), TOKENIZE: (EntryPoint(_TEXT, _IDS),)}
    return artifact_id + VARIANT, Lowered(path, entries, {**artifact.minimum, **_MINIMUM})
