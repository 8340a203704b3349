"""What does not fit into memory is refused before it is loaded, with what does fit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import mobile_llm
from mobile_llm import preflight
from mobile_llm.bundle import Artifact
from mobile_llm.bundle.manifest import FileEntry, KvCache
from mobile_llm.errors import InvalidSpec, NotEnoughMemory, WrongTask

from .conftest import Chat

MB = 10**6
CACHE = KvCache("grown", 30, 3, 64, "float32", 1024)


def artifact(form: str = "onnx", megabytes: int = 96, kind: str = "grown") -> Artifact:
    cache = KvCache(kind, 30, 3, 64, "float32", 1024)
    return Artifact(form, "int4", "m", (FileEntry("m", megabytes * MB, ""),), {}, cache=cache)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Says so many megabytes are free."""

    def say(megabytes: int | None) -> None:
        found = None if megabytes is None else megabytes * MB
        monkeypatch.setattr(preflight, "available_memory", lambda: found)

    return say


@pytest.mark.parametrize(
    ("form", "kind", "megabytes", "peak"),
    [
        ("onnx", "grown", 94, 291),
        ("onnx", "grown", 136, 304),
        ("tflite", "rows", 94, 269),
        ("tflite", "rows", 137, 316),
    ],
)
def test_no_less_than_was_measured(form: str, kind: str, megabytes: int, peak: int) -> None:
    """The most that a process held beyond Python, with SmolLM2-135M and 956 tokens; and not half as much again."""
    estimate = preflight.need_of(artifact(form, megabytes, kind), artifact(form, megabytes, kind).cache or CACHE)
    assert peak <= estimate.total(956) / MB < 1.5 * peak


def test_the_context_that_fits_is_named(free: Callable[[int | None], None]) -> None:
    free(312)
    with pytest.raises(
        NotEnoughMemory, match="context of 1024 takes about 335 MB, and 312 MB are free; a context of 520"
    ):
        preflight.check_memory("onnx/int4", artifact(), None)
    preflight.check_memory("onnx/int4", artifact(), 520)
    with pytest.raises(NotEnoughMemory):
        preflight.check_memory("onnx/int4", artifact(), 521)
    free(100)
    with pytest.raises(NotEnoughMemory, match="no context fits; close other programs, or take a smaller artifact"):
        preflight.check_memory("onnx/int4", artifact(), 64)
    free(None)
    preflight.check_memory("onnx/int4", artifact(), None)


@pytest.mark.parametrize("context", [0, 1, 1025])
def test_contexts_that_cannot_be(context: int) -> None:
    with pytest.raises(InvalidSpec, match=f"a context of {context} is not between 2 and the 1024 tokens of onnx/int4"):
        preflight.check_memory("onnx/int4", artifact(), context)


def test_a_shorter_context_is_kept_to(chat: Chat) -> None:
    model = mobile_llm.load(chat.bundle, context=32)
    chat.decoder.answers["hello"] = chat.bytes("y" * 100)
    answer = model.session().respond("hello", max_tokens=100)
    assert (model.engine.context, answer.finish) == (32, "context")


def test_nothing_is_loaded_that_does_not_fit(chat: Chat, free: Callable[[int | None], None]) -> None:
    free(1)
    with pytest.raises(NotEnoughMemory, match="onnx/fp32 with a context of 1024"):
        mobile_llm.load(chat.bundle)


def test_other_models_have_no_context() -> None:
    with pytest.raises(WrongTask, match="no context to choose"):
        preflight.check_memory("onnx/int8", Artifact("onnx", "int8", "m", (), {}), 64)
