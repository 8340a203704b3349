"""Environments of others: each made once, with what one program of theirs needs, so that nothing of it meets ours."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import last_line, process, reason, say
from mobile_llm.errors import BackendUnavailable


@dataclass(frozen=True)
class Packages:
    """What an environment holds: pip's arguments, installed in this order, and by which imports and distribution it is
    known that they are there. `variables` are set while they are installed."""

    modules: str
    distribution: str
    version: str
    installs: tuple[tuple[str, ...], ...]
    variables: Mapping[str, str] = field(default_factory=dict)

    def probe(self, python: Path) -> list[str]:
        """A command that prints the version of what is installed."""
        code = f"import {self.modules}, importlib.metadata as m; print(m.version({self.distribution!r}))"
        return [str(python), "-c", code]


# torch alone and first: what else is asked for in the same breath may pull in another build of it.
TORCH = ("torch==2.13.0",)
OPTIMUM = Packages("optimum.onnxruntime", "optimum-onnx", "0.1.0", (TORCH, ("optimum-onnx[onnxruntime]==0.1.0",)))
GENAI = Packages("onnxruntime_genai", "onnxruntime-genai", "0.18.0", (("onnxruntime-genai==0.18.0",),))
GENAI_BUILDER = Packages(
    "onnxruntime_genai, torch, onnx_ir",
    "onnxruntime-genai",
    "0.18.0",
    (TORCH, ("onnxruntime-genai==0.18.0", "onnx==1.23.2", "onnx-ir==1.1.0", "transformers==5.23.0")),
)
LITERT_LM = Packages("litert_lm, numpy", "litert-lm", "0.18.1", (("litert-lm==0.18.1", "numpy"),))


def environment(folder: Path, packages: Packages) -> Path:
    """The interpreter of the environment in `folder`, which is made where it does not answer as it should. Raises
    BackendUnavailable with the reason where it cannot be."""
    python = folder / "bin" / "python"
    probe = packages.probe(python)
    if not answers(probe, packages.version):
        install([sys.executable, "-m", "venv", "--clear", str(folder)], f"making an environment for {folder.name}")
        for arguments in packages.installs:
            command = [str(python), "-m", "pip", "install", "--quiet", *arguments]
            install(command, f"installing {' '.join(arguments)}", packages.variables)
        must_answer(probe, packages.version)
    return python


def answers(probe: list[str], version: str, folder: Path | None = None) -> bool:
    """Whether a command, run in `folder`, prints `version`."""
    try:
        must_answer(probe, version, folder)
    except BackendUnavailable:
        return False
    return True


def must_answer(probe: list[str], version: str, folder: Path | None = None) -> None:
    """Raises BackendUnavailable where the command `probe` does not print `version`."""
    done = process(probe, cwd=folder)
    if done.returncode:
        raise BackendUnavailable(f"it does not load: {reason(done.stderr)}")
    if last_line(done.stdout) != version:
        raise BackendUnavailable(f"version {version} is needed, {last_line(done.stdout)} is installed")


def install(command: list[str], what: str, variables: Mapping[str, str] | None = None) -> None:
    """Say `what` is done, and do it. Raises BackendUnavailable with what the command says of its failure."""
    say(what)
    done = process(command, environment=variables)
    if done.returncode:
        raise BackendUnavailable(f"{what} failed: {reason(done.stderr or done.stdout)}")
