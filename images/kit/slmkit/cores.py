"""The cores that a process may keep busy, by its affinity and by the limit of its container."""

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
"""A container sees its own group here."""


def cores(cgroups: Path = CGROUPS) -> int:
    """At least one. Part of a core counts as a whole one: threads beyond are paused by the kernel in the middle of work
    that the others wait for."""
    allowed = len(os.sched_getaffinity(0))
    limit = _quota(cgroups)
    return allowed if limit is None else max(1, min(allowed, math.ceil(limit)))


def are_limited() -> bool:
    """Whether the container may use fewer cores than a library counts that knows of affinity alone."""
    return cores() < len(os.sched_getaffinity(0))


def one_thread_a_core() -> None:
    """For libraries that read OpenMP's variables; call it before they are imported. What is set already stays."""
    os.environ.setdefault("OMP_NUM_THREADS", str(cores()))
    # Threads that wait by spinning take the core from the one that they wait for, on a node that does something else too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _quota(cgroups: Path) -> float | None:
    """Cores by the group's limit; None without one. ``cpu.max`` is of version 2, the others of version 1 (see
    sched-bwc in the kernel's documentation)."""
    try:
        if (both := cgroups / "cpu.max").exists():
            quota, period = both.read_text().split()
        else:
            quota, period = ((cgroups / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 and int(period) > 0 else None
    except (OSError, ValueError):  # "max" is no number
        return None
