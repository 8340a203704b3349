"""The readers of the three formats: they give what was written, and of damaged files only IntegrityFailed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mobile_llm.artifacts import ArtifactGraph, read
from mobile_llm.bundle import Bundle
from mobile_llm.errors import IntegrityFailed

FORMATS = ("onnx", "tflite", "coreml")
PRECISIONS = ("fp32", "int8")


def _path(bundle: Path, artifact_id: str) -> Path:
    return bundle / Bundle.open(bundle).manifest.artifacts[artifact_id].path


def _read(bundle: Path, artifact_id: str) -> ArtifactGraph:
    return read(artifact_id.split("/")[0], _path(bundle, artifact_id))


def _read_all(format_name: str, path: Path) -> int:
    """Reads a file and every constant in it; gives how many there are."""
    functions = read(format_name, path).functions.values()
    return sum(tensor.read() is not None for function in functions for tensor in function.constants())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_onnx_is_read_as_the_onnx_package_reads_it(precision: str, classifier_bundle: Path) -> None:
    model = onnx.load(_path(classifier_bundle, f"onnx/{precision}"))
    graph = _read(classifier_bundle, f"onnx/{precision}")
    (function,) = graph.functions.values()
    assert graph.versions == {"ai.onnx": 17, "com.microsoft": 1, "ir": 8}
    assert function.inputs == ("input_ids", "attention_mask", "token_type_ids")
    assert function.outputs == ("logits",)
    assert [op.type.removeprefix("com.microsoft.") for op in function.ops] == [n.op_type for n in model.graph.node]
    assert [op.inputs for op in function.ops] == [tuple(n.input) for n in model.graph.node]
    constants = {tensor.name: tensor for tensor in function.constants()}
    assert set(constants) == {tensor.name for tensor in model.graph.initializer}
    for tensor in model.graph.initializer:
        expected = numpy_helper.to_array(tensor)
        found = constants[tensor.name]
        assert (found.dtype, found.shape, found.stored_bytes) == (expected.dtype.name, expected.shape, expected.nbytes)
        np.testing.assert_array_equal(found.read(), expected)


def test_both_branches_of_onnx_attention_are_read(classifier_bundle: Path) -> None:
    (function,) = _read(classifier_bundle, "onnx/fp32").functions.values()
    choices = [op for op in function.ops if op.type == "If"]
    assert len(choices) == 2
    for op in choices:
        branches = [op.attributes[name].ops for name in ("then_branch", "else_branch")]
        assert [[inner.type for inner in ops] for ops in branches] == [["com.microsoft.MultiHeadAttention"]] * 2
        assert branches[0][0].attributes["num_heads"] == 4


@pytest.mark.parametrize(
    "values",
    [
        np.array([[1.5, -2], [3, 4]], np.float32),
        np.array([1e-3, 7], np.float64),
        np.array([1.5, -0.25], np.float16),
        np.array([-5, 2**40], np.int64),
        np.array([-5, 7], np.int32),
        np.array([-128, 127], np.int8),
        np.array([0, 255], np.uint8),
        np.array([True, False]),
        np.array(3.5, np.float32),
    ],
    ids=lambda values: f"{values.dtype} {values.ndim}",
)
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_every_way_onnx_stores_a_tensor_is_read(raw: bool, values: np.ndarray, tmp_path: Path) -> None:
    kind = helper.np_dtype_to_tensor_dtype(values.dtype)
    contents: Any = values.tobytes() if raw else values.flatten().tolist()
    tensor = helper.make_tensor("w", kind, values.shape, contents, raw)
    (constant,) = _single(tmp_path, tensor)
    assert constant.shape == values.shape
    np.testing.assert_array_equal(constant.read(), values)


def test_external_data_of_onnx_is_read_where_it_starts(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    (tmp_path / "weights").write_bytes(b"head" * 4 + values.tobytes() + b"tail")
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 3], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": "weights", "offset": "16", "length": "24"}.items():
        tensor.external_data.add(key=key, value=value)
    (constant,) = _single(tmp_path, tensor)
    np.testing.assert_array_equal(constant.read(), values)


def _single(folder: Path, tensor: TensorProto) -> list[Any]:
    graph = helper.make_graph([], "g", [], [], [tensor])
    onnx.save(helper.make_model(graph), str(folder / "single.onnx"))
    return list(read("onnx", folder / "single.onnx").functions["g"].constants())


def test_external_data_inside_a_branch_is_found(tmp_path: Path) -> None:
    """A tensor that only control flow uses may not lead out of the folder either."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../secret")
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    branch = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "branch", [], [result], [tensor])
    node = helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)
    graph = helper.make_graph([node], "g", [], [])
    (tmp_path / "m.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(IntegrityFailed, match=r"keeps data in '\.\./\.\./secret', which lies outside its folder"):
        read("onnx", tmp_path / "m.onnx")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_tflite_is_read_as_the_generated_schema_reads_it(precision: str, classifier_bundle: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema

    path = _path(classifier_bundle, f"tflite/{precision}")
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    codes = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    graph = read("tflite", path)
    assert list(graph.functions) == ["encode_32", "encode_64"]
    for function, expected in zip(graph.functions.values(), model.subgraphs):
        assert set(function.signature.values()) == {"input_ids", "attention_mask", "token_type_ids", "logits"}
        names = [codes[model.operatorCodes[op.opcodeIndex].builtinCode] for op in expected.operators]
        assert [op.type for op in function.ops] == names
        for tensor, wanted in zip(function.tensors.values(), expected.tensors):
            assert tensor.name.split(":", 1)[1] == wanted.name.decode()
            assert tensor.shape == tuple(wanted.shape if wanted.shape is not None else ())
            data = model.buffers[wanted.buffer].data
            assert tensor.constant == (data is not None)
            if data is not None:
                assert tensor.read().tobytes() == np.asarray(data, np.uint8).tobytes()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_core_ml_is_read_as_the_generated_messages_read_it(precision: str, classifier_bundle: Path) -> None:
    from exporters.formats.coreml.quiet import load_coremltools

    load_coremltools()
    from coremltools.proto import Model_pb2

    path = _path(classifier_bundle, f"coreml/{precision}")
    specification = Model_pb2.Model()
    specification.ParseFromString((path / "Data/com.apple.CoreML/model.mlmodel").read_bytes())
    main = specification.mlProgram.functions["main"]
    (block,) = main.block_specializations.values()
    function = read("coreml", path).functions["main"]
    assert function.inputs == tuple(value.name for value in main.inputs)
    assert function.outputs == tuple(block.outputs)
    wanted = [op for op in block.operations if op.type != "const"]
    assert [op.type for op in function.ops] == [op.type for op in wanted]
    assert [op.outputs for op in function.ops] == [tuple(value.name for value in op.outputs) for op in wanted]
    assert all(name in function.tensors for op in function.ops for name in op.inputs)


def _files(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


Damaged = Callable[[str], Iterator[tuple[bytes, Path, Path]]]


@pytest.fixture
def damaged(classifier_bundle: Path, tmp_path: Path) -> Damaged:
    """For each file of an artifact: its bytes, itself, and the artifact's path, in a copy of its own."""

    def each(artifact_id: str) -> Iterator[tuple[bytes, Path, Path]]:
        source = _path(classifier_bundle, artifact_id)
        path = tmp_path / source.name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, path)
        for file in _files(path):
            content = file.read_bytes()
            yield content, file, path
            file.write_bytes(content)

    return each


def _cuts(content: bytes) -> list[int]:
    """Ends of a truncated file: the first bytes one by one, then forty places; never only a last newline short."""
    size = len(content.rstrip())
    return sorted({*range(min(80, size)), *np.linspace(80, size - 1, 40).astype(int).tolist()} & set(range(size)))


ARTIFACTS = [f"{name}/{precision}" for name in FORMATS for precision in PRECISIONS]


@pytest.mark.parametrize("artifact_id", ARTIFACTS)
def test_a_truncated_file_fails_integrity_wherever_it_ends(artifact_id: str, damaged: Damaged) -> None:
    for content, file, path in damaged(artifact_id):
        for size in _cuts(content):
            file.unlink()  # a new file each time: the reader maps the old one
            file.write_bytes(content[:size])
            with pytest.raises(IntegrityFailed):
                _read_all(artifact_id.split("/")[0], path)


@pytest.mark.parametrize("artifact_id", ARTIFACTS)
def test_altered_bytes_are_read_or_fail_integrity(artifact_id: str, damaged: Damaged) -> None:
    """Nothing else may come out of a file that someone has written on purpose."""
    random = np.random.default_rng(0)
    refused = 0
    for content, file, path in damaged(artifact_id):
        for _ in range(60):
            altered = bytearray(content)
            for place in random.integers(0, len(content), 8):
                altered[place] = random.integers(0, 256)
            file.unlink()
            file.write_bytes(altered)
            try:
                assert read(artifact_id.split("/")[0], path).functions
            except IntegrityFailed:
                refused += 1
    assert refused


def test_an_onnx_constant_that_does_not_fill_its_shape_fails_integrity(tmp_path: Path) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[5], raw_data=bytes(16))
    with pytest.raises(IntegrityFailed):
        next(iter(_single(tmp_path, tensor))).read()


def test_a_tflite_constant_that_does_not_fill_its_shape_fails_integrity(classifier_bundle: Path) -> None:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    path = _path(classifier_bundle, "tflite/int8")
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    table = next(t for t in model.subgraphs[0].tensors if t.name.endswith(b".word_embeddings.weight"))
    table.shape = np.array([9999, 32], np.int32)
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    with pytest.raises(IntegrityFailed):
        _read_all("tflite", path)


@pytest.mark.parametrize("format_name", FORMATS)
def test_what_is_not_there_or_of_another_kind_fails_integrity(format_name: str, tmp_path: Path) -> None:
    with pytest.raises(IntegrityFailed):
        read(format_name, tmp_path / "gone")
    (tmp_path / "text").write_text("just a text, " * 50, encoding="utf-8")
    with pytest.raises(IntegrityFailed):
        read(format_name, tmp_path / "text")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IntegrityFailed):
        read(format_name, tmp_path / "folder")


@pytest.mark.parametrize("path", ["../../../secret", "/etc/hostname", "com.apple.CoreML/../../../secret"])
def test_a_core_ml_package_that_names_a_file_outside_is_refused(path: str, classifier_bundle: Path) -> None:
    package = _path(classifier_bundle, "coreml/fp32")
    manifest = package / "Manifest.json"
    text = manifest.read_text(encoding="utf-8").replace("com.apple.CoreML/model.mlmodel", path)
    assert path in text
    manifest.write_text(text, encoding="utf-8")
    with pytest.raises(IntegrityFailed, match="lies outside it; do not use it"):
        read("coreml", package)
