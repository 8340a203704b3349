"""What this machine has to give, asked without any package: memory, disk, processor.

Covered: Linux (control groups of both versions included: a container's limit is below the machine's) and macOS, where
only the memory it has is known, not what is free. Not covered: Windows' memory (None, that is, unknown).
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

_UNLIMITED = 1 << 60  # what version 1 writes for "no limit" is near 2**63
# Kernels for int8 products take these where they find them.
_CPU_FEATURES = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that can be taken without pushing anything out; None where the system does not say."""
    known = [_free_by_meminfo(root / "proc/meminfo"), *_free_by_groups(root)]
    found = [value for value in known if value is not None]
    return min(found) if found else _physical()


def resident_memory() -> int:
    """Bytes this process holds now; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError, AttributeError):
        return 0


def peak_memory() -> int | None:
    """The most bytes this process has held so far; None where the system does not say."""
    status = Path("/proc/self/status")
    if status.is_file():
        # ru_maxrss would still hold the peak of the process this one was started from.
        line = next((s for s in status.read_text(encoding="ascii").splitlines() if s.startswith("VmHWM")), None)
        return int(line.split()[1]) * 1024 if line else None
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def free_disk(place: Path) -> int:
    """Bytes free on the disk that `place`, which need not exist yet, would lie on."""
    place = place.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def cpu() -> tuple[str, tuple[str, ...]]:
    """The processor's name and which features that matter it has, as far as the system says."""
    fields = _cpuinfo()
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    name = fields.get("model name") or platform.processor() or platform.machine()
    return name, tuple(feature for feature in _CPU_FEATURES if feature in flags)


def _cpuinfo() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in reversed(lines))  # the first processor's word counts
    return {key.strip(): value.strip() for key, _, value in pairs}


def _free_by_meminfo(path: Path) -> int | None:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    sizes = {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}
    return int(sizes["MemAvailable"][0]) * 1024 if "MemAvailable" in sizes else None


def _free_by_groups(root: Path) -> Iterator[int]:
    """What each limit on this process's control groups, and on those above them, leaves."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for _, controllers, place in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if not controllers:
            yield from _room(root / "sys/fs/cgroup", place, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _room(root / "sys/fs/cgroup/memory", place, *names)


def _room(mount: Path, place: str, limit: str, usage: str, reclaimable: str) -> Iterator[int]:
    """Inside a container a group's path may be the host's, while the mount shows the group itself: so upwards."""
    group = mount / place.lstrip("/")
    while group.is_relative_to(mount):
        allowed, used = _number(group / limit), _number(group / usage)
        if allowed is not None and used is not None and allowed < _UNLIMITED:
            yield max(0, allowed - used + _cache(group / "memory.stat", reclaimable))
        if group == mount:
            return
        group = group.parent


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max" is no number and no limit
        return None


def _cache(path: Path, key: str) -> int:
    """Files that the group holds in memory and would give up at once: usage counts them."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.split()[:1] == [key])


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
