"""States in the evaluator of MIL programs: what is written stays, and memory is reused only where nobody can tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters.formats.coreml.quiet import load_coremltools
from exporters.verification.mil.program import Program
from mobile_llm.artifacts import coreml

load_coremltools()

import coremltools as ct  # noqa: E402
from coremltools.converters.mil import Builder as mb  # noqa: E402
from coremltools.converters.mil import mil  # noqa: E402

Build = Callable[[Any, Any], Any]


@pytest.fixture
def program(tmp_path: Path) -> Callable[[Build], Program]:
    """A program of an input `x` (1, 2) and a state `kept` (3, 2), float16, whose output is named `y`."""

    def make(build: Build) -> Program:
        from exporters.formats.coreml.package import save_package

        inputs = {
            "x": mb.placeholder((1, 2), mil.types.fp16),
            "kept": mb.state_tensor_placeholder((3, 2), mil.types.fp16),
        }
        with mil.Function(inputs, opset_version=ct.target.iOS18) as function:
            result = build(function.inputs["x"], function.inputs["kept"])
            function.set_outputs([mb.cast(x=result, dtype="fp32", name="y")])
        whole = mil.Program()
        whole.add_function("main", function)
        save_package(whole, ct.target.iOS18, tmp_path / "program.mlpackage")
        return Program(coreml.read(tmp_path / "program.mlpackage").functions["main"])

    return make


def _written(old: Any, x: Any, row: int) -> Any:
    return mb.slice_update(x=old, update=x, begin=[row, 0], end=[row + 1, 2])


def _run(program: Program, states: dict[str, Any], *numbers: float) -> list[list[float]]:
    return program.run({"x": np.array([numbers], np.float16)}, states)["y"].tolist()


def test_a_state_is_kept_from_run_to_run_and_belongs_to_its_session(program: Callable[[Build], Program]) -> None:
    def build(x: Any, kept: Any) -> Any:
        return mb.coreml_update_state(state=kept, value=mb.add(x=mb.read_state(input=kept), y=x))

    made = program(build)
    states, others = made.new_states(), made.new_states()
    assert _run(made, states, 1, 2) == [[1, 2]] * 3
    assert _run(made, states, 0.5, 0.1) == [[1.5, float(np.float16(2.1))]] * 3  # rounded, as float16 keeps it
    assert _run(made, others, 0, 0) == [[0, 0]] * 3
    assert _run(made, states, 0, 0)[0][0] == 1.5


def test_rows_are_written_in_place_where_nobody_sees_it(program: Callable[[Build], Program]) -> None:
    def build(x: Any, kept: Any) -> Any:
        first = mb.coreml_update_state(state=kept, value=_written(mb.read_state(input=kept), x, 0))
        part = mb.slice_by_index(x=first, begin=[0, 0], end=[1, 2])
        second = mb.coreml_update_state(state=kept, value=_written(first, mb.add(x=x, y=x), 2))
        return mb.add(x=second, y=part)

    made = program(build)
    states = made.new_states()
    memory = states["kept"].value.data_ptr()
    assert _run(made, states, 1, 2) == [[2, 4], [1, 2], [3, 6]]
    assert states["kept"].value.tolist() == [[1, 2], [0, 0], [2, 4]]
    assert states["kept"].value.data_ptr() == memory


@pytest.mark.parametrize("through", [lambda old: old, lambda old: mb.reshape(x=old, shape=[3, 2])])
def test_an_old_value_that_is_read_later_stays_what_it_was(
    through: Callable[[Any], Any], program: Callable[[Build], Program]
) -> None:
    def build(x: Any, kept: Any) -> Any:
        old = mb.read_state(input=kept)
        alias = through(old)
        new = mb.coreml_update_state(state=kept, value=_written(old, x, 1))
        return mb.sub(x=new, y=alias)

    made = program(build)
    states = made.new_states()
    assert _run(made, states, 1, 2) == [[0, 0], [1, 2], [0, 0]]
    assert _run(made, states, 5, 5) == [[0, 0], [4, 3], [0, 0]]
    assert states["kept"].value.tolist() == [[0, 0], [5, 5], [0, 0]]


def test_the_reader_tells_states_from_inputs(program: Callable[[Build], Program], tmp_path: Path) -> None:
    program(lambda x, kept: mb.add(x=x, y=mb.read_state(input=kept)))
    function = coreml.read(tmp_path / "program.mlpackage").functions["main"]
    assert (function.inputs, function.states) == (("x",), ("kept",))
    assert (function.tensors["kept"].dtype, function.tensors["kept"].shape) == ("float16", (3, 2))
