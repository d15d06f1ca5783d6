"""What the figures of a pool come to: percentiles, drift, breaches that begin and end, and what is in the way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from slmops.api.conditions import timestamp
from slmops.api.edgedeployment import EdgeDeployment
from slmops.api.monitoring import Bottleneck, BreachStatus, MonitoredPoolStatus, Monitoring, QuantileStatus
from slmops.contract import SECOND_EDGES, Served
from slmops.figures import bound, display
from slmops.monitoring.baseline import Frozen, frozen
from slmops.monitoring.counts import INPUTS, drift, fullness, quantile
from slmops.state import Heard, Observed

CLEARED = 0.8
"""A breach is over below so much of its bound, and requests are too few again below so much of what is wanted: what lies on
a bound would pass it with each request."""
BUSY, FULL = 0.8, 0.9
"""Shares of the time and of the memory above which there is a bottleneck."""
PERCENTILES = {50: 0.5, 95: 0.95, 99: 0.99}
TIMES = {"RequestLatency": "request_seconds", "TimeToFirstToken": "first_token_seconds"}


@dataclass(frozen=True)
class Watched:
    """All pools of an EdgeDeployment, as they are now."""

    revision: str
    pools: tuple[MonitoredPoolStatus, ...]
    baselines: Mapping[str, Frozen]
    """Those that are complete, by pool."""
    waiting: str | None = None
    """Why a breach leads to no retrain now."""


def watched(resource: EdgeDeployment, observed: Observed, spec: Monitoring, now: datetime) -> Watched | None:
    """What is known of the stable revision; None before there is one."""
    stable, before = resource.status.stable, resource.status.monitoring
    if stable is None:
        return None
    known = frozen(resource, stable.revision, observed.children) if spec.drift is not None else {}
    former = {p.name: p for p in before.pools} if before is not None and before.revision == stable.revision else {}
    for pool in resource.spec.pools if spec.drift is not None else ():
        heard = observed.heard.get(pool.name)
        if pool.name not in known and heard and heard.first and heard.first.answers >= spec.baseline.requests:
            known[pool.name] = Frozen(now, heard.first)
    pools = [
        _pool(pool.name, observed.heard.get(pool.name), known.get(pool.name), former.get(pool.name), spec, now)
        for pool in resource.spec.pools
    ]
    return Watched(stable.revision, tuple(pools), known)


def kind(what: str) -> str:
    """Which kind of breach it is, as ``retrain.on`` names them."""
    if what.partition(" ")[0] in (*TIMES, "ErrorRate"):
        return "Bounds"
    return "InputDrift" if what in INPUTS else "OutputDrift"


def _pool(
    name: str, heard: Heard | None, baseline: Frozen | None, before: MonitoredPoolStatus | None, spec: Monitoring,
    now: datetime,
) -> MonitoredPoolStatus:  # fmt: skip
    if heard is None:
        # Nothing was heard yet since this process leads, or for as long as the window: a breach is over when that is seen.
        nothing = MonitoredPoolStatus(name=name, verdict="NotHeard")
        kept = {"baseline": baseline.served.answers, "baseline_at": timestamp(baseline.at)} if baseline else {}
        return nothing.model_copy(update={**kept, "breaches": _wanted(before.breaches, spec) if before else []})
    said = heard.window
    least = spec.min_requests * (CLEARED if before is not None and before.verdict == "WithinBounds" else 1)
    # Those that the baseline is made of are not judged by it.
    few = said.answers < least or (baseline is not None and heard.first is not None)
    indices = drift(baseline.served, said) if baseline is not None and not few else {}
    breaches = _breaches(said, indices, before.breaches if before else [], spec, now)
    so_far = baseline.served.answers if baseline else heard.first.answers if heard.first else None
    return MonitoredPoolStatus(
        name=name,
        verdict="Breached" if breaches else "BaselineIncomplete" if spec.drift is not None and baseline is None
        else "TooFewRequests" if few else "WithinBounds",
        servers=heard.servers, requests=_round(said.requests), errors=_round(said.errors), refused=_round(said.refused),
        latency=_quantiles(said.request_seconds), first_token=_quantiles(said.first_token_seconds),
        baseline=_round(so_far) if so_far is not None else None,
        baseline_at=timestamp(baseline.at) if baseline else None,
        drift={what: round(value, 2) for what, value in indices.items()},
        breaches=breaches, bottlenecks=_bottlenecks(said),
    )  # fmt: skip


def _breaches(
    said: Served, indices: Mapping[str, float], before: Sequence[BreachStatus], spec: Monitoring, now: datetime
) -> list[BreachStatus]:
    """What exceeds its bound now, or has not been well within it since it did. What cannot be judged stays as it was."""
    known = {breach.what: breach for breach in before}
    values: list[tuple[str, float | None, float, str, str]] = []
    if spec.drift is not None:
        most = spec.drift.max_index
        for what, value in indices.items():
            values.append((what, value, most, f"{value:.2g}", f"{most:g}"))
        values += [(what, None, most, "", "") for what in known if kind(what) != "Bounds" and what not in indices]
    for each in spec.bounds:
        found = _measured(each.metric, PERCENTILES[each.percentile or 95], said, spec.min_requests)
        shown = "" if found is None else display(each.metric, float(f"{found:.2g}"))
        values.append((each.name, found, bound(each.max), shown, str(each.max)))
    out = []
    for what, now_, most, shown, declared in values:
        open_ = known.get(what)
        if now_ is None:
            out += [open_] if open_ is not None else []
        elif now_ > most or (open_ is not None and now_ > CLEARED * most):
            since = open_.since if open_ is not None else timestamp(now)
            out.append(BreachStatus(what=what, value=shown, max=declared, since=since))
    return out


def _measured(metric: str, share: float, said: Served, least: int) -> float | None:
    """The figure that a bound is on; None where there are too few requests."""
    if metric in TIMES:
        found = quantile(SECOND_EDGES, getattr(said, TIMES[metric]), share)
        return found if said.answers >= least else None
    asked = said.answers + said.errors + said.refused
    return (said.errors + said.refused) / asked if asked >= least else None


def _wanted(breaches: Sequence[BreachStatus], spec: Monitoring) -> list[BreachStatus]:
    """Those of what is still declared."""
    names = {each.name for each in spec.bounds}
    return [b for b in breaches if (spec.drift is not None if kind(b.what) != "Bounds" else b.what in names)]


def _bottlenecks(said: Served) -> list[Bottleneck]:
    found: list[Bottleneck] = []
    if said.refused or (said.answers and said.waited_seconds > said.ran_seconds):
        found.append("Queue")
    if said.seconds and said.ran_seconds > BUSY * said.seconds:
        found.append("Compute")
    if fullness(said) > FULL:
        found.append("Memory")
    return found


def _quantiles(counts: Sequence[int]) -> QuantileStatus | None:
    found = [quantile(SECOND_EDGES, counts, share) for share in PERCENTILES.values()]
    p50, p95, p99 = (None if value is None else float(f"{value:.2g}") for value in found)
    if p50 is None or p95 is None or p99 is None:
        return None
    return QuantileStatus(p50=p50, p95=p95, p99=p99)


def _round(count: int) -> int:
    """Two digits: more would be a write each time that somebody asks."""
    return int(float(f"{count:.2g}"))
