"""What this machine lets us use."""

from __future__ import annotations

import math
import os
from pathlib import Path

GROUP = Path("/sys/fs/cgroup")  # cgroup v2, as containers and most schedulers set it
QUOTA = GROUP / "cpu.max"
MEMINFO = Path("/proc/meminfo")


def cores(quota: Path = QUOTA) -> int:
    """CPU cores that this process may use: its affinity, and the quota of its container (`docker run --cpus 2`), at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        limit, period = quota.read_text(encoding="ascii").split()[:2]
        return max(1, min(allowed, math.ceil(int(limit) / int(period))))
    except (OSError, ValueError, ZeroDivisionError):  # no quota ("max"), or none that can be read
        return allowed


def free_memory(group: Path = GROUP, meminfo: Path = MEMINFO) -> int:
    """Bytes of memory that may still be used without swapping: the machine's, or the rest of the container's limit where that is less."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        lines = dict(line.split(":") for line in meminfo.read_text(encoding="ascii").splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError, IndexError):  # no Linux: all of it, for want of a better figure
        pass
    try:
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        used = int((group / "memory.current").read_text(encoding="ascii"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        return max(0, min(free, limit - used + int(stat["inactive_file"])))  # files that were read and can be forgotten
    except (OSError, ValueError, KeyError):  # no limit ("max"), or none that can be read
        return free
