"""A .tflite file of which LiteRT sees some signatures: the same numbers, the same file, and errors for what is none."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ai_edge_litert import schema_py_generated as schema

from exporters.architectures.decoders import describe_decoder
from exporters.formats import tflite as lowering
from exporters.formats.tflite import signatures
from exporters.quantization.integers import to_int8
from mobile_llm.backends.litert import CompiledFile, OpenSignatures
from mobile_llm.backends.narrowed import MappedFile
from mobile_llm.backends.tflite_decoder import open_file
from mobile_llm.bundle.manifest import Artifact
from mobile_llm.errors import IntegrityFailed

IDS = list(range(5, 29))


@pytest.fixture
def file(decoder: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(signatures, "_SMALLEST_CACHE", 16)
    lowered = lowering.lower_decoder(describe_decoder(decoder("llama")), "fp32", tmp_path, 32)
    return tmp_path / lowered.path


def names_of(data: bytes) -> list[tuple[str, str]]:
    """The signatures, each with the name of its subgraph."""
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    found = [(s.signatureKey.decode(), model.subgraphs[s.subgraphIndex].name.decode()) for s in model.signatureDefs]
    assert len(model.subgraphs) == len(found)
    return found


def test_only_what_was_asked_for_is_there(file: Path) -> None:
    whole = file.read_bytes()
    every = names_of(whole)
    assert all(key == graph for key, graph in every)
    assert len(every) > 4
    for wanted in ([0], [1], [len(every) - 1], [0, 2], [3, 1], range(len(every))):
        keys = [every[index][0] for index in wanted]
        with file.open("rb") as source:
            mapped = MappedFile(source, keys)
            for _ in range(2):
                assert names_of(mapped.memory[:]) == [(key, key) for key, _ in every if key in keys]
                mapped.forget()
            mapped.close()
    assert file.read_bytes() == whole


def test_weights_lie_behind_what_every_run_reads(decoder: Callable[[str], Any], tmp_path: Path) -> None:
    blocks = to_int8(describe_decoder(decoder("llama")))
    lowered = lowering.lower_decoder(blocks, "int8", tmp_path, 32)
    data = (tmp_path / lowered.path).read_bytes()
    model = schema.Model.GetRootAs(data, 0)
    buffers = [model.Buffers(index).DataAsNumpy() for index in range(model.BuffersLength())]
    graphs = [model.Subgraphs(index) for index in range(model.SubgraphsLength())]
    tensors = [graph.Tensors(index) for graph in graphs for index in range(graph.TensorsLength())]
    places: dict[bool, set[int]] = {True: set(), False: set()}
    for tensor in tensors:
        values = buffers[tensor.Buffer()]
        if not isinstance(values, int):
            places[tensor.Type() == schema.TensorType.INT8].add(values.ctypes.data)
    assert len(places[True]) > 4
    assert max(places[False]) < min(places[True])


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc what is in memory")
def test_what_is_forgotten_leaves_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.tflite"
    path.write_bytes(bytes(1 << 22))
    with path.open("rb") as source:
        mapped = MappedFile(source, None)
    assert mapped.memory[:] == path.read_bytes()
    before = _resident(path)
    mapped.forget()
    assert (before, _resident(path)) == (1 << 22, 0)
    mapped.close()


def _resident(path: Path) -> int:
    """Bytes of a mapped file that are in this process's memory."""
    _, found, rest = Path("/proc/self/smaps").read_text(encoding="utf-8").partition(f"{path}\n")
    assert found
    (line, *_) = (line for line in rest.splitlines() if line.startswith("Rss:"))
    return 1024 * int(line.split()[1])


@pytest.mark.parametrize("kept", [False, True])
def test_what_is_opened_later_joins_what_is_open(
    kept: bool, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside it where the packed weights are kept in a file, all in one where they are not."""
    monkeypatch.setenv("MOBILE_LLM_CACHE", str(tmp_path / "kept"))
    first, second, third = (key for key, _ in names_of(file.read_bytes())[:3])
    opened = OpenSignatures(file, 1, "0" * 64 if kept else None)
    opened.have(frozenset({second}))
    file.unlink()
    opened.have(frozenset({second}))
    opened.have(frozenset({first}))
    assert _sets(opened) == ([{first}, {second}] if kept else [{first, second}])
    opened.forget(frozenset({first}))
    opened.have(frozenset({first}))  # it is still open
    opened.forget(frozenset({first}))
    opened.have(frozenset({third}))
    assert _sets(opened) == [{second, third}]
    opened.close()


def _sets(opened: OpenSignatures) -> list[set[str]]:
    """The signatures of each file that is open."""
    return sorted((set(file._model.signatures) for file in set(opened._open.values())), key=min)


@pytest.mark.parametrize("keys", [["nothing"], ["decode_16", "nothing"]])
def test_a_signature_that_is_not_there_is_named(file: Path, keys: list[str]) -> None:
    with file.open("rb") as source, pytest.raises(IntegrityFailed, match="it has no nothing"):
        CompiledFile(source, 1, keys)


def test_what_is_no_flatbuffer_is_refused(file: Path, tmp_path: Path) -> None:
    whole, other = file.read_bytes(), tmp_path / "other.tflite"
    rng = random.Random(0)
    garbage = [rng.randbytes(size) for size in (1, 4, 40, 4000) for _ in range(50)]
    for data in (b"", whole[:4], whole[: len(whole) // 2], whole[:-16], *garbage):
        other.write_bytes(data)
        with other.open("rb") as source, pytest.raises(IntegrityFailed, match=r"other\.tflite"):
            CompiledFile(source, 1, ["decode_16"])


def test_packed_weights_are_found_again(
    decoder: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By other signatures than those that were open when they were packed."""
    monkeypatch.setattr(signatures, "_SMALLEST_CACHE", 16)
    monkeypatch.setenv("MOBILE_LLM_CACHE", str(tmp_path / "cache"))
    lowered = lowering.lower_decoder(describe_decoder(decoder("llama")), "int8", tmp_path, 32)
    artifact = Artifact("tflite", "int8", lowered.path, (), lowered.entry_points, cache=lowered.cache)
    answers, kept = [], []
    for sha256, first in ((None, 20), ("ab" * 32, 1), ("ab" * 32, 20)):
        opened = open_file(tmp_path / lowered.path, artifact, 1, sha256)
        opened.append(IDS[:first])
        opened.rewind(0)
        answers.append(opened.append(IDS))
        opened.close()
        kept.append([(path.name, path.stat().st_ino) for path in (tmp_path / "cache").glob("*")])
    assert kept[0] == []
    assert len(kept[1]) == 1
    assert kept[1] == kept[2]
    assert all((answer == answers[0]).all() for answer in answers)
