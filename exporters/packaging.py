"""Putting a bundle together: the files other clients look for, the manifest, what was attested."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from exporters.formats.lowered import Lowered
from exporters.sources.huggingface import HuggingFaceSource
from exporters.spec import recipe_of
from exporters.verification.rows import Row, summary
from mobile_llm import __version__
from mobile_llm.bundle.codec import read_json, to_json
from mobile_llm.bundle.integrity import describe_file
from mobile_llm.bundle.layers import folded
from mobile_llm.bundle.manifest import (
    SCHEMA_VERSION,
    AdapterOrigin,
    Artifact,
    Manifest,
    Origin,
    TaskInfo,
    Tokenizer,
)
from mobile_llm.errors import InvalidInput

# The small files of a Hugging Face folder; its clients open the bundle by them, unchanged.
_COPIED = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "generation_config.json",
    "chat_template.jinja",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
    "LICENSE",
    "NOTICE",
)
# In the order of preference; the first that was exported is the format's default.
_DEFAULT_ORDER = ("int4", "int8", "fp16", "fp32")
_PACKAGES = (
    "torch",
    "transformers",
    "onnx",
    "onnxruntime",
    "onnxruntime-extensions",
    "ai-edge-litert",
    "coremltools",
    "onnxscript",
    "litert-torch",
    "keras",
    "tokenizers",
    "numpy",
)


def copy_source_files(source: HuggingFaceSource, folder: Path) -> None:
    for name in _COPIED:
        if (source.folder / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.folder / name, folder / name)


def describe_artifact(folder: Path, artifact_id: str, lowered: Lowered) -> Artifact:
    """The manifest's entry for what a format has just written."""
    path = folder / lowered.path
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else _with_external_data(path)
    return Artifact(
        format=artifact_id.split("/")[0],
        precision=recipe_of(artifact_id),
        path=lowered.path,
        files=tuple(describe_file(folder, file) for file in files),
        entry_points=lowered.entry_points,
        minimum=lowered.minimum,
        cache=lowered.cache,
    )


def _with_external_data(path: Path) -> list[Path]:
    """A file, and the `NAME_data` that ONNX keeps large weights in."""
    data = path.with_name(f"{path.name}_data")
    return [path, data] if data.exists() else [path]


def write_manifest(source: HuggingFaceSource, artifacts: Mapping[str, Artifact], folder: Path) -> Manifest:
    """Write manifest.json over everything that lies in `folder`."""
    tokenizer_class = type(source.tokenizer).__name__
    tokenizer = Tokenizer(source.max_length, tokenizer_class=tokenizer_class, token_types=source.token_types)
    return save_manifest(origin_of(source), _task(source), tokenizer, artifacts, folder)


def save_manifest(
    origin: Origin, task: TaskInfo, tokenizer: Tokenizer | None, artifacts: Mapping[str, Artifact], folder: Path
) -> Manifest:
    """Write manifest.json over everything that lies in `folder`, whatever kind of model it came from."""
    of_artifacts = {file.path for artifact in artifacts.values() for file in artifact.files}
    own = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        created_by=f"mobile-llm {__version__}",
        origin=origin,
        task=task,
        tokenizer=tokenizer,
        artifacts=artifacts,
        defaults=_defaults(artifacts),
        files=tuple(describe_file(folder, p) for p in own if p.relative_to(folder).as_posix() not in of_artifacts),
    )
    written = replace(manifest, artifacts={name: folded(artifact) for name, artifact in artifacts.items()})
    _write_json(folder / "manifest.json", to_json(written))
    return manifest


def is_ours(folder: Path) -> bool:
    """Whether a folder is a bundle that we wrote: others have a manifest.json too."""
    try:
        manifest = read_json(folder / "manifest.json")
    except InvalidInput:
        return False
    return isinstance(manifest, dict) and str(manifest.get("created_by", "")).startswith("mobile-llm ")


def write_verification(rows: Sequence[Row], folder: Path) -> None:
    """Write verification.json: the only file of a bundle that holds times."""
    document = {
        "schema_version": "1.0",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "host": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": _versions(),
        "summary": summary(rows),
        "rows": [asdict(row) for row in rows],
    }
    _write_json(folder / "verification.json", document)


def origin_of(source: HuggingFaceSource) -> Origin:
    return Origin(
        id=source.found.id,
        architecture=source.config.model_type,
        weights_sha256=source.found.weights_sha256,
        licence=source.found.licence,
        parameters=source.parameters,
        weights_format="gguf" if source.found.gguf else "safetensors",
        adapters=tuple(AdapterOrigin(adapter.id, adapter.sha256) for adapter in source.found.adapters),
    )


def _task(source: HuggingFaceSource) -> TaskInfo:
    if source.pooling is None:
        return TaskInfo(source.task, source.problem_type, source.text_pairs, source.labels)
    pooling = source.pooling
    return TaskInfo(source.task, pooling=pooling.mode, normalize=pooling.normalize, prompts=source.prompts)


def _defaults(artifacts: Mapping[str, Artifact]) -> dict[str, str]:
    defaults: dict[str, str] = {}
    for precision in _DEFAULT_ORDER:
        for artifact_id, artifact in artifacts.items():
            if artifact.precision == precision:
                defaults.setdefault(artifact.format, artifact_id)
    return defaults


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _write_json(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
