"""What is claimed of our artifacts beside the peers, and whether this run bears it out.

Peers of a size class are those whose file is at most `largest` bytes. Claimed is of two of ours in that class: the one
that decodes fastest, and the ONNX one that does, so that a claim of speed and one of quality are of the same file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from benchmarks.peers.figures import Figures, Ratio, Report, fastest, ratio

Verdict = Literal["holds", "fails", "not_checked"]
GENAI = "genai int4"
_DECODE, _PREFILL = 1.3, 1.5
_ONNX_DECODE, _ONNX_PREFILL = 1.05, 1.1
_MEMORY_SHARE, _MEMORY_MORE = 1.3, 40_000_000


@dataclass(frozen=True)
class Claim:
    """`value` must be at least, or at most, `limit`; `peer` is whom it was compared with."""

    what: str
    ours: str
    peer: str
    verdict: Verdict
    value: float | None
    limit: float | None
    spread: tuple[float, float] | None = None


def claims(report: Report, largest: int) -> list[Claim]:
    """Every claim, in one order; without the figures for it a claim is not checked."""
    within = [f for f in report.contestants.values() if f.size_bytes <= largest and not f.failed]
    ours, peers = [f for f in within if f.ours], [f for f in within if not f.ours]
    best = fastest(ours, lambda f: f.decode)
    onnx = fastest([f for f in ours if f.name.startswith("onnx/")], lambda f: f.decode)
    genai = [f for f in peers if f.name == GENAI]
    found = [
        *_speed(report, best, peers, _DECODE, _PREFILL, "the fastest peer"),
        *_speed(report, onnx, genai, _ONNX_DECODE, _ONNX_PREFILL, GENAI),
    ]
    for one in dict.fromkeys(f.name for f in (best, onnx) if f):
        found += [*_load(report.contestants[one], peers), _memory(report.contestants[one])]
        found += [_quality(report.contestants[one], peer) for peer in peers]
    return found


def _speed(
    report: Report, ours: Figures | None, peers: Sequence[Figures], decode: float, prefill: float, whom: str
) -> Iterator[Claim]:
    peer = fastest(peers, lambda f: f.decode)
    found = ratio(_rounds(report, ours), _rounds(report, peer)) if ours and peer else None
    yield _at_least("decode", ours, peer, found, decode, whom)
    for length in report.settings["lengths"]:
        peer = fastest(peers, partial(_prefill, length))
        found = ratio(_rounds(report, ours, length), _rounds(report, peer, length)) if ours and peer else None
        yield _at_least(f"prefill {length}", ours, peer, found, prefill, whom)


def _prefill(length: int, figures: Figures) -> float | None:
    return figures.prefill.get(length)


def _rounds(report: Report, figures: Figures, length: int | None = None) -> list[float]:
    record = report.records[figures.name]
    return record.decode if length is None else record.prefill.get(length, [])


def _at_least(
    what: str, ours: Figures | None, peer: Figures | None, found: Ratio | None, limit: float, whom: str
) -> Claim:
    names = (ours.name if ours else "none of ours", peer.name if peer else whom)
    if found is None:
        return Claim(what, *names, "not_checked", None, limit)
    verdict: Verdict = "holds" if found.value >= limit else "fails"
    return Claim(what, *names, verdict, found.value, limit, (found.low, found.high))


def _load(ours: Figures, peers: Sequence[Figures]) -> Iterator[Claim]:
    known = [peer for peer in peers if peer.load_ms is not None]
    peer = min(known, key=lambda f: f.load_ms or 0.0) if known else None
    name, limit = (peer.name, peer.load_ms) if peer else ("the fastest peer", None)
    yield _at_most("load ms", ours, name, ours.load_ms, limit)


def _memory(ours: Figures) -> Claim:
    limit = _MEMORY_SHARE * ours.size_bytes + _MEMORY_MORE
    less = None if ours.memory_less_kv is None else ours.memory_less_kv / 1e6
    return _at_most("memory MB", ours, "1.3 x its size + 40 MB", less, limit / 1e6)


def _quality(ours: Figures, peer: Figures) -> Claim:
    a, b = ours.divergence, peer.divergence
    verdict: Verdict = "not_checked" if a is None or b is None else "holds" if a < b else "fails"
    return Claim("KL", ours.name, peer.name, verdict, a, b)


def _at_most(what: str, ours: Figures, peer: str, value: float | None, limit: float | None) -> Claim:
    if value is None or limit is None:
        return Claim(what, ours.name, peer, "not_checked", value, limit)
    return Claim(what, ours.name, peer, "holds" if value <= limit else "fails", value, limit)
