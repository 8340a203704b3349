"""Who takes part, each with a model of its own kind from the same weights: what cannot be set up leaves a reason."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import benchmarks
from benchmarks.environments import GENAI, GENAI_BUILDER, LITERT_LM, environment, install
from benchmarks.peers.living import Contestant, size_of
from benchmarks.peers.llama_build import llama_packages
from mobile_llm.bundle import Bundle
from mobile_llm.bundle.codec import read_json
from mobile_llm.errors import BackendUnavailable

WRITTEN = 128  # tokens
REFERENCE = "transformers"
_RUNNERS = "benchmarks.peers.runners"
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
_BUILD_GENAI = ("-m", "onnxruntime_genai.models.builder", "-p", "int4", "-e", "cpu", "--extra_options")


@dataclass(frozen=True)
class Field:
    """What all contestants share: the model's folder, ours made from it, and how they run. `work` holds
    environments, `models` what is made of these weights; `litertlm` is a file from them."""

    model: Path
    bundle: Bundle
    artifacts: tuple[str, ...]
    work: Path
    models: Path
    threads: int
    context: int
    quantizations: tuple[str, ...]
    litertlm: Path | None = None

    def shared(self, **more: Any) -> dict[str, Any]:
        return {"threads": self.threads, "context": self.context, **more}

    def kv_row(self, bytes_each: int) -> int:
        """What a token takes in a cache of such numbers."""
        config = read_json(self.model / "config.json")
        heads = config["num_attention_heads"]
        head_dim = config.get("head_dim") or config["hidden_size"] // heads
        rows = 2 * config["num_hidden_layers"] * (config.get("num_key_value_heads") or heads)
        return int(rows * head_dim * bytes_each)


def set_up(field: Field, names: Sequence[str]) -> tuple[list[Contestant], dict[str, str]]:
    """The contestants, and for each of `names` that has none the reason."""
    found: list[Contestant] = []
    missing: dict[str, str] = {}
    for name in names:
        try:
            found += KINDS[name](field)
        except BackendUnavailable as error:
            missing[name] = str(error)
    return found, missing


def _ours(field: Field) -> Iterator[Contestant]:
    for artifact_id in field.artifacts:
        settings = field.shared(model=str(field.bundle.folder.absolute()), artifact=artifact_id)
        size = field.bundle.manifest.artifacts[artifact_id].size
        yield Contestant(artifact_id, True, (sys.executable, "-m", f"{_RUNNERS}.ours"), settings, size)


def _transformers(field: Field) -> Iterator[Contestant]:
    settings = field.shared(model=str(field.model.absolute()), kv_row=field.kv_row(4))
    size = size_of(field.model, "*.safetensors")
    command = (sys.executable, "-m", f"{_RUNNERS}.transformers_model")
    yield Contestant(REFERENCE, False, command, settings, size, {**_OFFLINE, **_threads(field)})


def _genai(field: Field) -> Iterator[Contestant]:
    output = field.models / "genai-int4"
    if not (output / "genai_config.json").exists():
        builder = environment(field.work / "genai-builder", GENAI_BUILDER)
        options = ("int4_accuracy_level=4", "int4_block_size=32")
        where = ("-m", str(field.model.absolute()), "-o", str(output), "-c", str(field.work / "cache"))
        command = [str(builder), *_BUILD_GENAI, *options, *where]
        install(command, "building onnxruntime-genai's model", _OFFLINE)
    settings = field.shared(model=str(output.absolute()), kv_row=field.kv_row(4))
    python = environment(field.work / "genai", GENAI)
    yield _peer(field, "genai int4", python, "genai", settings, size_of(output, "model.onnx*"))


def _llama(field: Field) -> Iterator[Contestant]:
    python = environment(field.work / "llama.cpp", llama_packages())
    folder = field.models
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.gguf" for name in field.quantizations}
    if any(not file.exists() for file in files.values()):
        script = str(Path(__file__).parent / "runners" / "gguf_file.py")
        pairs = [word for name, file in files.items() for word in (name, str(file))]
        command = [str(python), script, str(field.model), str(folder / "F32.gguf"), *pairs]
        install(command, f"writing GGUF: {', '.join(files)}")
    for name, file in files.items():
        settings = field.shared(model=str(file.absolute()), kv_row=field.kv_row(2))
        yield _peer(field, f"llama.cpp {name}", python, "llama", settings, size_of(file))


def _litert_lm(field: Field) -> Iterator[Contestant]:
    if field.litertlm is None:
        raise BackendUnavailable("no .litertlm file is in the bundle; give one made from the same weights: --litertlm")
    python = environment(field.work / "litert-lm", LITERT_LM)
    cache = field.work / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    settings = field.shared(model=str(field.litertlm.absolute()), count=WRITTEN, cache=str(cache.absolute()))
    yield _peer(field, "litert-lm", python, "litert_lm_engine", settings, size_of(field.litertlm))


KINDS: Mapping[str, Callable[[Field], Iterator[Contestant]]] = {
    "ours": _ours,
    "genai": _genai,
    "llama.cpp": _llama,
    "litert-lm": _litert_lm,
    REFERENCE: _transformers,
}


def _peer(field: Field, name: str, python: Path, runner: str, settings: Mapping[str, Any], size: int) -> Contestant:
    command = (str(python.absolute()), "-m", f"{_RUNNERS}.{runner}")
    variables = {"PYTHONPATH": str(_path_of_runners(field.work)), **_threads(field)}
    return Contestant(name, False, command, settings, size, variables)


def _threads(field: Field) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(field.threads)}


def _path_of_runners(work: Path) -> Path:
    """A folder through which this package is found and nothing else of our environment."""
    link = (work / "path" / "benchmarks").absolute()
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(Path(benchmarks.__file__).parent.absolute())
    return link.parent
