"""Asking the PyTorch model, and its twins, for the golden references of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from exporters.architectures.blocks import EncoderModel
from exporters.quantization.recipes import RECIPES, as_stored
from exporters.sources.huggingface import HuggingFaceSource
from exporters.verification.probes import golden_texts, random_sequences
from exporters.verification.reference import Reference
from mobile_llm.bundle.golden import Golden, GoldenInputs, GoldenText
from mobile_llm.problem_types import MULTI_LABEL, REGRESSION
from mobile_llm.tasks.tokenization import Encoded


def make_golden(source: HuggingFaceSource, model: EncoderModel, artifact_ids: Sequence[str]) -> Golden:
    """Reference outputs of the model itself, and of a twin for every artifact that is not plain float32."""
    texts = golden_texts(source.tokenizer, source.max_length, source.text_pairs)
    sequences = random_sequences(source.config.vocab_size, model.max_length, source.config.pad_token_id)
    probes = [Encoded(t.ids, t.types) for t in texts] + [Encoded(s, (0,) * len(s)) for s in sequences]
    reference = Reference(source)
    plain = reference.outputs(probes)
    outputs = {f"reference/{name}": array for name, array in plain.items()}
    for artifact_id in artifact_ids:
        recipe = RECIPES[artifact_id.split("/")[1]]
        stored = as_stored(artifact_id, recipe(model))
        if stored is not model:
            with reference.twin(stored) as twin:
                outputs |= {f"{artifact_id}/{name}": array for name, array in twin.outputs(probes).items()}
    return Golden(GoldenInputs(_labelled(texts, source, plain), sequences), outputs)


def _labelled(
    texts: tuple[GoldenText, ...], source: HuggingFaceSource, outputs: Mapping[str, np.ndarray]
) -> tuple[GoldenText, ...]:
    """What a user would be given, in the texts of golden.json: a label, labels, tags. Numbers are in the tensors."""
    labels = source.labels
    if not labels or source.problem_type == REGRESSION:
        return texts
    # One logit per label, or so many of each token that is kept.
    logits = outputs["logits"].reshape(len(outputs["logits"]), -1, len(labels))
    if source.problem_type == MULTI_LABEL:
        orders = np.argsort(-logits[:, 0], axis=-1, kind="stable")
        return tuple(replace(text, labels=tuple(labels[i] for i in order)) for text, order in zip(texts, orders))
    best = logits.argmax(-1)
    if source.task == "token-classification":
        return tuple(replace(text, tags=tuple(labels[i] for i in row)) for text, row in zip(texts, best))
    return tuple(replace(text, label=labels[row[0]]) for text, row in zip(texts, best))
