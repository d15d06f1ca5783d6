"""What the gates say of a benchmark: Passed, Failed or Inconclusive.

Both servers were measured in the same rounds on the same node, so a comparison is made round by round: what disturbs
the node disturbs both. When the rounds disagree about a bound, the median decides only if they are close together
(``maxNoise``); else nobody can tell, and a person is asked. What was not measured never passes.
"""

import math
from collections.abc import Callable, Sequence
from statistics import median

from slmops.api.base import ratio
from slmops.api.batch import GateStatus, Outcome
from slmops.api.edgedeployment import DeploymentGate
from slmops.contract import Report, TargetFigures
from slmops.figures import bound, display, significant

HIGHER_IS_BETTER = {"TokensPerSecond", "ExactMatch"}
PER_ROUND = {
    "TokensPerSecond": "tokens_per_second",
    "TimeToFirstToken": "time_to_first_token_seconds",
    "RequestLatency": "request_seconds",
}


def judge(gates: Sequence[DeploymentGate], report: Report, max_noise: float) -> tuple[Outcome, list[GateStatus]]:
    """All gates on one benchmark. One failure fails; without failure one doubt is a doubt."""
    statuses = [_gate(gate, report, max_noise) for gate in gates]
    outcomes = {status.outcome for status in statuses}
    if "Failed" in outcomes:
        return "Failed", statuses
    candidate = report.targets.get("candidate")
    measured = candidate is not None and bool(candidate.rounds)
    return ("Passed" if measured and "Inconclusive" not in outcomes else "Inconclusive"), statuses


def figures(target: TargetFigures) -> dict[str, float]:
    """One server's figures by their API names, in base units."""
    out: dict[str, float] = {}
    for name, field in PER_ROUND.items():
        if target.rounds:
            out[name] = significant(median(getattr(r, field) for r in target.rounds))
    extra = {
        "TimeToFirstTokenP95": target.time_to_first_token_p95_seconds,
        "RequestLatencyP95": target.request_p95_seconds,
        "ExactMatch": target.exact_match,
        "PeakMemory": target.peak_memory_bytes,
        "ErrorRate": target.errors / target.requests if target.requests else None,
    }
    return out | {name: significant(value) for name, value in extra.items() if value is not None}


def _gate(gate: DeploymentGate, report: Report, max_noise: float) -> GateStatus:
    candidate, stable = report.targets.get("candidate"), report.targets.get("stable")
    values = _values(gate, candidate)
    if gate.max_regression is not None:
        return _regression(gate, values, _values(gate, stable), stable is not None, max_noise)
    limit = gate.min if gate.min is not None else gate.max
    assert limit is not None
    wanted = bound(limit)
    if gate.min is not None:
        return _status(gate, _decide(lambda value: value >= wanted, values, max_noise), f"min {limit}", values)
    return _status(gate, _decide(lambda value: value <= wanted, values, max_noise), f"max {limit}", values)


def _regression(
    gate: DeploymentGate, ours: list[float], theirs: list[float], compared: bool, max_noise: float
) -> GateStatus:
    wanted = f"maxRegression {gate.max_regression}"
    if not compared:
        return _status(gate, "Passed" if ours else "Inconclusive", f"{wanted} (nothing to compare with)", ours)
    if not ours or len(ours) != len(theirs):
        return _status(gate, "Inconclusive", wanted, ours)
    assert gate.max_regression is not None
    allowed = ratio(gate.max_regression)
    pairs = list(zip(ours, theirs, strict=True))
    if gate.metric in HIGHER_IS_BETTER:
        kept = [a / b if b else 1.0 for a, b in pairs]
        outcome = _decide(lambda share: share >= 1 - allowed, kept, max_noise)
    else:
        kept = [a / b if b else (1.0 if a == 0 else math.inf) for a, b in pairs]
        outcome = _decide(lambda share: share <= 1 + allowed, kept, max_noise)
    return _status(gate, outcome, f"{wanted} against {display(gate.metric, median(theirs))}", ours)


def _decide(ok: Callable[[float], bool], values: list[float], max_noise: float) -> Outcome:
    if not values:
        return "Inconclusive"
    if all(ok(value) for value in values):
        return "Passed"
    if not any(ok(value) for value in values):
        return "Failed"
    middle = median(values)
    close = middle != 0 and (max(values) - min(values)) / abs(middle) <= max_noise
    if not close:
        return "Inconclusive"
    return "Passed" if ok(middle) else "Failed"


def _values(gate: DeploymentGate, target: TargetFigures | None) -> list[float]:
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


def _status(gate: DeploymentGate, outcome: Outcome, wanted: str, values: list[float]) -> GateStatus:
    name = f"{gate.metric} p{gate.percentile}" if gate.percentile != 50 else gate.metric
    value = display(gate.metric, median(values)) if values else None
    if value is not None and outcome == "Inconclusive" and len(values) > 1:
        value += f" (rounds from {display(gate.metric, min(values))} to {display(gate.metric, max(values))})"
    return GateStatus(metric=name, outcome=outcome, value=value, bound=wanted)
