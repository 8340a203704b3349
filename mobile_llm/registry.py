"""What other packages add to `mobile_llm`: commands and backends, found through entry points and imported only
when asked for."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType


def names(group: str) -> list[str]:
    """The names registered in an entry-point group, sorted."""
    return sorted({point.name for point in entry_points(group=group)})


def find(group: str, name: str) -> ModuleType:
    """Import what is registered under `name`. Raises KeyError for an unknown name, ImportError as it comes."""
    for point in entry_points(group=group):
        if point.name == name:
            return import_module(point.value)
    raise KeyError(name)
