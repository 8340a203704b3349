"""Models that write, as `exporters.pipeline` asks: load, describe, quantize, ask, write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from exporters.architectures.decoders import describe_decoder
from exporters.architectures.decoders.blocks import DecoderModel
from exporters.card import keep_origin
from exporters.data.plain import read_text
from exporters.decoders.calibrated import recipes_for
from exporters.decoders.clients import write_for_clients
from exporters.decoders.golden import make_golden
from exporters.decoders.reference import DecoderReference
from exporters.decoders.writers import Writers, writers_for
from exporters.formats.lowered import Lowered
from exporters.memory import release
from exporters.packaging import (
    copy_source_files,
    origin_of,
    save_manifest,
)
from exporters.progress import Watch
from exporters.quantization.recipes import RECIPES, Recipes, as_stored
from exporters.sources.huggingface import HuggingFaceSource, open_source
from exporters.spec import GENERATION, ExportSpec, recipe_of
from exporters.verification.decoders import check_writing_bundle, read_golden
from exporters.verification.rows import Row
from exporters.writing import write_artifacts
from mobile_llm.bundle import Artifact, Bundle
from mobile_llm.bundle.manifest import Generation, TaskInfo, Tokenizer
from mobile_llm.tasks.tokenization import NOT_CUT

_CONTEXT = 2048  # where none is asked for: a phone's memory is spent on it


def write(spec: ExportSpec, folder: Path, watch: Watch) -> dict[str, Artifact]:
    """Everything but what is attested. The PyTorch model is in memory no longer than this."""
    text = read_text(spec.calibration) if spec.calibration else None
    watch(f"loading {spec.model}")
    source = open_source(spec.model, GENERATION, adapters=spec.adapters, watch=watch)
    blocks = describe_decoder(source.model)
    context = min(spec.context or _CONTEXT, blocks.context)
    ids = spec.artifact_ids
    copy_source_files(source, folder)
    keep_origin(source.folder, folder)
    generation = generation_of(source)
    writers = writers_for(spec.formats, context, folder, generation, source.found.id)
    recipes = recipes_for(
        spec, source, blocks, text, lambda model: _write_for_size(model, ids, writers, folder, watch), watch
    )
    watch("asking the PyTorch model for reference answers")
    golden = make_golden(source.model, source.tokenizer, context, generation.stop, twins_of(blocks, ids, recipes))
    golden.write(folder)
    if "coreml" in spec.formats:  # which counts from there
        blocks = replace(blocks, level=DecoderReference(source.model, ()).level(golden.probes.sequences))
    release()
    artifacts = dict(_write_artifacts(blocks, ids, recipes, writers, folder, watch))
    write_for_clients(source, blocks, generation.stop, artifacts, folder)
    limit = min(source.tokenizer.model_max_length, blocks.context)
    tokenizer = Tokenizer(limit, truncation=NOT_CUT, tokenizer_class=type(source.tokenizer).__name__)
    save_manifest(origin_of(source), TaskInfo(GENERATION, generation=generation), tokenizer, artifacts, folder)
    return artifacts


def twins_of(blocks: DecoderModel, artifact_ids: Sequence[str], recipes: Recipes = RECIPES) -> dict[str, DecoderModel]:
    """The blocks as each artifact holds them, for those whose weights are coarser than the model's. Artifacts of
    several layouts that hold the same weights have one twin, which goes by format and recipe alone."""
    ids = dict.fromkeys(f"{i.split('/')[0]}/{recipe_of(i)}" for i in artifact_ids if recipe_of(i) != "fp32")
    quantized = {recipe: recipes[recipe](blocks) for recipe in dict.fromkeys(map(recipe_of, ids))}
    return {i: as_stored(i, quantized[recipe_of(i)]) for i in ids}


def check(bundle: Bundle, watch: Watch) -> list[Row]:
    """Every artifact beside the golden references."""
    return check_writing_bundle(bundle, read_golden(bundle), lambda what: watch(f"comparing {what}"))


def _write_artifacts(
    blocks: DecoderModel, artifact_ids: Sequence[str], recipes: Recipes, writers: Writers, folder: Path, watch: Watch
) -> Iterator[tuple[str, Artifact]]:
    def lower(artifact_id: str, quantized: DecoderModel) -> Lowered:
        format_name, variant = artifact_id.split("/")
        return writers[format_name](as_stored(artifact_id, quantized), variant, folder)

    return write_artifacts(artifact_ids, lambda recipe: recipes[recipe](blocks), lower, folder, watch)


def _write_for_size(
    quantized: DecoderModel, artifact_ids: list[str], writers: Writers, folder: Path, watch: Watch
) -> dict[str, Artifact]:
    """The int4 artifacts of a model that is in integers already. The files are not kept."""
    coarse = [artifact_id for artifact_id in artifact_ids if recipe_of(artifact_id) == "int4"]
    as_it_is: Recipes = {"int4": lambda model: model}
    with TemporaryDirectory(dir=folder) as scratch:
        measured = _write_artifacts(
            quantized, coarse, as_it_is, writers, Path(scratch), lambda what: watch(f"{what}, for its size")
        )
        return dict(measured)


def generation_of(source: HuggingFaceSource) -> Generation:
    """What ends an answer, and the model's own sampling, from generation_config.json and the tokenizer."""
    config = source.model.generation_config
    ends = config.eos_token_id
    stop = {*(ends if isinstance(ends, list) else [ends]), source.tokenizer.eos_token_id} - {None}
    sampling: Mapping[str, Any] = {
        "temperature": config.temperature or 1.0,
        "top_k": config.top_k or 0,
        "top_p": config.top_p or 1.0,
        "min_p": getattr(config, "min_p", None) or 0.0,
    }
    special = {
        name: str(token) for name, token in source.tokenizer.special_tokens_map.items() if isinstance(token, str)
    }
    return Generation(
        stop=tuple(sorted(stop)),
        special=special,
        repetition_penalty=float(config.repetition_penalty or 1.0),
        **(sampling if config.do_sample else {}),
    )
