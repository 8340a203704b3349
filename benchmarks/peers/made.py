"""What is made once of a model before anything is measured: its twin, and our bundle of it."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from benchmarks.environments import install
from mobile_llm.bundle import Bundle
from mobile_llm.bundle.integrity import sha256_of
from mobile_llm.errors import InvalidInput, ModelNotFound

_FORMATS, _RECIPES = "onnx,tflite", "int8,int4"


def weights_sha256(model: Path) -> str:
    """As the manifest's origin has it: over the weight files' names and contents. Raises ModelNotFound."""
    files = sorted(model.glob("*.safetensors"))
    if not files:
        raise ModelNotFound(f"{model} holds no .safetensors file; save the model again with transformers")
    return hashlib.sha256("".join(f"{file.name} {sha256_of(file)}\n" for file in files).encode()).hexdigest()


def twin_of(model: Path, seed: int, work: Path) -> Path:
    """The twin's folder, made where it is missing, in a process that takes its memory with it. Raises
    BackendUnavailable with the reason where there can be none."""
    twin = work / "twins" / f"{weights_sha256(model)[:12]}-{seed}"
    if not twin.exists():
        twin.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "benchmarks.peers.twin", str(model), str(twin), "--seed", str(seed)]
        install(command, f"permuting {model.name}")
    return twin


def bundle_of(model: Path, models: Path, calibration: Path | None, max_size: float | None) -> Bundle:
    """Our export of `model` in `models`, made where it is missing. Raises BackendUnavailable where it fails."""
    wanted = ["--calibration", str(calibration)] if calibration else []
    wanted += ["--max-size", str(max_size)] if max_size else []
    return _exported(model, models, ["--formats", _FORMATS, "--recipe", _RECIPES, *wanted])


def litertlm_of(model: Path, models: Path) -> Path:
    """Such an export's file for LiteRT-LM, in 4 bits rounded to nearest: its speed does not depend on how they are
    found, and beside the others it would count in what a largest size leaves for them. Raises as `bundle_of`."""
    bundle = _exported(model, models, ["--formats", "litertlm", "--recipe", "int4"])
    return bundle.folder / bundle.manifest.artifacts["litertlm/int4"].path


def _exported(model: Path, models: Path, wanted: list[str]) -> Bundle:
    key = hashlib.sha256(" ".join(wanted).encode()).hexdigest()[:8]
    folder = models / f"bundle-{key}"
    if not folder.exists():
        models.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "mobile_llm", "export", str(model), "--task", "text-generation", *wanted]
        install([*command, "-o", str(folder)], f"exporting {model.name}")
    return Bundle.open(folder)


def of_the_same_weights(bundle: Bundle, sha256: str) -> Bundle:
    """The bundle itself. Raises InvalidInput where it was made of other weights than those of this digest."""
    if bundle.manifest.origin.weights_sha256 != sha256:
        raise InvalidInput(
            f"{bundle.folder} was made of other weights than the peers would be; export it from the same folder, "
            "or leave it out (with --twin that is the twin's)"
        )
    return bundle
