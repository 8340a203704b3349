"""What this process has taken. Imported in environments of others too: the standard library only."""

from __future__ import annotations

import sys
from pathlib import Path


def peak_bytes() -> int | None:
    """The largest resident set of this process so far; None on Windows, which has no such counter here."""
    status = Path("/proc/self/status")
    if status.is_file():
        # ru_maxrss would still hold the peak of the process this one was started from.
        line = next((s for s in status.read_text(encoding="ascii").splitlines() if s.startswith("VmHWM")), None)
        return int(line.split()[1]) * 1024 if line else None
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
