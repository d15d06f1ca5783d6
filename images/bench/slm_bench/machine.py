"""What else goes on on the node while servers are measured, from what Linux tells of itself.

Files that are not there (no such sensor, another kernel) and content that is odd count as not known: a benchmark never
fails by what is looked at here.
"""

import math
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
STOLEN = 0.05
"""Share of the CPUs' busy time from which on the hypervisor's other guests count: as much as the smallest regression that
people ask for (``maxRegression: 5%``)."""
THROTTLED = 1
"""Events of thermal throttling: each one takes the clock down for at least some milliseconds, and seldom comes alone."""
LOAD = 3.0
"""Processes for each CPU, mean over the minute before. Two of them may be the rollout's own: whoever reads the image, and
the servers that load it."""
LARGEST = 2**53
IDLE, IOWAIT, STEAL, GUEST = 3, 4, 7, 8
"""Columns of /proc/stat, as in proc(5); the guests' time is counted as user's, too."""


@dataclass(frozen=True)
class Moment:
    """Counters since the boot; None where nobody tells."""

    busy: int | None = None
    """Ticks in which CPUs worked, or would have."""
    stolen: int | None = None
    """Of those the ticks that other guests had."""
    throttled: int | None = None
    """Events of thermal throttling, of all CPUs."""


def moment(root: Path = ROOT) -> Moment:
    """The counters now."""
    lines = _read(root / "proc/stat").splitlines()
    ticks = [_count(word) for word in lines[0].split()[1:]] if lines and lines[0].startswith("cpu ") else []
    known = [tick for tick in ticks[:GUEST] if tick is not None]
    counts = [
        _count(_read(path).strip())
        for path in (root / "sys/devices/system/cpu").glob("cpu*/thermal_throttle/core_throttle_count")
    ]
    events = [count for count in counts if count is not None]
    whole = len(known) == GUEST
    return Moment(
        busy=sum(known) - known[IDLE] - known[IOWAIT] if whole else None,
        stolen=known[STEAL] if whole else None,
        throttled=sum(events) if events else None,
    )


def load(root: Path = ROOT) -> float | None:
    """Processes that run or want to, for each CPU, mean over a minute."""
    cpus = sum(line.startswith("cpu") for line in _read(root / "proc/stat").splitlines()) - 1
    try:
        mean = float(_read(root / "proc/loadavg").split()[0])
    except (IndexError, ValueError):
        return None
    return mean / cpus if cpus > 0 and math.isfinite(mean) and 0 <= mean < LARGEST else None


def disturbances(before: Moment, after: Moment, load: float | None) -> tuple[str, ...]:
    """What may have spoiled a measurement between the two, in words. ``load``: for each CPU, before anything began."""
    said = []
    if load is not None and load >= LOAD:
        said.append(f"load of {load:.1f} per CPU before it began")
    busy, stolen = _between(before.busy, after.busy), _between(before.stolen, after.stolen)
    if busy and stolen and stolen / busy >= STOLEN:
        said.append(f"{min(1.0, stolen / busy) * 100:.0f} % of the CPUs' time was stolen")
    if (events := _between(before.throttled, after.throttled)) and events >= THROTTLED:
        said.append(f"{events} thermal throttling event{'s' if events > 1 else ''}")
    return tuple(said)


def _between(before: int | None, after: int | None) -> int:
    """Nothing where a counter is not known or went back, as with a CPU that was taken out."""
    return max(0, after - before) if before is not None and after is not None else 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""


def _count(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None
