"""The race among runners that are made up: who is asked what, what a failure costs, and which claims stand."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.peers import __main__ as command
from benchmarks.peers import contestants
from benchmarks.peers import race as racing
from benchmarks.peers.claims import claims
from benchmarks.peers.contestants import Field, set_up
from benchmarks.peers.figures import Report, figures_of, ratio
from benchmarks.peers.living import Contestant, Failed, Living, NotOffered
from benchmarks.peers.llama_build import build_switches
from benchmarks.peers.printing import print_report
from benchmarks.peers.race import Prompts, Race, Record
from benchmarks.peers.runners.serve import log_softmax
from benchmarks.peers.text import prompts_of
from mobile_llm.errors import BackendUnavailable, InvalidInput

SILENT = lambda text: None  # noqa: E731
PROMPTS = Prompts({128: ([5, 6], "ab"), 512: ([5, 6, 7], "abc")}, [[1, 2, 3], [3, 2, 1]])
# A model that always finds token 1 the likeliest, and how sure it is of it
RUNNER = """
import numpy as np
from benchmarks.peers.runners.serve import Reader, serve
class Made(Reader):
    version = "made 1"
    def __init__(self, settings):
        print("noise of a runtime")
        if settings.get("broken") == "load": raise ValueError("no such file")
        self.settings = settings
    def read(self, ids, text):
        if self.settings.get("broken") == "read": raise SystemExit("out of memory")
        return len(ids)
    def step(self, token): pass
    def predict(self, ids):
        if self.settings.get("broken") == "predict": raise NotImplementedError("it gives no logits")
        return super().predict(ids)
    def logits(self):
        return np.array([0, self.settings["sure"], 0, 0], np.float32)
    @property
    def kv_bytes(self): return 7
serve(Made)
"""


def _made(name: str, sure: float = 2.0, size: int = 100_000_000, **settings: Any) -> Contestant:
    ours = name.startswith(("onnx/", "tflite/"))
    return Contestant(name, ours, (sys.executable, "-c", RUNNER), {"sure": sure, **settings}, size)


def test_a_runner_answers_line_by_line_whatever_its_runtime_prints() -> None:
    with Living(_made("one")) as living:
        assert living.loaded["version"] == "made 1"
        assert living.loaded["load_ms"] > 0
        assert living.ask("prefill", ids=[1, 2, 3], text="")["tokens"] == 3
        assert living.ask("decode", ids=[1], text="", count=5)["tokens"] == 5
        memory = living.ask("memory")
        assert memory["kv_bytes"] == 7
        assert memory["peak_bytes"] > 10**6


def test_quality_is_of_the_tokens_after_the_first(tmp_path: Path) -> None:
    file = str(tmp_path / "expected.npy")
    with Living(_made("transformers")) as reference, Living(_made("other", sure=0.0)) as other:
        saved = reference.ask("quality", ids=[1, 1, 2], save=file)
        found = other.ask("quality", ids=[1, 1, 2], expected=file)
    p = np.exp([0, 2, 0, 0]) / np.exp([0, 2, 0, 0]).sum()
    assert saved["loss"] == pytest.approx(-(math.log(p[1]) + math.log(p[2])) / 2, abs=1e-6)
    assert found["loss"] == pytest.approx(math.log(4), abs=1e-6)
    assert found["divergence"] == pytest.approx(float((p * np.log(p * 4)).sum()), abs=1e-6)
    assert found["same"] == 0.0
    assert np.exp(log_softmax(np.array([[1000.0, 1000.0]], np.float32))) == pytest.approx(0.5)


def test_failures_have_reasons() -> None:
    with pytest.raises(Failed, match="ValueError: no such file"):
        Living(_made("one", broken="load"))
    with Living(_made("one", broken="read")) as living, pytest.raises(Failed, match="ended with 1: out of memory"):
        living.ask("prefill", ids=[1], text="")
    with Living(_made("one", broken="predict")) as living, pytest.raises(NotOffered, match="no logits"):
        living.ask("quality", ids=[1, 2])


def test_all_take_turns_and_one_that_fails_is_asked_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(racing, "_REST", 0)
    field = [_made("onnx/int4"), _made("transformers"), _made("dead", broken="read"), _made("mute", broken="predict")]
    said: list[str] = []
    race = Race(field, PROMPTS, said.append)
    race.start_anew(1)
    race.race(2)
    race.judge(tmp_path)
    ours, dead, mute = (race.records[name] for name in ("onnx/int4", "dead", "mute"))
    assert [len(values) for values in (ours.load_ms, ours.decode, ours.prefill[512], ours.losses)] == [1, 2, 2, 2]
    assert ours.divergences == pytest.approx([0.0, 0.0], abs=1e-6)
    assert (dead.failed, dead.decode) == ("its process ended with 1: out of memory", [])
    assert sum("dead" in line for line in said) == 1
    assert (mute.failed, mute.not_offered, len(mute.decode), mute.losses) == ("", "it gives no logits", 2, [])
    assert not list(tmp_path.iterdir())


def _record(decode: float, prefill: float, kl: float, load: float, memory: int) -> Record:
    rates = {128: [prefill] * 3, 512: [prefill] * 3}
    return Record("1", [load], [1.0], [memory], 0, rates, [decode] * 3, [1.0, 1.2], [kl], [0.9])


def _report(**records: Record) -> Report:
    names = {"ours": "onnx/int4", "genai": "genai int4", "llama": "llama.cpp Q4_0", "float": "transformers"}
    field = [_made(names[key], size=500_000_000 if key == "float" else 90_000_000) for key in records]
    found = {names[key]: record for key, record in records.items()}
    settings = {"lengths": (128, 512)}
    return Report({"cpu": "a cpu"}, settings, {c.name: figures_of(c, found[c.name]) for c in field}, found)


def test_claims_hold_or_fail_by_the_peers_of_the_size_class() -> None:
    report = _report(
        ours=_record(14, 30, 0.2, 50, 150_000_000),
        genai=_record(10, 10, 0.4, 100, 1),
        llama=_record(9, 25, 0.1, 60, 1),
        float=_record(100, 100, 0.0, 1, 1),
    )
    found = [(claim.what, claim.peer, claim.verdict) for claim in claims(report, 105_000_000)]
    assert found == [
        ("decode", "genai int4", "holds"),
        ("prefill 128", "llama.cpp Q4_0", "fails"),  # 1.2 of the peer that is the fastest at this
        ("prefill 512", "llama.cpp Q4_0", "fails"),
        ("decode", "genai int4", "holds"),
        ("prefill 128", "genai int4", "holds"),
        ("prefill 512", "genai int4", "holds"),
        ("load ms", "llama.cpp Q4_0", "holds"),
        ("memory MB", "1.3 x its size + 40 MB", "holds"),
        ("KL", "genai int4", "holds"),
        ("KL", "llama.cpp Q4_0", "fails"),
    ]


def test_what_was_not_measured_is_no_claim_that_holds() -> None:
    report = _report(ours=_record(14, 30, 0.2, 50, 1), genai=Record(failed="it died"))
    verdicts = {claim.what: claim.verdict for claim in claims(report, 105_000_000)}
    assert verdicts["decode"] == verdicts["prefill 128"] == verdicts["load ms"] == "not_checked"
    report = _report(genai=_record(1, 1, 1, 1, 1))
    assert {claim.verdict for claim in claims(report, 105_000_000)} == {"not_checked"}


def test_ratios_are_of_the_same_round() -> None:
    found = ratio([10, 30, 20], [5, 10, 20])
    assert found is not None
    assert (found.value, found.low, found.high) == (2, 1, 3)
    assert ratio([1.0], []) is None


def test_a_peer_that_cannot_be_installed_is_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path, packages: Any) -> Path:
        raise BackendUnavailable("installing litert-lm failed: no network")

    monkeypatch.setattr(contestants, "environment", refuse)
    field = Field(Path(), None, (), Path(), Path(), 1, 64, (), Path("a.litertlm"))  # type: ignore[arg-type]
    assert set_up(field, ["litert-lm"]) == ([], {"litert-lm": "installing litert-lm failed: no network"})
    assert "no .litertlm file" in set_up(replace(field, litertlm=None), ["litert-lm"])[1]["litert-lm"]


def test_llama_is_built_without_matrix_tiles() -> None:
    switches = build_switches(frozenset({"avx2", "avx512f", "avx512_vnni", "amx_int8", "amx_tile"}))
    assert {"-DGGML_NATIVE=OFF", "-DGGML_AVX512=ON", "-DGGML_AVX512_VNNI=ON"} < set(switches)
    assert not any("AMX" in switch for switch in switches)
    assert not any("NATIVE" in switch for switch in build_switches(frozenset()))


@pytest.fixture
def tokenized(tmp_path: Path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "word": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_all_read_the_same_ids(tokenized: Path) -> None:
    (tokenized / "text.txt").write_text("word " * 600, encoding="utf-8")
    prompts = prompts_of(tokenized, tokenized / "text.txt", (2, 5), 520)
    assert prompts.lengths[5] == ([1] * 5, "word word word word word")
    assert [len(window) for window in prompts.windows] == [256, 256]
    assert not prompts_of(tokenized, None, (2,), 520).windows
    with pytest.raises(InvalidInput, match="has 600 tokens, 700 are needed"):
        prompts_of(tokenized, tokenized / "text.txt", (2,), 700)


@pytest.mark.parametrize(("strict", "code"), [(False, 0), (True, 1)])
def test_json_is_one_document(
    strict: bool, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = replace(_report(ours=_record(1, 1, 1, 1, 1)), missing={"llama.cpp": "no compiler"})
    monkeypatch.setattr(command, "run", lambda args: report)
    monkeypatch.setattr(sys, "argv", ["peers", "model", "--json", *(["--strict"] if strict else [])])
    assert command.main() == code
    document = json.loads(capsys.readouterr().out)
    assert document["not_checked"] == {"llama.cpp": "no compiler"}
    assert document["contestants"]["onnx/int4"]["rounds"]["decode"] == [1, 1, 1]
    assert document["claims"][0]["verdict"] == "not_checked"


def test_what_is_missing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    report = _report(ours=_record(14, 30, 0.2, 50, 1), genai=Record(failed="it died"))
    report = replace(report, missing={"llama.cpp": "no compiler"})
    print_report(report, claims(report, 105_000_000))
    printed = capsys.readouterr().out
    assert "genai int4: it died" in printed
    assert "NOT CHECKED: llama.cpp. no compiler" in printed
