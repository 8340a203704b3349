"""Artifacts, written one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from exporters.formats.lowered import Lowered
from exporters.memory import release
from exporters.packaging import describe_artifact
from exporters.progress import Watch
from exporters.spec import recipe_of
from mobile_llm.bundle import Artifact

Model = TypeVar("Model")


def write_artifacts(
    artifact_ids: Sequence[str],
    quantize: Callable[[str], Model],
    lower: Callable[[str, Model], Lowered],
    folder: Path,
    watch: Watch,
) -> Iterator[tuple[str, Artifact]]:
    """`quantize` gives the model of a recipe, computed once for all its artifacts, and `lower` writes an artifact."""
    for recipe, ids in groupby(artifact_ids, key=recipe_of):
        quantized = quantize(recipe)
        for artifact_id in ids:
            watch(f"writing {artifact_id}")
            lowered = lower(artifact_id, quantized)
            release()
            yield artifact_id, describe_artifact(folder, artifact_id, lowered)
