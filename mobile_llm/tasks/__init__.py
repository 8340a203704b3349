"""One file per task. Each offers `open_task(engine) -> object with the task's methods`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mobile_llm.engine import Engine
from mobile_llm.errors import RuntimeTooOld

# Task names are the hub's pipeline tags.
TASKS = {
    "text-classification": "mobile_llm.tasks.text_classification",
    "token-classification": "mobile_llm.tasks.token_classification",
    "feature-extraction": "mobile_llm.tasks.feature_extraction",
    "tensor": "mobile_llm.tasks.tensor",  # none of the hub's: named tensors in, named tensors out
}


def open_task(engine: Engine) -> Any:
    """The object of the bundle's task. Raises RuntimeTooOld for a task this version does not have."""
    name = engine.manifest.task.name
    if name not in TASKS:
        raise RuntimeTooOld(f"task {name!r} is unknown to this runtime; upgrade mobile-llm")
    return import_module(TASKS[name]).open_task(engine)
