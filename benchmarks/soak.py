"""Whether a server holds: good, bad, leaving and slow clients at once, and the memory it takes meanwhile.

    python -m benchmarks.soak BUNDLE [--minutes 10] [--clients 8] [--artifact ID] [--context N] [--json]

The server is a process of its own. A request that gets another status than it has to, or an answer that is none, is a
failure; so is memory that goes on growing: over the second half of the time a line is laid through it, and it may rise
by at most 2 % of what is held, or 8 MB. Not covered: many models, networks.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec

import numpy as np

from benchmarks.soak_clients import CLIENTS, KEY, Client, Server, by_schema, whole
from mobile_llm.errors import InvalidInput

_MEMORY = "process_resident_memory_bytes"
_RISE, _LEAST_RISE = 0.02, 8_000_000
_BUSY = 429
_START = "import sys; from mobile_llm.commands import main; sys.exit(main())"


@dataclass(frozen=True)
class Sample:
    """Seconds since the start, and bytes held then."""

    seconds: float
    memory: float


@dataclass
class Soak:
    """What came of it. `requests` counts clients by name and what they got."""

    samples: list[Sample] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--minutes", type=float, default=10, metavar="X")
    parser.add_argument("--clients", type=int, default=8, metavar="N")
    parser.add_argument("--artifact", metavar="ID")
    parser.add_argument("--context", type=int, default=512, metavar="N")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    options = ["--context", str(args.context), *(["--artifact", args.artifact] if args.artifact else [])]
    with started(args.bundle, options) as server:
        soak = soaked(server, 60 * args.minutes, args.clients)
    rise, allowed = growth(soak.samples)
    flat = rise <= allowed
    if args.json:
        found = {"samples": [asdict(sample) for sample in soak.samples], "requests": soak.requests}
        print(json.dumps({**found, "failures": soak.failures, "rise": rise, "allowed": allowed, "flat": flat}))
    else:
        print("\n".join(_report(soak, rise, allowed)))
    return 0 if flat and not soak.failures else 1


@contextmanager
def started(bundle: str, options: Sequence[str]) -> Iterator[Server]:
    """A server with a short queue, ended by Ctrl-C. Raises InvalidInput where it does not start."""
    command = [sys.executable, "-c", _START, "serve", bundle, "--port", "0", "--queue", "4", *options]
    environment = {**os.environ, "MOBILE_LLM_API_KEY": KEY}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment) as p:
        try:
            assert p.stdout is not None
            line = p.stdout.readline()
            if not line:
                raise InvalidInput(f"no server came up for {bundle}; see what `mobile-llm serve {bundle}` says")
            yield Server(int(line.split("/v1;")[0].rpartition(":")[2]), find_spec("llguidance") is not None)
        finally:
            p.send_signal(signal.SIGINT)
            p.wait(30)


def soaked(server: Server, seconds: float, clients: int) -> Soak:
    """Clients of all kinds for so long, then a good one alone, which has to be answered."""
    soak, over, start = Soak(), threading.Event(), time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        for number in range(clients):
            pool.submit(_keep_asking, server, soak, over, number)
        while time.monotonic() - start < seconds:
            soak.samples.append(Sample(time.monotonic() - start, server.metric(_MEMORY)))
            time.sleep(min(2, seconds / 60))
        over.set()
    _one(server, soak, whole, random.Random(0))
    if server.metric("mobile_llm_waiting_requests"):
        soak.failures.append("requests are waiting, and nobody asks any more")
    return soak


def growth(samples: Sequence[Sample]) -> tuple[float, float]:
    """By how many bytes memory rises over the second half, on a line laid through it, and how many it may."""
    later = samples[len(samples) // 2 :]
    seconds, memory = (np.array(column) for column in zip(*((sample.seconds, sample.memory) for sample in later)))
    slope = np.polyfit(seconds, memory, 1)[0]
    return float(slope * (seconds[-1] - seconds[0])), max(_RISE * float(memory.mean()), _LEAST_RISE)


def _keep_asking(server: Server, soak: Soak, over: threading.Event, seed: int) -> None:
    rng = random.Random(seed)
    kinds = [client for client in CLIENTS if server.schemas or client is not by_schema]
    weights = [CLIENTS[client][1] for client in kinds]
    while not over.is_set():
        if _one(server, soak, rng.choices(kinds, weights)[0], rng) == _BUSY:
            over.wait(rng.random())


def _one(server: Server, soak: Soak, client: Client, rng: random.Random) -> int | None:
    name, wanted = client.__name__, CLIENTS[client][0]
    try:
        got = client(server, rng)
    except Exception as error:  # whatever it is, it is what the soak is to find
        soak.failures.append(f"{name}: {type(error).__name__} {error}")
        return None
    soak.requests[f"{name} {got}"] += 1
    if got not in (wanted, _BUSY):
        soak.failures.append(f"{name} got {got}, not {wanted}")
    return got


def _report(soak: Soak, rise: float, allowed: float) -> Iterator[str]:
    for sample in soak.samples[:: max(1, len(soak.samples) // 20)]:
        yield f"{sample.seconds:6.0f} s {sample.memory / 1e6:9.1f} MB"
    yield ", ".join(f"{count} {what}" for what, count in sorted(soak.requests.items()))
    yield from (f"FAILED {failure}" for failure in soak.failures)
    verdict = "flat" if rise <= allowed else "GROWING"
    yield f"memory is {verdict}: {rise / 1e6:+.1f} MB over the second half, {allowed / 1e6:.1f} MB allowed"


if __name__ == "__main__":
    raise SystemExit(main())
