"""What each client needs, installed once: each function here returns the command that starts one, or raises
BackendUnavailable with the reason."""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from benchmarks.environments import GENAI, LITERT_LM, OPTIMUM, answers, environment, install, must_answer
from mobile_llm.errors import BackendUnavailable

TRANSFORMERS_JS = "4.3.1"
_HERE = Path(__file__).parent


def install_transformers_js(folder: Path, script: str) -> list[str]:
    """npm's copy in FOLDER, beside which the client's script must lie to find it."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        raise BackendUnavailable("Node is not installed: it needs `node` and `npm` on the PATH")
    package = "@huggingface/transformers"
    probe = [node, "-e", f"import('{package}').then((m) => console.log(m.env.version))"]
    folder.mkdir(parents=True, exist_ok=True)
    if not answers(probe, TRANSFORMERS_JS, folder):
        # The CPU library of onnxruntime-node is in the package; what its install script would fetch is for CUDA.
        command = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", f"{package}@{TRANSFORMERS_JS}"]
        install(command, f"installing {package}", {"ONNXRUNTIME_NODE_INSTALL": "skip"})
        must_answer(probe, TRANSFORMERS_JS, folder)
    return [node, str(shutil.copy(_HERE / script, folder))]


def install_optimum(folder: Path, python: Path | None, script: str) -> list[str]:
    """optimum-onnx in an environment of its own, or the one whose interpreter is given."""
    if python is None:
        python = environment(folder, OPTIMUM)
    else:
        must_answer(OPTIMUM.probe(python.absolute()), OPTIMUM.version)
    return [str(python.absolute()), str(_HERE / script)]


def install_genai(folder: Path) -> list[str]:
    """onnxruntime-genai in an environment of its own."""
    return [str(environment(folder, GENAI).absolute()), str(_HERE / "genai_client.py")]


def install_litert_lm(folder: Path) -> list[str]:
    """LiteRT-LM in an environment of its own."""
    return [str(environment(folder, LITERT_LM).absolute()), str(_HERE / "litert_lm_client.py")]


def find_tensorflow() -> list[str]:
    """TensorFlow in this environment."""
    if find_spec("tensorflow") is None:
        raise BackendUnavailable("TensorFlow is not installed: pip install tensorflow")
    return [sys.executable, str(_HERE / "tensorflow_client.py")]
