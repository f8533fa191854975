"""What this machine lets us use."""

from __future__ import annotations

import math
import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2, as containers and most schedulers set it


def cores(quota: Path = QUOTA) -> int:
    """CPU cores that this process may use: its affinity, and the quota of its container (`docker run --cpus 2`), at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        limit, period = quota.read_text(encoding="ascii").split()[:2]
        return max(1, min(allowed, math.ceil(int(limit) / int(period))))
    except (OSError, ValueError, ZeroDivisionError):  # no quota ("max"), or none that can be read
        return allowed
