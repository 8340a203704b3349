"""Classifiers and embedders: transformers.js, optimum-onnx and TensorFlow against transformers on MODEL."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from benchmarks.interop.clients import find_tensorflow, install_optimum, install_transformers_js
from benchmarks.interop.compare import Client, Comparison
from benchmarks.interop.judge import judge_artifact
from benchmarks.interop.reference import read_reference
from mobile_llm.bundle import Bundle
from mobile_llm.errors import InvalidInput

_ONNX = ("onnx/model.onnx", "onnx/model_quantized.onnx")
_TFLITE = ("tflite/fp32.tflite", "tflite/int8.tflite")


def compare_encoder(bundle: Bundle, args: argparse.Namespace) -> Comparison:
    """Raises InvalidInput without a model to compare with."""
    if args.model is None:
        raise InvalidInput(f"{bundle.manifest.task.name} is compared with its model; give the folder of that as MODEL")
    reference, task, work = read_reference(args.model, bundle), bundle.manifest.task, args.work.absolute()
    clients = {
        "transformers.js": Client(lambda: install_transformers_js(work / "node", "transformers_js.mjs"), _ONNX),
        "optimum": Client(lambda: install_optimum(work / "optimum", args.optimum_python, "optimum_client.py"), _ONNX),
        "tensorflow": Client(find_tensorflow, _TFLITE),
    }
    request: dict[str, Any] = {"task": task.name, "pooling": task.pooling, "normalize": bool(task.normalize)}
    request |= {"labels": reference.names, "texts": reference.texts}
    return Comparison(clients, request, partial(judge_artifact, reference=reference))
