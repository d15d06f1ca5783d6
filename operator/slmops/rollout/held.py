"""What a gate holds against its bound: a figure, and the interval within which it lies.

A benchmark tells the intervals. One of an image of before 2026-12 does not; there the range of the rounds stands for
them, which is cruder.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from slmops.api.edgedeployment import DeploymentGate
from slmops.confidence import Interval, holding
from slmops.contract import Report, TargetFigures
from slmops.figures import display

HIGHER_IS_BETTER = {"TokensPerSecond", "ExactMatch"}
PER_ROUND = {
    "TokensPerSecond": "tokens_per_second",
    "TimeToFirstToken": "time_to_first_token_seconds",
    "RequestLatency": "request_seconds",
}
"""What is timed with each request."""
FEWEST = 3
"""Of fewer answers any order is as likely as any other."""


@dataclass(frozen=True)
class Held:
    """A figure, or the ratio of two, in base units."""

    value: float
    interval: Interval
    shown: str | None = None
    """The interval for people, where it is one of 95 %."""
    spread: str = "the bound lies within, and that is wider than maxNoise"
    """What to say where it is too wide."""


def held(gate: DeploymentGate, report: Report) -> Held | None:
    """None where it was not measured."""
    return _absolute(gate, report) if gate.max_regression is None else _compared(gate, report)


def values(gate: DeploymentGate, target: TargetFigures | None) -> list[float]:
    """The gate's figure: one a round where rounds have it, else a single one; none when it was not measured."""
    if target is None or not target.requests:
        return []
    if gate.metric in PER_ROUND and gate.percentile == 50:
        return [getattr(r, PER_ROUND[gate.metric]) for r in target.rounds]
    single = {
        "TimeToFirstToken": target.time_to_first_token_p95_seconds,
        "RequestLatency": target.request_p95_seconds,
        "ExactMatch": target.exact_match,
        "PeakMemory": None if target.peak_memory_bytes is None else float(target.peak_memory_bytes),
        "ErrorRate": target.errors / target.requests,
    }.get(gate.metric)
    return [] if single is None else [single]


def too_few(gate: DeploymentGate, report: Report) -> str:
    """Why so little was seen that it proves nothing; empty where it is enough. Of times most have to be there: what is too
    slow or too busy to answer is missing among them."""
    ours, theirs, told = report.targets.get("candidate"), report.targets.get("stable"), report.statistics
    if told is None or ours is None:
        return ""
    timed, pair = gate.metric in PER_ROUND, told.paired.get(gate.metric)
    if gate.max_regression is not None and theirs is not None and (timed or pair is not None):
        seen, whose = pair.pairs if pair is not None else 0, "answered by both"
        if told.apart:
            seen = max(0, min(ours.requests - ours.errors, theirs.requests - theirs.errors))
        asked = min(ours.requests, theirs.requests) if timed else seen
    elif timed:
        seen, whose, asked = max(0, ours.requests - ours.errors), "answered", ours.requests
    else:
        return ""
    return "" if seen >= FEWEST and 2 * seen >= asked else f"only {seen} of {asked} requests were {whose}"


def _absolute(gate: DeploymentGate, report: Report) -> Held | None:
    target = report.targets.get("candidate")
    seen = values(gate, target)
    if target is None or not seen:
        return None
    told = target.intervals.get(gate.metric) if gate.percentile == 50 else None
    return _sure(gate, median(seen), told) if told is not None else _range(gate, seen, seen)


def _sure(gate: DeploymentGate, value: float, told: Interval) -> Held:
    ends = holding(value, told)
    return Held(value, ends, " to ".join(display(gate.metric, end) for end in ends))


def _range(gate: DeploymentGate, kept: Sequence[float], seen: Sequence[float]) -> Held:
    rounds = " to ".join(display(gate.metric, end) for end in (min(seen), max(seen)))
    return Held(median(kept), (min(kept), max(kept)), spread=f"rounds from {rounds}, further apart than maxNoise")


def _compared(gate: DeploymentGate, report: Report) -> Held | None:
    told = report.statistics.paired.get(gate.metric) if report.statistics is not None else None
    if told is not None:
        ends = holding(told.ratio, (told.low, told.high))
        return Held(told.ratio, ends, f"{ends[0]:.4g} to {ends[1]:.4g} of stable")
    if report.statistics is not None and gate.metric in PER_ROUND:
        return _apart(gate, report) if report.statistics.apart else None
    ours, theirs = (values(gate, report.targets.get(name)) for name in ("candidate", "stable"))
    if not ours or len(ours) != len(theirs):
        return None
    return _range(gate, [_ratio(gate, a, b) for a, b in zip(ours, theirs, strict=True)], ours)


def _apart(gate: DeploymentGate, report: Report) -> Held | None:
    """Of two servers that were measured one after the other: from the least that the ratio can be, by both intervals, to
    the most. That is wider than one of pairs, as it should be."""
    ours, theirs = (report.targets.get(name) for name in ("candidate", "stable"))
    if ours is None or theirs is None or not (mine := ours.intervals.get(gate.metric)):
        return None
    other, figures = (
        theirs.intervals.get(gate.metric),
        [median(values(gate, t)) for t in (ours, theirs) if values(gate, t)],
    )
    if other is None or len(figures) != 2 or min(other) <= 0:
        return None
    ends = holding(figures[0] / figures[1], (mine[0] / other[1], mine[1] / other[0]))
    return Held(
        figures[0] / figures[1], ends, f"{ends[0]:.4g} to {ends[1]:.4g} of stable, measured before it was stopped"
    )


def _ratio(gate: DeploymentGate, ours: float, theirs: float) -> float:
    if theirs:
        return ours / theirs
    return 1.0 if ours == 0 or gate.metric in HIGHER_IS_BETTER else math.inf
