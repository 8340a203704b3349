"""The golden vectors are what the code gives today; a change of behaviour shows here, and in Kotlin and Swift after
`python -m tests.golden`."""

from __future__ import annotations

import json

import pytest

from .golden.files import FOLDER, contents

FILES = contents()
LARGEST = 300_000  # bytes, all together


@pytest.mark.parametrize("name", FILES)
def test_golden_vectors_are_as_written(name: str) -> None:
    written = (FOLDER / name).read_text(encoding="utf-8")
    assert json.loads(written) == json.loads(FILES[name])
    assert written == FILES[name], f"{name} is written otherwise: python -m tests.golden"


def test_golden_vectors_are_small_and_described() -> None:
    files = [path for path in FOLDER.rglob("*") if path.suffix in (".json", ".jinja")]
    assert {path.name for path in FOLDER.glob("*.json")} == set(FILES)
    assert sum(path.stat().st_size for path in files) < LARGEST
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in readme for name in FILES)
