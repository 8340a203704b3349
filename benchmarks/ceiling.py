"""What this machine can do at best, measured before anything else: reading memory, multiplying float32 matrices.

    python -m benchmarks.ceiling --threads 2

prints one JSON line. Run in a process of its own, because a matrix library takes its number of threads when it is
loaded. Not covered: the rate of integer products, for which numpy has no fast path.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from benchmarks.cost import Cost

_POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
# Far beyond any cache, yet quick: 256 MB are read in some 20 ms.
_READ_BYTES = 256 << 20
_SIDE = 1536


@dataclass(frozen=True)
class Ceiling:
    """Best of several trials on `threads` threads; None where the trial did not run."""

    threads: int
    read_gbps: float | None
    float32_gflops: float | None

    def best_ms(self, cost: Cost) -> float | None:
        """The shortest time a pass could take: all of its operations at the peak rate, or all of its weights read
        once from memory, whichever is longer. Integer products count nothing here: their peak is not measured, and
        lies between one and thirty times that of float32, depending on the processor's instructions."""
        if not self.read_gbps or not self.float32_gflops:
            return None
        # float16 is widened to float32 by the runtimes of this host.
        operations = cost.attention + (0 if cost.arithmetic == "int8" else cost.linear)
        return max(operations / self.float32_gflops, cost.weight_bytes / self.read_gbps) / 1e6


def measure_ceiling(threads: int) -> Ceiling:
    """In a fresh process; a trial that fails leaves None, since nothing else depends on it."""
    command = [sys.executable, "-m", "benchmarks.ceiling", "--threads", str(threads)]
    environment = os.environ | dict.fromkeys(_POOLS, str(threads))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        return Ceiling(threads, None, None)
    return Ceiling(threads, **json.loads(done.stdout.splitlines()[-1]))


def _read_rate(threads: int) -> float:
    """GB/s of looking at every byte once."""
    import numpy as np

    parts = np.array_split(np.ones(_READ_BYTES // 4, np.float32), threads)
    with ThreadPoolExecutor(threads) as pool:
        seconds = _best(lambda: list(pool.map(np.maximum.reduce, parts)))
    return _READ_BYTES / seconds / 1e9


def _product_rate() -> float:
    """GFLOP/s of a matrix product that fits the caches."""
    import numpy as np

    left = np.full((_SIDE, _SIDE), 0.5, np.float32)
    return 2 * _SIDE**3 / _best(lambda: left @ left) / 1e9


def _best(trial: Callable[[], object], trials: int = 15) -> float:
    times = []
    for _ in range(trials):
        start = time.perf_counter()
        trial()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    rates = {"read_gbps": _read_rate(args.threads), "float32_gflops": _product_rate()}
    print(json.dumps({name: round(rate, 1) for name, rate in rates.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
