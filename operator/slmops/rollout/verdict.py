"""What the gates say of a benchmark: Passed, Failed or Inconclusive.

Each gate holds one figure and the interval within which it lies against its bound. Where the whole interval is on one side
of the bound, that side is the outcome. Where the bound lies within it, the figure itself decides if the interval is
narrow enough (``maxNoise``); else nobody can tell, and a person is asked.

A comparison is one of the ratio of candidate and stable server, over pairs of answers to the same prompt in the same
round: what disturbs the node disturbs both. What may have spoiled a measurement counts, too:

- A server that was asked the same twice and was further from itself than ``maxNoise`` makes every interval of that
  metric as much wider, to both sides. So what is plainly better or worse stays so, and what is close is a doubt.
- A node that was disturbed is slower than it is: a time that passes there passes, one that fails is a doubt.

What was not measured, or too seldom, never passes.
"""

from collections.abc import Callable, Sequence
from statistics import median

from slmops.api.base import ratio
from slmops.api.batch import GateStatus, Outcome
from slmops.api.edgedeployment import DeploymentGate
from slmops.confidence import Interval
from slmops.contract import Report, TargetFigures
from slmops.figures import bound, display, significant
from slmops.rollout.held import HIGHER_IS_BETTER, PER_ROUND, Held, held, too_few, values


def judge(gates: Sequence[DeploymentGate], report: Report, max_noise: float) -> tuple[Outcome, list[GateStatus]]:
    """All gates on one benchmark. One failure fails; without failure one doubt is a doubt."""
    statuses = [_gate(gate, report, max_noise) for gate in gates]
    outcomes = {status.outcome for status in statuses}
    if "Failed" in outcomes:
        return "Failed", statuses
    candidate = report.targets.get("candidate")
    measured = candidate is not None and bool(candidate.rounds)
    return ("Passed" if measured and "Inconclusive" not in outcomes else "Inconclusive"), statuses


def explained(gate: GateStatus) -> str:
    """What a gate said, for people."""
    why = "; ".join(part for part in (gate.interval, gate.doubt) if part)
    return f"{gate.metric} is {gate.value or 'not measured'}, wanted {gate.bound}" + (f" ({why})" if why else "")


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
    ours, theirs = (values(gate, report.targets.get(name)) for name in ("candidate", "stable"))
    alone = gate.max_regression is not None and "stable" not in report.targets
    found, few = held(gate, report), too_few(gate, report)
    outcome: Outcome = "Inconclusive"
    doubts = [few] if few else []
    if not few and alone and ours:
        outcome = "Passed"
    elif not few and ours and found is not None:
        outcome, doubts = _weighed(gate, found, report, max_noise)
    return GateStatus(
        metric=f"{gate.metric} p{gate.percentile}" if gate.percentile != 50 else gate.metric,
        outcome=outcome,
        value=display(gate.metric, median(ours)) if ours else None,
        interval=found.shown if found is not None else None,
        doubt="; ".join(doubts) or None,
        bound=_wanted(gate, theirs, alone),
    )


def _weighed(gate: DeploymentGate, found: Held, report: Report, max_noise: float) -> tuple[Outcome, list[str]]:
    """The outcome, and what makes it a doubt."""
    told = report.statistics
    noise = told.noise.get(gate.metric, 0.0) if told is not None else 0.0
    low, high = found.interval
    noisy = noise > max_noise
    if noisy:
        low, high = low / (1 + noise), high * (1 + noise)
    limit, least = _limit(gate)
    if found.shown is not None and found.value == limit in (low, high):
        outcome: Outcome = "Passed"  # the end belongs to the interval: nothing is more right than all
    else:
        outcome = _outcome(lambda v: v >= limit if least else v <= limit, found.value, (low, high), max_noise)
    doubts = []
    if outcome == "Inconclusive":
        itself = f"asked the same twice, a server was up to {noise * 100:.3g}% from itself, more than maxNoise"
        doubts.append(itself if noisy else found.spread)
    if outcome != "Passed" and gate.metric in PER_ROUND and told is not None and told.disturbances:
        outcome = "Inconclusive"
        doubts.append(f"the node was disturbed: {', '.join(told.disturbances)}")
    return outcome, doubts


def _outcome(ok: Callable[[float], bool], value: float, interval: Interval, max_noise: float) -> Outcome:
    low, high = interval
    if ok(low) == ok(high):
        return "Passed" if ok(low) else "Failed"
    narrow = value != 0 and (high - low) / abs(value) <= max_noise
    return "Inconclusive" if not narrow else "Passed" if ok(value) else "Failed"


def _limit(gate: DeploymentGate) -> tuple[float, bool]:
    """What the figure, or of a comparison the ratio, is held against, and whether it may not be less, or not more."""
    if gate.max_regression is not None:
        allowed = ratio(gate.max_regression)
        return (1 - allowed, True) if gate.metric in HIGHER_IS_BETTER else (1 + allowed, False)
    if gate.min is not None:
        return bound(gate.min), True
    assert gate.max is not None
    return bound(gate.max), False


def _wanted(gate: DeploymentGate, theirs: Sequence[float], alone: bool) -> str:
    if gate.max_regression is None:
        return f"min {gate.min}" if gate.min is not None else f"max {gate.max}"
    against = f" against {display(gate.metric, median(theirs))}" if theirs else ""
    return f"maxRegression {gate.max_regression}" + (" (nothing to compare with)" if alone else against)
