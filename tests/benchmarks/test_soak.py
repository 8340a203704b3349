"""`benchmarks.soak`: what counts as growing, and a soak of seconds."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.soak import Sample, growth, soaked
from benchmarks.soak_clients import Server


def _samples(growing: float, noise: float = 1e6) -> list[Sample]:
    """600 seconds; loading takes the first hundred."""
    rng = random.Random(0)
    return [Sample(float(t), 300e6 + min(t, 100) * 1e6 + growing * t + noise * rng.random()) for t in range(0, 600, 2)]


@pytest.mark.parametrize(("growing", "flat"), [(0, True), (10_000, True), (50_000, False), (1e6, False)])
def test_memory_that_goes_on_growing_is_told_from_a_warm_start(growing: float, flat: bool) -> None:
    rise, allowed = growth(_samples(growing))
    assert (rise <= allowed) is flat
    assert rise == pytest.approx(298 * growing, abs=1e6)


class _Failing(BaseHTTPRequestHandler):
    """Answers nothing but its metrics."""

    def do_GET(self) -> None:
        body = b"process_resident_memory_bytes 5\nmobile_llm_waiting_requests 1\n"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.send_error(500)

    def log_message(self, *given: object) -> None:
        pass


@pytest.fixture
def failing() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Failing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_a_server_that_fails_is_found_out(failing: int) -> None:
    soak = soaked(Server(failing, schemas=False), 0.3, clients=2)
    assert {sample.memory for sample in soak.samples} == {5}
    assert "whole got 500, not 200" in soak.failures
    assert soak.failures[-1] == "requests are waiting, and nobody asks any more"
