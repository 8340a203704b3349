"""One file per task. Each offers `ENGINE`, what opens an artifact for it, and `open_task(engine)`, which gives the
object with the task's methods."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mobile_llm.bundle import Bundle
from mobile_llm.errors import RuntimeTooOld
from mobile_llm.preflight import check_memory

# Task names are the hub's pipeline tags.
TASKS = {
    "text-classification": "mobile_llm.tasks.text_classification",
    "token-classification": "mobile_llm.tasks.token_classification",
    "feature-extraction": "mobile_llm.tasks.feature_extraction",
    "text-generation": "mobile_llm.tasks.text_generation",
    "tensor": "mobile_llm.tasks.tensor",  # none of the hub's: named tensors in, named tensors out
}


def open_task(
    bundle: Bundle, artifact: str | None, threads: int | None, backend: str | None, context: int | None = None
) -> Any:
    """The object of the bundle's task. Raises RuntimeTooOld for a task this version does not have, and what
    `check_memory` raises."""
    name = bundle.manifest.task.name
    if name not in TASKS:
        raise RuntimeTooOld(f"task {name!r} is unknown to this runtime; upgrade mobile-llm")
    task = import_module(TASKS[name])
    artifact_id, chosen = bundle.choose(artifact)
    check_memory(artifact_id, chosen, context)
    of_a_decoder = {} if context is None else {"context": context}
    return task.open_task(task.ENGINE.open(bundle, artifact_id, threads, backend, **of_a_decoder))
