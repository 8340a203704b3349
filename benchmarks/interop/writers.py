"""Models that write: transformers.js, optimum, onnxruntime-genai and LiteRT-LM against the bundle's own runtime."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.interop.clients import install_genai, install_litert_lm, install_optimum, install_transformers_js
from benchmarks.interop.compare import Client, Comparison
from benchmarks.interop.writing import COUNT, WritingJudge, Written, prompts, write_all
from benchmarks.processes import say
from mobile_llm.bundle import Bundle
from mobile_llm.bundle.codec import read_json
from mobile_llm.errors import BackendUnavailable
from mobile_llm.generation.template import TEMPLATE_FILE


def compare_writer(bundle: Bundle, args: argparse.Namespace) -> Comparison:
    """MODEL is not needed: what a client writes is to be what our runtime writes from the same file."""
    asked = prompts(chats=(bundle.folder / TEMPLATE_FILE).is_file())
    wanted: dict[str, Sequence[Written]] = {}
    cannot: dict[str, str] = {}
    for artifact_id, artifact in bundle.manifest.artifacts.items():
        if artifact.cache and artifact.format in ("onnx", "litertlm"):
            say(f"writing with {artifact_id}")
            try:
                wanted[artifact.path] = write_all(bundle, artifact_id, asked)
            except BackendUnavailable as error:
                cannot[artifact.path] = f"our runtime does not open it here: {error}"
    request = {"prompts": asked, "count": COUNT}
    return Comparison(_clients(bundle, args, list(wanted), cannot), request, WritingJudge(bundle, wanted))


def _clients(
    bundle: Bundle, args: argparse.Namespace, files: Sequence[str], cannot: dict[str, str]
) -> dict[str, Client]:
    work = args.work.absolute()
    onnx = [file for file in files if file.endswith(".onnx")]
    litertlm = [file for file in files if file.endswith(".litertlm")]
    not_onnx = {file: reason for file, reason in cannot.items() if file.endswith(".onnx")}
    not_litertlm = {file: reason for file, reason in cannot.items() if file not in not_onnx}
    if not litertlm and not not_litertlm:
        not_litertlm["*.litertlm"] = "none is in the bundle"
    named = _named_for_genai(bundle)
    return {
        "transformers.js": Client(
            lambda: install_transformers_js(work / "node", "transformers_js_writer.mjs"), onnx, not_onnx
        ),
        "optimum": Client(
            lambda: install_optimum(work / "optimum", args.optimum_python, "optimum_writer.py"), onnx, not_onnx
        ),
        "genai": Client(
            lambda: install_genai(work / "genai"),
            [file for file in onnx if file == named],
            {file: "genai_config.json names another artifact" for file in onnx if file != named} | not_onnx,
        ),
        "litert-lm": Client(lambda: install_litert_lm(work / "litert-lm"), litertlm, not_litertlm),
    }


def _named_for_genai(bundle: Bundle) -> str | None:
    path = bundle.folder / "genai_config.json"
    return str(read_json(path)["model"]["decoder"]["filename"]) if path.is_file() else None
