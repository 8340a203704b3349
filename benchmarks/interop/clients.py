"""What each client needs, installed once: each function here returns the command that starts one, or raises
BackendUnavailable with the reason."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from benchmarks.interop.process import last_line, process, reason, say
from mobile_llm.errors import BackendUnavailable

TRANSFORMERS_JS = "4.3.1"
OPTIMUM_ONNX = "0.1.0"
# torch alone and first: what else is asked for in the same breath may pull in another build of it.
_OPTIMUM_PACKAGES = (("torch==2.13.0",), (f"optimum-onnx[onnxruntime]=={OPTIMUM_ONNX}",))
_HERE = Path(__file__).parent


def install_transformers_js(folder: Path) -> list[str]:
    """npm's copy in FOLDER, beside which the client's script must lie to find it."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        raise BackendUnavailable("Node is not installed: it needs `node` and `npm` on the PATH")
    package = "@huggingface/transformers"
    probe = [node, "-e", f"import('{package}').then((m) => console.log(m.env.version))"]
    folder.mkdir(parents=True, exist_ok=True)
    if not _answers(probe, TRANSFORMERS_JS, folder):
        # The CPU library of onnxruntime-node is in the package; what its install script would fetch is for CUDA.
        command = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", f"{package}@{TRANSFORMERS_JS}"]
        _install(command, f"installing {package}", {"ONNXRUNTIME_NODE_INSTALL": "skip"})
        _must_answer(probe, TRANSFORMERS_JS, folder)
    script = shutil.copy(_HERE / "transformers_js.mjs", folder)
    return [node, str(script)]


def install_optimum(folder: Path, python: Path | None) -> list[str]:
    """optimum-onnx in an environment of its own, or the one whose interpreter is given."""
    ours = python is None
    python = folder / "bin" / "python" if python is None else python.absolute()
    show = "import optimum.onnxruntime, importlib.metadata as m; print(m.version('optimum-onnx'))"
    probe = [str(python), "-c", show]
    if ours and not _answers(probe, OPTIMUM_ONNX):
        _install([sys.executable, "-m", "venv", "--clear", str(folder)], "making an environment for optimum-onnx")
        for packages in _OPTIMUM_PACKAGES:
            _install([str(python), "-m", "pip", "install", "--quiet", *packages], f"installing {packages[0]}")
    _must_answer(probe, OPTIMUM_ONNX)
    return [str(python), str(_HERE / "optimum_client.py")]


def find_tensorflow() -> list[str]:
    """TensorFlow in this environment."""
    if find_spec("tensorflow") is None:
        raise BackendUnavailable("TensorFlow is not installed: pip install tensorflow")
    return [sys.executable, str(_HERE / "tensorflow_client.py")]


def _answers(probe: list[str], version: str, folder: Path | None = None) -> bool:
    try:
        _must_answer(probe, version, folder)
    except BackendUnavailable:
        return False
    return True


def _must_answer(probe: list[str], version: str, folder: Path | None = None) -> None:
    done = process(probe, cwd=folder)
    if done.returncode:
        raise BackendUnavailable(f"it does not load: {reason(done.stderr)}")
    if last_line(done.stdout) != version:
        raise BackendUnavailable(f"version {version} is needed, {last_line(done.stdout)} is installed")


def _install(command: list[str], what: str, environment: Mapping[str, str] | None = None) -> None:
    say(what)
    done = process(command, environment=environment)
    if done.returncode:
        raise BackendUnavailable(f"{what} failed: {reason(done.stderr or done.stdout)}")
