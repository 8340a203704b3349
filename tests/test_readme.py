"""README.md is executed: its tour runs on a tiny stand-in for MiniLM, and its reference is what the commands say."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reference import inserted

README = Path(__file__).parent.parent / "README.md"
# What its Python programs print, in their order
PRINTED = (r"(good|bad) [01]\.\d+\n", r"\(5, 4\)\n")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_reference_is_what_the_commands_say() -> None:
    """The whole text, so that nothing outside the markers is lost by writing it anew."""
    text = README.read_text(encoding="utf-8")
    assert inserted(text) == text, "run `make reference`"


@pytest.mark.parametrize("package", ["mobile_llm", "exporters", "benchmarks"])
def test_every_room_has_its_place_on_the_map(package: str) -> None:
    (plan,) = (block for block in blocks("text") if block.startswith("mobile_llm/"))
    (rooms,) = re.findall(rf"^{package}/.*\n((?: .*\n)+)", plan, re.MULTILINE)
    files = [path for kind in ("py", "toml") for path in (README.parent / package).glob(f"*/*.{kind}")]
    assert sorted(re.findall(r" ([a-z_]+)/\s", rooms)) == sorted({file.parent.name for file in files})


@pytest.fixture(scope="module")
def place(make_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the tour supposes it: `minilm`, `train.csv`, `eval.csv`. One word decides the label."""
    folder = tmp_path_factory.mktemp("tour")
    make_model("feature-extraction").rename(folder / "minilm")
    rows = [f"the {noun} is {word},{word}" for noun in ("film", "plot", "text", "call") for word in ("good", "bad")]
    for name, count in (("train.csv", 40), ("eval.csv", 10)):
        (folder / name).write_text("\n".join(["text,label", *rows * count, ""]), encoding="utf-8")
    return folder


def commands() -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def toured(place: Path) -> dict[str, subprocess.CompletedProcess[str]]:
    """Every line of the tour, run in turn."""
    done = {}
    for line in commands():
        program, *arguments = shlex.split(line)
        assert program == "mobile-llm"
        code = "import sys; from mobile_llm.commands import main; sys.exit(main())"
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        done[line] = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=place, capture_output=True, text=True, env=environment
        )
    return done


def test_the_tour_has_commands_and_a_program() -> None:
    assert len(commands()) > 8
    assert len(blocks("python")) == len(PRINTED)


@pytest.mark.slow
@pytest.mark.parametrize("line", commands())
def test_every_command_of_the_tour_runs(line: str, toured: dict[str, subprocess.CompletedProcess[str]]) -> None:
    assert toured[line].returncode == 0, toured[line].stderr[-2000:]


@pytest.mark.slow
@pytest.mark.usefixtures("toured")
@pytest.mark.parametrize(("program", "printed"), zip(blocks("python"), PRINTED), ids=["tour", "module"])
def test_the_python_of_the_readme_runs(program: str, printed: str, place: Path) -> None:
    done = subprocess.run([sys.executable, "-c", program], cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.fullmatch(printed, done.stdout)
