"""ONNX artifacts in onnxruntime, on the CPU. External data stays inside the bundle; the one custom-operator library
that may be loaded is that of the installed package onnxruntime-extensions, never one that a bundle brings."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime as ort

from mobile_llm.backends.onnx_decoder import OnnxDecoder, decoder_of
from mobile_llm.bundle.integrity import inside
from mobile_llm.bundle.manifest import Artifact, EntryPoint
from mobile_llm.errors import BackendUnavailable, IntegrityFailed

EXTENSIONS = "onnxruntime-extensions"
# Names of the manifest that numpy has another one for
_NUMPY = {"string": "object"}


class OnnxSession:
    """One `InferenceSession`; ONNX has a single entry, so `entry` only binds names."""

    def __init__(self, path: Path, threads: int | None, extensions: bool = False) -> None:
        self._session = opened(path, threads, extensions)

    def run(self, entry: EntryPoint, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        feeds = {
            binding.name: np.ascontiguousarray(inputs[role], dtype=_NUMPY.get(binding.dtype, binding.dtype))
            for role, binding in entry.inputs.items()
        }
        results = self._session.run([binding.name for binding in entry.outputs.values()], feeds)
        return dict(zip(entry.outputs, results))

    def close(self) -> None:
        del self._session


def open_session(bundle: Path, artifact: Artifact, threads: int | None) -> OnnxSession:
    return OnnxSession(inside(bundle, artifact.path), threads, extensions=EXTENSIONS in artifact.minimum)


def open_decoder(bundle: Path, artifact: Artifact, threads: int | None) -> OnnxDecoder:
    return decoder_of(opened_decoder(inside(bundle, artifact.path), threads), artifact)


def opened(path: Path, threads: int | None, extensions: bool = False) -> ort.InferenceSession:
    """The file as a session of our settings. Raises IntegrityFailed, BackendUnavailable."""
    options = _options(threads)
    if extensions:
        register_extensions(options)
    return _session(path, options)


def opened_decoder(path: Path, threads: int | None) -> ort.InferenceSession:
    """The same for texts of any length. For each shape that comes onnxruntime would plan memory and keep the plan: that
    takes longer than it saves, and 25 MB in 1,000 steps of SmolLM2-135M in int8. Raises as `opened` does."""
    options = _options(threads)
    options.enable_mem_pattern = False
    return _session(path, options)


def _options(threads: int | None) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Where x86 has no VNNI, sums of int8 products would saturate; no phone's do. No effect on other CPUs.
    options.add_session_config_entry("session.x64quantprecision", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    return options


def _session(path: Path, options: ort.SessionOptions) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own, unexported exception types
        reason = str(error).splitlines()[0]
        raise IntegrityFailed(f"onnxruntime {ort.__version__} cannot open {path.name}: {reason}") from None


def register_extensions(options: ort.SessionOptions) -> None:
    """Operators on strings for the sessions opened with these options. Raises BackendUnavailable."""
    library = extensions_library()
    if hasattr(os, "RTLD_DEEPBIND"):
        # Only Linux binds names across libraries: with TensorFlow in the process, the operators would call its
        # regular expressions instead of their own, and cut texts wrongly.
        ctypes.CDLL(library, os.RTLD_NOW | os.RTLD_DEEPBIND)
    options.register_custom_ops_library(library)


def extensions_library() -> str:
    """The installed package's library of operators on strings. The package is not imported for it: that would import
    onnx where it is installed, which takes seconds. Raises BackendUnavailable."""
    package = find_spec("onnxruntime_extensions")
    folders = package.submodule_search_locations if package else None
    for path in (
        Path(folder, f"_extensions_pydll{suffix}") for folder in folders or () for suffix in EXTENSION_SUFFIXES
    ):
        if path.is_file():
            return str(path)
    raise BackendUnavailable(
        'artifacts that take text need onnxruntime-extensions: pip install "mobile-llm[text-input]"'
    )
