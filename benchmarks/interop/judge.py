"""A client's answer against the reference: what may differ, by how much, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.interop.reference import Reference

EXACT = {"onnx/model.onnx", "tflite/fp32.tflite"}

DIFFERENCE = 1e-4  # fp32 logits and scores: the same sums in another order
COSINE = 0.99999  # fp32 embeddings, likewise
QUANTIZED_COSINE = 0.95  # int8 embeddings: below it neighbours change places
SURE = 2.0  # logits between the first and the second label: 0.88 against 0.12, which int8 must not turn


@dataclass(frozen=True)
class Row:
    """One way of reading one artifact. `verdict` is "pass", "FAIL" or "NOT CHECKED"; `note` says why."""

    client: str
    artifact: str
    way: str
    verdict: str
    difference: float | None = None
    cosine: float | None = None
    labels_differ: int | None = None
    tokens_differ: int | None = None
    note: str = ""
    same_texts: str | None = None


def judge_artifact(client: str, artifact: str, answer: Mapping[str, Any], reference: Reference) -> list[Row]:
    """One row per reading; an artifact without one has failed."""
    readings = [reading for reading in answer["readings"] if reading["artifact"] == artifact]
    if not readings:
        return [Row(client, artifact, "", "FAIL", note=answer["errors"].get(artifact, "the client gave no reading"))]
    return [judge(client, reading, reference) for reading in readings]


def judge(client: str, reading: Mapping[str, Any], reference: Reference) -> Row:
    """A reading against the reference, on the texts that the artifact has room for."""
    artifact, way, kind, values, ids = (reading[key] for key in ("artifact", "way", "kind", "values", "ids"))
    if len(values) != len(reference.texts):
        note = f"{len(values)} answers to {len(reference.texts)} texts"
        return Row(client, artifact, way, "FAIL", note=note)
    kept = [i for i, value in enumerate(values) if value is not None]
    if not kept:
        return Row(client, artifact, way, "NOT CHECKED", note="the artifact has room for none of the texts")
    expected = {i: reference.at(i, ids[i]) for i in kept}
    actual = np.array([values[i] for i in kept], dtype=float)
    wanted = np.stack([expected[i].values[kind] for i in kept])
    if actual.shape != wanted.shape:
        note = f"{actual.shape[1:]} numbers for each text instead of {wanted.shape[1:]}"
        return Row(client, artifact, way, "FAIL", note=note)
    difference = float(np.abs(actual - wanted).max()) if kind != "embedding" else None
    cosine = _smallest_cosine(actual, wanted) if kind == "embedding" else None
    labels = reading.get("labels")
    turned = [expected[i].margin for i in kept if labels and labels[i] != expected[i].label]
    blunt = [i for i in kept if ids[i] != reference.answers[i].ids and ids[i] == expected[i].ids]
    strange = [reference.texts[i][:40] for i in kept if ids[i] != expected[i].ids]
    problems = [*_beyond(artifact, difference, cosine), *_wrong_labels(artifact, turned), *_wrong_tokens(strange)]
    remarks = _remarks(len(values) - len(kept), len(blunt), turned)
    verdict, note = "FAIL" if problems else "pass", "; ".join(problems + remarks)
    tokens_differ = len(strange) + len(blunt)
    labels_differ = len(turned) if labels else None
    return Row(client, artifact, way, verdict, difference, cosine, labels_differ, tokens_differ, note)


def _smallest_cosine(actual: np.ndarray, wanted: np.ndarray) -> float:
    lengths = np.linalg.norm(actual, axis=1) * np.linalg.norm(wanted, axis=1)
    with np.errstate(invalid="ignore"):  # a vector of zeros has no direction: NaN, which fails
        return float(((actual * wanted).sum(axis=1) / lengths).min())


def _beyond(artifact: str, difference: float | None, cosine: float | None) -> list[str]:
    """What is beyond its limit. Written so that a NaN is, too."""
    problems = []
    most = DIFFERENCE if artifact in EXACT else float("inf")
    least = COSINE if artifact in EXACT else QUANTIZED_COSINE
    if difference is not None and not difference < most:
        problems.append(f"a difference of {difference:.2g}, the limit is {most:g}")
    if cosine is not None and not cosine >= least:
        problems.append(f"a cosine of {cosine:.5f}, the limit is {least:g}")
    return problems


def _wrong_labels(artifact: str, turned: list[float]) -> list[str]:
    wrong = [margin for margin in turned if artifact in EXACT or margin > SURE]
    return [f"{len(wrong)} labels differ that should not"] if wrong else []


def _wrong_tokens(texts: list[str]) -> list[str]:
    return [f"other tokens for {', '.join(map(repr, texts))}"] if texts else []


def _remarks(too_long: int, blunt: int, turned: list[float]) -> list[str]:
    remarks = []
    if too_long:
        remarks.append(f"texts longer than every signature, and not compared: {too_long}")
    if blunt:
        remarks.append(f"texts cut without their closing token, and compared at the tokens left: {blunt}")
    if turned:
        remarks.append(f"labels differ at margins of {', '.join(f'{margin:.2f}' for margin in turned)}")
    return remarks
