"""What transformers gives for the model on texts chosen to break tokenizers: what every client is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import say
from mobile_llm.bundle import Bundle
from mobile_llm.errors import UnsupportedModel

TEXTS = (
    "A warm, funny and surprisingly moving film.",
    "Two hours I will never get back.",
    "Not bad at all, though the ending drags.",
    "Meh.",
    "",
    "  \t\n ",
    "I love this 😀🎬👩🏽‍🚀 so much!!! ❤️🇫🇷",
    "这部电影非常好看,演员也很棒。 とても面白い映画でした。 정말 재미있어요.",
    "Cafe\u0301 déjà-vu, naïve façade; Straße, ŁÓDŹ, ИНТЕРЕСНО, مرحبا بالعالم",
    "tabs\there,\nnew lines,\r\nzero\u200bwidth and soft\u00adhyphens; see https://example.org/a?b=c&d=%20 (50% off)",
    "The word [MASK] and the end [SEP] are only text here, SHOUTED or whispered.",
    "supercalifragilisticexpialidocious" * 4,
    "The plot is thin, but the actors are wonderful, and the music stays with you. " * 15,
    "It goes on, and on, and on; nobody laughs, and everybody leaves before the end. " * 60,
)


@dataclass(frozen=True)
class Expected:
    """What transformers gives for a text at these tokens. `margin` is between the first and the second label."""

    ids: list[int]
    values: Mapping[str, np.ndarray]
    label: str | None = None
    margin: float = 0.0


@dataclass(frozen=True)
class Reference:
    """The model's answer to each text, and to those that were cut, one at the tokens of a cut without a closing one."""

    texts: tuple[str, ...]
    answers: tuple[Expected, ...]
    blunt: Mapping[int, Expected]
    names: tuple[str, ...]

    def at(self, index: int, ids: list[int]) -> Expected:
        blunt = self.blunt.get(index)
        return blunt if blunt is not None and blunt.ids == ids else self.answers[index]


def read_reference(model: Path, bundle: Bundle) -> Reference:
    """MODEL in transformers, float32, one text at a time."""
    import transformers

    task = bundle.manifest.task
    if task.name not in ("text-classification", "feature-extraction"):
        raise UnsupportedModel(f"{task.name} is not compared here; text-classification and feature-extraction are")
    say(f"reading {model} with transformers {transformers.__version__}")
    transformers.utils.logging.disable_progress_bar()
    classifies = task.name == "text-classification"
    kind = transformers.AutoModelForSequenceClassification if classifies else transformers.AutoModel
    net = kind.from_pretrained(model, local_files_only=True).float().eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model, local_files_only=True)
    read = _classifier(net) if classifies else _embedder(net, task.pooling)
    cut = _encode(tokenizer, getattr(net.config, "max_position_embeddings", 512))
    whole = {text: tokenizer(text, verbose=False) for text in cut}
    blunt = {
        i: read({name: ids[: len(cut[text]["input_ids"])] for name, ids in whole[text].items()})
        for i, text in enumerate(cut)
        if len(whole[text]["input_ids"]) > len(cut[text]["input_ids"])
    }
    names = tuple(net.config.id2label[i] for i in range(net.config.num_labels)) if classifies else ()
    return Reference(tuple(cut), tuple(read(one) for one in cut.values()), blunt, names)


def _encode(tokenizer: Any, positions: int) -> dict[str, Any]:
    """The texts with their tokens, without those that the tokenizer leaves longer than the model can read."""
    encoded = {text: tokenizer(text, truncation=True) for text in TEXTS}
    fitting = {text: one for text, one in encoded.items() if len(one["input_ids"]) <= positions}
    if len(fitting) < len(encoded):
        say(f"{len(encoded) - len(fitting)} texts left out: this tokenizer does not cut them to {positions} tokens")
    return fitting


def _classifier(net: Any) -> Callable[[Any], Expected]:
    if net.config.num_labels < 2:
        raise UnsupportedModel("a model with one logit is not compared here; clients disagree on what it means")

    def read(encoded: Any) -> Expected:
        logits = _run(net, encoded).logits[0].numpy().astype(float)
        second, first = np.sort(logits)[-2:]
        values = {"logits": logits, "scores": _scores(logits, net.config.problem_type)}
        return Expected(encoded["input_ids"], values, net.config.id2label[int(logits.argmax())], float(first - second))

    return read


def _scores(logits: np.ndarray, problem_type: str | None) -> np.ndarray:
    if problem_type == "multi_label_classification":
        return 1 / (1 + np.exp(-logits))
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def _embedder(net: Any, pooling: str | None) -> Callable[[Any], Expected]:
    if pooling not in ("mean", "cls"):
        raise UnsupportedModel(f"pooling {pooling!r} is not compared here; mean and cls are")

    def read(encoded: Any) -> Expected:
        hidden = _run(net, encoded).last_hidden_state[0].numpy().astype(float)
        return Expected(encoded["input_ids"], {"embedding": hidden[0] if pooling == "cls" else hidden.mean(axis=0)})

    return read


def _run(net: Any, encoded: Any) -> Any:
    import torch

    with torch.no_grad():
        return net(**{name: torch.tensor([ids]) for name, ids in encoded.items()})
