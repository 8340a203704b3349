"""Where packed weights are kept: named after what they depend on, whole or not at all, and only where that can be."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mobile_llm.backends.packed import packed_weights

HASH = "ab" * 32


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOBILE_LLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_was_packed_once_is_found_again(folder: Path) -> None:
    with packed_weights(HASH, 100) as first:
        Path(first).write_bytes(b"packed")
    (kept,) = folder.iterdir()
    assert kept.name.startswith(HASH[:32])
    assert folder.stat().st_mode & 0o077 == 0
    with packed_weights(HASH, 100) as again:
        assert again == str(kept)
    with packed_weights("cd" * 32, 100) as other:
        assert not Path(other).exists()


def test_what_was_interrupted_leaves_nothing(folder: Path) -> None:
    def interrupted() -> None:
        with packed_weights(HASH, 100) as path:
            Path(path).write_bytes(b"pac")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(folder.iterdir()) == []


def test_what_nobody_opens_is_forgotten(folder: Path) -> None:
    for sha256 in ("01" * 32, "02" * 32):
        with packed_weights(sha256, 100) as path:
            Path(path).write_bytes(b"packed")
    for path in folder.glob("01*"):
        os.utime(path, (0, 0))
    with packed_weights(HASH, 100) as third:
        Path(third).write_bytes(b"packed")
    assert sorted(path.name[:2] for path in folder.iterdir()) == ["02", "ab"]


def test_without_a_place_it_is_done_in_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with packed_weights(None, 100) as path:
        assert path == ":memory:"
    with packed_weights(HASH, shutil.disk_usage(folder.parent).total) as path:
        assert path == ":memory:"
    (folder.parent / "file").write_text("no folder")
    for place in ("", str(folder.parent / "file" / "below"), str(folder.parent / 'a"b')):
        monkeypatch.setenv("MOBILE_LLM_CACHE", place)
        with packed_weights(HASH, 100) as path:
            assert path == ":memory:"
