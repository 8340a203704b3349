"""LiteRT-LM files: every architecture's logits through whole caches, what is packed beside them, and damaged files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, processors

import exporters
import mobile_llm
from exporters.architectures.decoders import describe_decoder
from exporters.formats import litertlm as lowering
from exporters.formats.litertlm.container import Section, write_container
from exporters.formats.litertlm.metadata import llm_metadata, packed_template
from exporters.formats.litertlm.texts import Texts, read_texts
from exporters.formats.tflite import signatures
from exporters.quantization.recipes import RECIPES
from exporters.verification.decoders import read_golden
from exporters.verification.packed import check_packed
from mobile_llm.artifacts.bindings import check_bindings
from mobile_llm.artifacts.litertlm import read, unpack
from mobile_llm.artifacts.wire import Message
from mobile_llm.backends import litertlm
from mobile_llm.backends.litertlm import WholeCacheDecoder
from mobile_llm.bundle import Bundle
from mobile_llm.bundle.manifest import Artifact, Generation
from mobile_llm.errors import IntegrityFailed, InvalidSpec, UnsupportedModel
from mobile_llm.generation.template import ChatTemplate

from .conftest import DECODERS, VOCABULARY

Folder = Callable[[str], Path]
CONTEXT = 48
IDS = np.random.default_rng(7).integers(3, VOCABULARY, CONTEXT).tolist()
SAME = 3e-5  # float32 sums in another order; logits are about 4
TEXTS = Texts(b'{"version": "1.0"}', None, Generation(stop=(2, 300)))


@pytest.fixture(autouse=True)
def _short_prefills(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signatures, "_CHUNKS", (4, 16))


@pytest.mark.parametrize("name", list(DECODERS))
def test_logits_are_the_models_at_every_position(name: str, decoder: Callable[[str], Any], tmp_path: Path) -> None:
    with torch.inference_mode():
        expected = decoder(name)(input_ids=torch.tensor([IDS])).logits[0].numpy()
    with opened(decoder(name), tmp_path) as found:
        assert np.abs(np.stack([found.append([i]) for i in IDS]) - expected).max() < SAME
        found.rewind(20)
        assert np.abs(found.append(IDS[20:]) - expected[-1]).max() < SAME


@pytest.mark.parametrize("recipe", ["fp32", "int8", "int4"])
@pytest.mark.parametrize("name", list(DECODERS))
def test_how_a_text_is_cut_changes_no_bit(
    recipe: str, name: str, decoder: Callable[[str], Any], tmp_path: Path
) -> None:
    with opened(decoder(name), tmp_path, recipe) as found:
        *_, last = (found.append([token]) for token in IDS)
        for parts in ((48,), (46, 2), (3, 17, 28), (1, 47)):  # chunks of 16 and 4, filled and padded
            found.rewind(0)
            np.testing.assert_array_equal(read_in(found, parts), last)


def test_a_prefill_in_the_last_places_moves_over_nothing(decoder: Callable[[str], Any], tmp_path: Path) -> None:
    """Padding reaches beyond the context: with no room for it the update would be moved down, over tokens."""
    with torch.inference_mode():
        expected = decoder("llama")(input_ids=torch.tensor([IDS])).logits[0, -1].numpy()
    with opened(decoder("llama"), tmp_path) as found:
        assert np.abs(read_in(found, (42, 6)) - expected).max() < SAME


def test_a_saved_cache_goes_on_where_it_was(decoder: Callable[[str], Any], tmp_path: Path) -> None:
    with opened(decoder("llama"), tmp_path) as found:
        found.append(IDS[:20])
        rows = found.save_cache(20)
        expected = found.append(IDS[20:30])
        found.rewind(0)
        found.append(IDS[30:])
        found.load_cache(rows, 20)
        assert found.position == 20
        np.testing.assert_array_equal(found.append(IDS[20:30]), expected)
        with pytest.raises(IntegrityFailed, match="of a cache of other layers or sizes"):
            found.load_cache(rows, 19)


def test_the_manifest_says_what_there_is(decoder: Callable[[str], Any], tmp_path: Path) -> None:
    artifact = written(decoder("llama"), tmp_path)
    check_bindings(artifact, read(tmp_path / artifact.path))
    (decode,) = artifact.entry_points["decode"]
    assert decode.signature == "decode"
    assert [entry.signature for entry in artifact.entry_points["prefill"]] == ["prefill_4", "prefill_16"]
    assert decode.inputs["key.1"] == decode.outputs["key.1"]
    assert decode.inputs["key.1"].shape == (1, 2, CONTEXT + 16, 8)
    assert decode.outputs["logits"].shape == (1, 1, VOCABULARY)
    assert artifact.cache is not None
    assert (artifact.cache.kind, artifact.cache.context) == ("whole", CONTEXT)


def test_a_prefill_computes_nothing_for_logits(decoder: Callable[[str], Any], tmp_path: Path) -> None:
    functions = read(tmp_path / written(decoder("llama"), tmp_path).path).functions
    products = {name: sum(op.type == "FULLY_CONNECTED" for op in f.ops) for name, f in functions.items()}
    # of the second layer keys and values alone, which are one product with the queries
    assert products == {"decode": 2 * 4 + 1, "prefill_4": 4 + 1, "prefill_16": 4 + 1}


def test_what_was_packed_comes_back(decoder: Callable[[str], Any], tmp_path: Path) -> None:
    contents = unpack(tmp_path / written(decoder("llama"), tmp_path).path)
    assert (contents.tokenizer, contents.stop, contents.most_tokens) == (TEXTS.tokenizer, (2, 300), CONTEXT)
    assert contents.template == ""


def test_the_same_inputs_give_the_same_bytes(decoder: Callable[[str], Any], tmp_path: Path) -> None:
    first, second = (tmp_path / name for name in "ab")
    for folder in (first, second):
        written(decoder("llama"), folder)
    assert (first / "litertlm/fp32.litertlm").read_bytes() == (second / "litertlm/fp32.litertlm").read_bytes()


def test_the_packed_template_takes_lists_and_knows_the_special_tokens() -> None:
    source = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ m.name }}{% endfor %}"
    template = ChatTemplate(packed_template(source, {"bos_token": '<"s">'}))
    parts = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]
    messages = [{"role": "user", "content": parts, "name": "!"}, {"role": "assistant", "content": "c", "name": ""}]
    assert template.render(messages) == '<"s"><user>ab!<assistant>c'


@pytest.mark.parametrize(
    ("generation", "expected"),
    [
        (Generation(stop=()), (1, 1, 0.0, 0.0)),
        (Generation(stop=(), temperature=0.5, top_k=40, top_p=0.75), (2, 40, 0.75, 0.5)),
    ],
)
def test_the_models_own_sampling_is_packed(generation: Generation, expected: tuple[float, ...]) -> None:
    sampler = Message(memoryview(llm_metadata(64, replace(TEXTS, generation=generation)))).message(4)
    assert (sampler.integer(1), sampler.integer(2), sampler.number(3), sampler.number(4)) == expected


def test_a_text_begins_with_a_token_only_where_no_template_writes_it(tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"<s>": 0, "a": 7, "?": 8}, unk_token="?"))
    words.save(str(tmp_path / "tokenizer.json"))
    assert read_texts(tmp_path, Generation(stop=())).start is None
    words.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    words.save(str(tmp_path / "tokenizer.json"))
    assert read_texts(tmp_path, Generation(stop=())).start == 0
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert read_texts(tmp_path, Generation(stop=())).start is None
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UnsupportedModel, match=r"has no tokenizer\.json"):
        read_texts(tmp_path, Generation(stop=()))


def test_a_bundle_is_compared_and_writes(decoder_folder: Folder, tmp_path: Path) -> None:
    formats, recipes = ("tflite", "litertlm"), ("fp32", "fp16", "int8", "int4")
    made = exporters.export(
        decoder_folder("llama"), "text-generation", tmp_path / "bundle", formats=formats, recipes=recipes
    )
    assert {row.status for row in made.rows} == {"passed"}
    for recipe in recipes:
        entries = {row.entry_point for row in made.rows if row.artifact == f"litertlm/{recipe}"}
        assert entries == {"decode", "prefill", "greedy", "packed"}
    answers = []
    for artifact_id in ("tflite/fp32", "litertlm/fp32"):
        with mobile_llm.load(made.bundle, artifact_id).engine as engine:
            answers.append(mobile_llm.tasks.text_generation.ChatModel(engine).generate("hello", max_tokens=12))
    assert answers[0] == answers[1]


def test_what_is_packed_otherwise_than_the_bundle_says_is_noticed(decoder_folder: Folder, tmp_path: Path) -> None:
    made = exporters.export(
        decoder_folder("llama"), "text-generation", tmp_path / "bundle", formats=("litertlm",), recipes=("fp32",)
    )
    bundle = Bundle.open(made.bundle)
    path, probes = made.bundle / "litertlm/fp32.litertlm", read_golden(bundle).probes
    assert {row.status for row in check_packed(bundle, "litertlm/fp32", probes)} == {"passed"}
    metadata = llm_metadata(7, Texts(b"", "{{ messages[0].content }}", Generation(stop=(1,))))
    model = Section(3, bytes(unpack(path).model))
    tokenizer = Section(6, (2).to_bytes(8, "little") + b"x\x9c\xab\xae\x05\x00\x01u\x00\xf9")
    path.unlink()
    write_container(path, [Section(5, metadata), tokenizer, model], {})
    assert [row.status for row in check_packed(bundle, "litertlm/fp32", probes)] == ["failed"] * 4


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"LITERTXX" + data[8:], "instead of b'LITERTLM' 1"),
        (lambda data: data[:8] + b"\x02" + data[9:], "instead of b'LITERTLM' 1"),
        (lambda data: data[:20000], "is not inside the file"),
        (lambda data: data[:30], "damaged"),
        (lambda data: data[:16384] + b"\xff" * (len(data) - 16384), "damaged"),
    ],
)
def test_damaged_files_are_refused(
    damage: Callable[[bytes], bytes], message: str, decoder: Callable[[str], Any], tmp_path: Path
) -> None:
    path = tmp_path / written(decoder("llama"), tmp_path).path
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(IntegrityFailed, match=message):
        unpack(path)


def test_a_tokenizer_that_unpacks_to_more_than_it_says_is_refused(tmp_path: Path) -> None:
    import zlib

    sections = [Section(3, b"x"), Section(5, b""), Section(6, (9).to_bytes(8, "little") + zlib.compress(b"0" * 10**6))]
    write_container(tmp_path / "a.litertlm", sections, {})
    with pytest.raises(IntegrityFailed, match="a tokenizer of 10 bytes instead of 9"):
        unpack(tmp_path / "a.litertlm")


def test_only_models_that_write_have_this_format(decoder: Callable[[str], Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="litertlm is for text-generation"):
        exporters.export(tmp_path, "feature-extraction", tmp_path / "bundle", formats=("litertlm",))
    with pytest.raises(InvalidSpec, match="the model was made for 64"):
        lowering.lower_decoder(describe_decoder(decoder("llama")), "fp32", tmp_path, 65, TEXTS)


def written(model: Any, folder: Path, recipe: str = "fp32") -> Artifact:
    blocks = RECIPES[recipe](describe_decoder(model))
    lowered = lowering.lower_decoder(blocks, recipe, folder, CONTEXT, TEXTS)
    return Artifact("litertlm", recipe, lowered.path, (), lowered.entry_points, lowered.minimum, lowered.cache)


@contextmanager
def opened(model: Any, folder: Path, recipe: str = "fp32") -> Iterator[WholeCacheDecoder]:
    found = litertlm.open_decoder(folder, written(model, folder, recipe), threads=1)
    try:
        yield found
    finally:
        found.close()


def read_in(found: WholeCacheDecoder, parts: tuple[int, ...]) -> np.ndarray:
    """The last logits of IDS, read in parts of these lengths."""
    start = 0
    for count in parts:
        logits = found.append(IDS[start : start + count])
        start += count
    return logits
