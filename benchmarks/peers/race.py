"""The rounds: who takes part is asked in turn, so that a slow minute of the machine falls on all.

Three parts. Started anew, each contestant in a fresh process: load, the first prompt after it, peak memory. Warm, all
processes alive and one asked at a time: prefill and decode. Quality, window by window: the reference first, then each
against what it expects.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers.contestants import REFERENCE, WRITTEN
from benchmarks.peers.living import Answer, Contestant, Failed, Living, NotOffered

_REST = 0.05  # seconds in which the threads of the one before stop waiting for work
Watch = Callable[[str], None]


@dataclass(frozen=True)
class Prompts:
    """Token ids and the text they are of, by how many they are; `windows` are what quality is measured on."""

    lengths: Mapping[int, tuple[list[int], str]]
    windows: Sequence[list[int]] = ()


@dataclass
class Record:
    """What one contestant gave, a value a round or a window. `failed` says why it left, `not_offered` what its runtime
    cannot be asked."""

    version: str = ""
    load_ms: list[float] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)
    above_imports: list[int] = field(default_factory=list)
    kv_bytes: int | None = None
    prefill: dict[int, list[float]] = field(default_factory=dict)  # tokens/s
    decode: list[float] = field(default_factory=list)  # tokens/s
    losses: list[float] = field(default_factory=list)
    divergences: list[float] = field(default_factory=list)
    same: list[float] = field(default_factory=list)
    failed: str = ""
    not_offered: str = ""


class Race:
    """The rounds over `contestants`. One that fails is asked no more; what it gave before stays in its record."""

    def __init__(self, contestants: Sequence[Contestant], prompts: Prompts, watch: Watch) -> None:
        self._contestants = contestants
        self._prompts = prompts
        self._watch = watch
        self.records = {contestant.name: Record() for contestant in contestants}

    def start_anew(self, rounds: int) -> None:
        for turn in range(rounds):
            for contestant in self._left():
                self._watch(f"loading, round {turn + 1} of {rounds}: {contestant.name}")
                with self._guarded(contestant.name) as record, Living(contestant) as living:
                    self._note_start(record, living)

    def race(self, rounds: int) -> None:
        with self._all() as alive:
            for turn in range(rounds + 1):  # the first is for caches to warm up, and is not kept
                self._watch(f"prefill and decode, round {turn} of {rounds}" if turn else "warming up")
                for name, living in self._turn(alive):
                    with self._guarded(name) as record:
                        self._note_rates(record, living, keep=turn > 0)

    def judge(self, work: Path) -> None:
        """Losses, and divergences where the reference takes part; its file in `work` is removed."""
        expected = work / "expected.npy"
        with self._all() as alive:
            for place, ids in enumerate(self._prompts.windows):
                self._watch(f"quality, window {place + 1} of {len(self._prompts.windows)}")
                self._judge_window(alive, ids, expected)
        expected.unlink(missing_ok=True)

    def _judge_window(self, alive: Mapping[str, Living], ids: list[int], expected: Path) -> None:
        if REFERENCE in dict(self._turn(alive)):
            with self._guarded(REFERENCE) as record:
                _note_quality(record, alive[REFERENCE].ask("quality", ids=ids, save=str(expected)))
        known = str(expected) if expected.exists() else None
        for name, living in self._turn(alive):
            if name != REFERENCE and not self.records[name].not_offered:
                with self._guarded(name) as record:
                    _note_quality(record, living.ask("quality", ids=ids, expected=known))

    def _note_start(self, record: Record, living: Living) -> None:
        ids, text = self._prompts.lengths[min(self._prompts.lengths)]
        first = living.ask("prefill", ids=ids, text=text)
        living.ask("decode", ids=ids, text=text, count=WRITTEN)
        memory = living.ask("memory")
        record.version = living.loaded["version"]
        record.load_ms.append(living.loaded["load_ms"])
        record.first_ms.append(first["ms"])
        record.kv_bytes = memory["kv_bytes"]
        if memory["peak_bytes"] and living.loaded["imports_bytes"]:
            record.above_imports.append(memory["peak_bytes"] - living.loaded["imports_bytes"])

    def _note_rates(self, record: Record, living: Living, keep: bool) -> None:
        found = {}
        for length, (ids, text) in self._prompts.lengths.items():
            found[length] = _rate(living.ask("prefill", ids=ids, text=text))
            time.sleep(_REST)
        ids, text = self._prompts.lengths[min(self._prompts.lengths)]
        written = _rate(living.ask("decode", ids=ids, text=text, count=WRITTEN))
        time.sleep(_REST)
        if keep:
            record.decode.append(written)
            for length, rate in found.items():
                record.prefill.setdefault(length, []).append(rate)

    def _left(self) -> list[Contestant]:
        return [contestant for contestant in self._contestants if not self.records[contestant.name].failed]

    def _turn(self, alive: Mapping[str, Living]) -> Iterator[tuple[str, Living]]:
        return ((name, living) for name, living in alive.items() if not self.records[name].failed)

    @contextmanager
    def _all(self) -> Iterator[dict[str, Living]]:
        with ExitStack() as stack:
            alive: dict[str, Living] = {}
            for contestant in self._left():
                with self._guarded(contestant.name):
                    alive[contestant.name] = stack.enter_context(Living(contestant))
            yield alive

    @contextmanager
    def _guarded(self, name: str) -> Iterator[Record]:
        record = self.records[name]
        try:
            yield record
        except Failed as error:
            record.failed = str(error)
        except NotOffered as error:
            record.not_offered = str(error)


def _rate(answer: Answer) -> float:
    """Tokens in a second."""
    return float(1000 * answer["tokens"] / answer["ms"])


def _note_quality(record: Record, answer: Answer) -> None:
    record.losses.append(answer["loss"])
    if answer["divergence"] is not None:
        record.divergences.append(answer["divergence"])
        record.same.append(answer["same"])
