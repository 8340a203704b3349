"""From a MIL program to an .mlpackage whose bytes depend on its contents alone."""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any

import coremltools as ct

from exporters.formats.coreml.quiet import quiet

_IDS = uuid.UUID("6f1c0f4e-6d0b-5b6e-9a2e-6d6f62696c65")  # a namespace of our own


def save_package(program: Any, target: Any, path: Path) -> None:
    """Convert without optimization passes (the program is already what it should be) and save."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with quiet(), tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        package = Path(scratch) / path.name
        ct.convert(
            program,
            source="milinternal",
            convert_to="mlprogram",
            minimum_deployment_target=target,
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
            package_dir=str(package),
        )
        _make_deterministic(package)
        shutil.move(package, path)


def name_origin(package: Path, origin: str) -> None:
    """Write into the model which one it comes from, under the name by which swift-transformers finds the tokenizer."""
    specification, spec = _specification(package)
    spec.description.metadata.userDefined["co.huggingface.exporters.name"] = origin
    specification.write_bytes(spec.SerializeToString(deterministic=True))


def _specification(package: Path) -> tuple[Path, Any]:
    path = next(package.glob("Data/*/model.mlmodel"))
    spec = ct.proto.Model_pb2.Model()
    spec.ParseFromString(path.read_bytes())
    return path, spec


def _make_deterministic(package: Path) -> None:
    """Maps in the specification are sorted, and items get ids made from their names instead of random ones."""
    specification, spec = _specification(package)
    specification.write_bytes(spec.SerializeToString(deterministic=True))
    manifest = json.loads((package / "Manifest.json").read_text(encoding="utf-8"))
    items = manifest["itemInfoEntries"]
    renamed = {old: str(uuid.uuid5(_IDS, entry["path"])).upper() for old, entry in items.items()}
    manifest["itemInfoEntries"] = {renamed[old]: entry for old, entry in sorted(items.items(), key=_path)}
    manifest["rootModelIdentifier"] = renamed[manifest["rootModelIdentifier"]]
    text = json.dumps(manifest, indent=4, sort_keys=True)
    (package / "Manifest.json").write_text(text + "\n", encoding="utf-8")


def _path(item: tuple[str, dict[str, str]]) -> str:
    return item[1]["path"]
