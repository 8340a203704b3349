"""Labels as strings, and their places among those of a model or of the training data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mobile_llm.errors import InvalidInput


def label_string(value: object, place: str) -> str:
    """A string or an integer as a string. Raises InvalidInput for anything else, and for an empty one."""
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise InvalidInput(f"{place} has {value!r} for a label; use a string or an integer")
    return str(value).strip()


def in_order(names: set[str]) -> tuple[str, ...]:
    """Sorted, as numbers where all are integers."""
    if all(re.fullmatch("-?[0-9]+", name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def places_among(own: Sequence[str], names: Sequence[str]) -> dict[int, int]:
    """For each label of `own`, by its place, the place among `names`; none for one that `names` lacks. Where none of
    them is among `names` but all are integers in range, they are taken as places."""
    if _are_indices(own, names):
        return {place: int(name) for place, name in enumerate(own)}
    return {place: names.index(name) for place, name in enumerate(own) if name in names}


def unknown_label(source: str, row: int, label: str, names: Sequence[str]) -> InvalidInput:
    """The error for a label that a model or the training data lacks."""
    return InvalidInput(
        f"{source} row {row} has the label {label!r}, which is not among the known ones ({', '.join(names)}); "
        "correct the label, or train with it"
    )


def new_names(source: str, own: Sequence[str], names: Mapping[str, str]) -> tuple[str, ...]:
    """Other strings for labels. Raises InvalidInput unless `names` has one for each, and no two the same."""
    if set(own) != set(names) or len(set(names.values())) < len(names):
        raise InvalidInput(f"the labels of {source} are {', '.join(own)}; give each one a name of its own")
    return tuple(names[name] for name in own)


def _are_indices(labels: Sequence[str], names: Sequence[str]) -> bool:
    if set(labels) & set(names):
        return False
    return all(re.fullmatch("[0-9]+", label) and int(label) < len(names) for label in labels)
