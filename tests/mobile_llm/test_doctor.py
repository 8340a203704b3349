"""`mobile-llm doctor` on made-up environments, and once on this one."""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from mobile_llm import doctor, machine
from mobile_llm.commands import doctor as command

REQUIRES = [
    "numpy>=1.26", "onnxruntime>=1.20", 'torch>=2.6; extra == "export"', 'onnx>=1.17; extra == "export-onnx"',
    'mobile-llm[export]; extra == "export-onnx"', 'ai-edge-litert>=2.0; extra == "tflite"',
    'tomli>=2; python_version < "3" and extra == "export"',
]  # fmt: skip
HERE = doctor.Machine("3.11.7", True, "Linux x86_64", "a CPU", (), (), 1, 1)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Versions by name, to be changed."""
    versions = {"numpy": "2.4.6", "onnxruntime": "1.31.1"}

    def version(name: str) -> str:
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(doctor, "requires", lambda _: REQUIRES)
    monkeypatch.setattr(doctor, "version", version)
    return versions


def _ability(name: str) -> doctor.Ability:
    return next(ability for ability in doctor.abilities() if ability.name == name)


def _states(name: str) -> dict[str, str]:
    return {package.name: package.state for package in _ability(name).packages}


def test_extras_are_followed_and_what_is_missing_is_given_as_a_command(installed: dict[str, str]) -> None:
    installed["torch"] = "2.13.0+cpu"
    assert _states("export to ONNX") == {
        "numpy": "tested", "onnxruntime": "tested", "onnx": "missing", "torch": "tested",
    }  # fmt: skip
    assert _ability("export to ONNX").command == 'pip install --upgrade "mobile-llm[export-onnx]"'
    installed["onnx"] = "1.18"
    assert _states("export to ONNX")["onnx"] == "in range"
    assert _ability("export to ONNX").ready
    assert _ability("run ONNX artifacts").ready
    assert not _ability("run TFLite artifacts").ready


@pytest.mark.parametrize(("system", "ready"), [("Linux", False), ("Darwin", True)])
def test_core_ml_runs_on_a_mac_only(
    system: str, ready: bool, installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.platform, "system", lambda: system)
    assert _ability("run Core ML artifacts").ready is ready


def test_a_missing_extra_is_not_broken_and_a_missing_base_or_a_wrong_version_is(installed: dict[str, str]) -> None:
    assert doctor.broken(doctor.abilities(), HERE) == []
    installed["torch"] = "2.1"
    assert doctor.broken(doctor.abilities(), HERE) == ["torch 2.1 is installed, and >=2.6 is needed"]
    del installed["torch"], installed["numpy"]
    assert doctor.broken(doctor.abilities(), HERE) == ["numpy is not installed, and nothing runs without it"]


def test_the_exit_code_says_whether_something_is_broken(
    installed: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.run(argparse.Namespace(json=True)) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["abilities"]["run ONNX artifacts"]["ready"] is True
    assert document["abilities"]["run TFLite artifacts"]["command"] == 'pip install --upgrade "mobile-llm[tflite]"'
    installed["numpy"] = "1.20"
    assert command.run(argparse.Namespace(json=False)) == 1
    assert "numpy 1.20 is installed, and >=1.26 is needed" in capsys.readouterr().out


def test_this_environment_is_told_quickly_and_without_importing_it() -> None:
    code = (
        "import sys, argparse; from mobile_llm.commands import doctor; doctor.run(argparse.Namespace(json=False))\n"
        "sys.stderr.write(' '.join({'torch', 'numpy', 'onnxruntime', 'rich'} & set(sys.modules)))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1  # seconds of its own
    assert done.stderr == ""
    assert "run ONNX artifacts" in done.stdout


def test_the_tested_versions_are_those_of_the_constraints() -> None:
    text = Path(__file__).parents[2].joinpath("constraints.txt").read_text(encoding="utf-8")
    pins = {name.lower(): found for name, found in re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE)}
    tested = json.loads(Path(doctor.__file__).with_name("tested.json").read_text(encoding="utf-8"))["versions"]
    assert tested == {name: pins[name] for name in tested}


@pytest.mark.parametrize(
    ("architecture", "features", "note"),
    [
        ("x86_64", ("avx2",), "no VNNI"),
        ("x86_64", ("avx2", "avx_vnni"), ""),
        ("aarch64", ("asimddp",), "no i8mm"),
        ("arm64", (), "does not say"),
    ],
)
def test_what_the_processor_lacks_is_noted(architecture: str, features: tuple[str, ...], note: str) -> None:
    notes = list(doctor._notes(architecture, features))
    assert (note in notes[0]) if note else not notes


def _machine(root: Path, available: int, groups: str, files: dict[str, str]) -> Path:
    for name, text in {
        "proc/meminfo": f"MemTotal: 9999 kB\nMemAvailable: {available} kB\n", "proc/self/cgroup": groups, **files,
    }.items():  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="ascii")
    return root


def test_a_containers_limit_is_the_memory_there_is(tmp_path: Path) -> None:
    two = {
        "sys/fs/cgroup/a/memory.max": "1000000\n", "sys/fs/cgroup/a/memory.current": "900000\n",
        "sys/fs/cgroup/a/memory.stat": "anon 1\ninactive_file 50000\n", "sys/fs/cgroup/a/b/memory.max": "max\n",
    }  # fmt: skip
    assert machine.available_memory(_machine(tmp_path / "2", 5000, "0::/a/b\n", two)) == 150_000
    one = {
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "2000000\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "500000\n",
    }
    place = "4:memory:/docker/elsewhere\n0::/\n"
    assert machine.available_memory(_machine(tmp_path / "1", 5000, place, one)) == 1_500_000
    one["sys/fs/cgroup/memory/memory.limit_in_bytes"] = "9223372036854771712\n"
    assert machine.available_memory(_machine(tmp_path / "1", 5000, place, one)) == 5000 * 1024
