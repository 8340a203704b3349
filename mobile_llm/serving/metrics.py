"""Figures of a server in Prometheus' text format, version 0.0.4. Kept on the event loop's thread alone."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate

from mobile_llm.generation.answer import Stats
from mobile_llm.machine import resident_memory

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
_TOKEN_SECONDS = (0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1)


class Histogram:
    """Counts values by upper bounds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str) -> Iterator[str]:
        bounds = [*map(str, self._bounds), "+Inf"]
        for bound, count in zip(bounds, accumulate(self._counts)):
            yield f'{name}_bucket{{le="{bound}"}} {count}'
        yield f"{name}_sum {self._sum}"
        yield f"{name}_count {sum(self._counts)}"


class Metrics:
    """Everything that is counted between a server's start and its end."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._tokens: Counter[str] = Counter(prompt=0, cached=0, answer=0)
        self._waited = Histogram(_SECONDS)
        self._first = Histogram(_SECONDS)
        self._token = Histogram(_TOKEN_SECONDS)

    def responded(self, route: str, status: int) -> None:
        """A request has got its whole response, or (499) did not wait for it."""
        self._requests[route, status] += 1

    def embedded(self, tokens: int, waited: float) -> None:
        """Texts of so many tokens have their vectors, after so many seconds in the queue."""
        self._tokens["prompt"] += tokens
        self._waited.observe(waited)

    def wrote(self, stats: Stats, waited: float) -> None:
        """An answer is whole, after so many seconds in the queue."""
        self._tokens.update(prompt=stats.prompt_tokens, cached=stats.cached_tokens, answer=stats.answer_tokens)
        self._waited.observe(waited)
        self._first.observe(stats.first_token_seconds)
        if stats.decode_rate is not None:
            self._token.observe(1 / stats.decode_rate)

    def text(self, waiting: int) -> str:
        """The page, where `waiting` requests are in the queue now."""
        return "\n".join([*self._lines(waiting), ""])

    def _lines(self, waiting: int) -> Iterator[str]:
        yield from _head("mobile_llm_requests_total", "counter", "Requests by route and status; 499: the client left.")
        for (route, status), count in sorted(self._requests.items()):
            yield f'mobile_llm_requests_total{{route="{route}",status="{status}"}} {count}'
        yield from _head("mobile_llm_tokens_total", "counter", "Tokens of prompts, of these read before, of answers.")
        for kind, count in self._tokens.items():
            yield f'mobile_llm_tokens_total{{kind="{kind}"}} {count}'
        yield from _head("mobile_llm_waiting_requests", "gauge", "Requests in the queue.")
        yield f"mobile_llm_waiting_requests {waiting}"
        yield from _head("process_resident_memory_bytes", "gauge", "Memory that this process holds.")
        yield f"process_resident_memory_bytes {resident_memory()}"
        for name, what, histogram in (
            ("mobile_llm_queue_seconds", "Time in the queue.", self._waited),
            ("mobile_llm_first_token_seconds", "From the queue's end to the first token.", self._first),
            ("mobile_llm_token_seconds", "Mean time of a token after the first, by answer.", self._token),
        ):
            yield from _head(name, "histogram", what)
            yield from histogram.lines(name)


def _head(name: str, kind: str, what: str) -> Iterator[str]:
    yield f"# HELP {name} {what}"
    yield f"# TYPE {name} {kind}"
