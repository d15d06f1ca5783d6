"""The cores that a process may keep busy, by its affinity and by the limit of its container."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CGROUPS = Path("/sys/fs/cgroup")
"""A container sees its own group here."""


def cores(cgroups: Path = CGROUPS) -> int:
    """At least one. Part of a core counts as a whole one: threads beyond are paused by the kernel in the middle of work
    that the others wait for."""
    allowed = len(os.sched_getaffinity(0))
    limit = _quota(cgroups)
    return allowed if limit is None else max(1, min(allowed, math.ceil(limit)))


def runtime_threads(config: Mapping[str, Any]) -> dict[str, Any]:
    """What keeps ONNX Runtime GenAI to the container's cores, to be laid over a model's ``genai_config.json`` where that
    says nothing: the runtime counts the node's cores, and reads none of OpenMP's variables."""
    own = config.get("model", {}).get("decoder", {}).get("session_options", {})
    threads = cores()
    if "intra_op_num_threads" in own or threads == len(os.sched_getaffinity(0)):
        return {}
    return {"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}


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
