"""What an EdgeDeployment says of its servers in production: figures now and then, breaches at once."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from slmops.api.conditions import ConditionType, Fact, false, moment, timestamp, true, unknown
from slmops.api.edgedeployment import EdgeDeployment
from slmops.api.monitoring import MonitoredPoolStatus, MonitoringStatus, Retrain, RetrainStatus
from slmops.monitoring.baseline import baseline_name
from slmops.monitoring.retrain import leading, succeeded
from slmops.monitoring.watch import Watched, kind
from slmops.retraining import last
from slmops.state import Manifest, Observed, Plan

C = ConditionType
ENDS: dict[str, Literal["Succeeded", "Failed"]] = {"True": "Succeeded", "False": "Failed"}
WRITTEN_SECONDS = 300
"""Figures change with every request; a status is written for each change. So they are told no more often than this."""
NOT_HEARD = (
    "no server of pool {} has told what it answered: the operator has to reach their port from its namespace "
    "(NetworkPolicy), and runtime.image to be of this version"
)


def monitoring_status(
    resource: EdgeDeployment, observed: Observed, plan: Plan, now: datetime
) -> MonitoringStatus | None:
    """The status, or the one before where there is nothing to tell yet."""
    spec, before, found = resource.spec.monitoring, resource.status.monitoring, plan.watched
    if spec is None:
        return None
    if not isinstance(found, Watched):
        return before
    fine_tune = observed.references.get(("FineTune", spec.retrain.fine_tune.name)) if spec.retrain else None
    wanted = MonitoringStatus(
        observed_at=timestamp(now), revision=found.revision, pools=list(found.pools), waiting=found.waiting,
        retrain=_retrain(resource, spec.retrain, found, plan, fine_tune, now) if spec.retrain else None,
    )  # fmt: skip
    if before is None or _at_once(before) != _at_once(wanted):
        return wanted
    written = moment(before.observed_at)
    due = written is None or (now - written).total_seconds() >= WRITTEN_SECONDS
    same = before.model_copy(update={"observed_at": ""}) == wanted.model_copy(update={"observed_at": ""})
    return wanted if due and not same else before


def _at_once(status: MonitoringStatus) -> object:
    """What is told as soon as it is so."""
    pools = [(p.name, p.verdict, p.baseline_at, [b.what for b in p.breaches]) for p in status.pools]
    return status.revision, pools, status.retrain, status.waiting


def _retrain(
    resource: EdgeDeployment, wanted: Retrain, found: Watched, plan: Plan, fine_tune: Manifest | None, now: datetime
) -> RetrainStatus | None:
    """The last retrain that this EdgeDeployment asked for. The FineTune remembers it, whatever became of this status."""
    before, name = resource.status.monitoring, wanted.fine_tune.name
    own = before.retrain if before is not None else None
    made = plan.retrain[1] if plan.retrain is not None else last(fine_tune)[0] if fine_tune is not None else None
    if made is not None and made.deployment != resource.metadata.name:
        made = None  # another one asked after us
    outcome: Literal["Running", "Succeeded", "Failed"] = "Running"
    if plan.retrain is None and made is not None and fine_tune is not None:
        outcome = ENDS.get(str(succeeded(fine_tune).get("status")), "Running")
    if made is not None and (own is None or (own.at, own.fine_tune) != (made.at, name)):
        return RetrainStatus(fine_tune=name, at=made.at, revision=made.revision, why=made.why, outcome=outcome)
    if own is None:
        return None
    verdicts = {pool.verdict for pool in found.pools}
    over = "WithinBounds" in verdicts and "NotHeard" not in verdicts and not leading(found.pools, wanted)
    cleared = own.cleared_at or (timestamp(now) if over else None)
    return own.model_copy(update={"outcome": outcome if made is not None else own.outcome, "cleared_at": cleared})


def monitoring_facts(resource: EdgeDeployment, status: MonitoringStatus | None) -> list[Fact]:
    """WithinBounds, where a bound is declared."""
    spec = resource.spec.monitoring
    if spec is None or (spec.drift is None and not spec.bounds):
        return []
    if status is None:
        return [unknown(C.WITHIN_BOUNDS, "NothingPromoted", "no revision has been promoted yet")]
    pools = status.pools
    if breached := [pool for pool in pools if pool.breaches]:
        return [_breached(resource, status, breached)]
    verdicts = {pool.verdict: pool for pool in reversed(pools)}
    waiting = f". No retrain is possible: {status.waiting}" if status.waiting else ""
    if (pool := verdicts.get("NotHeard")) is not None:
        return [unknown(C.WITHIN_BOUNDS, "NotHeard", f"{NOT_HEARD.format(pool.name)}{waiting}")]
    if (pool := verdicts.get("BaselineIncomplete")) is not None:
        text = f"the baseline of pool {pool.name} has {pool.baseline or 0} of {spec.baseline.requests} requests"
        return [unknown(C.WITHIN_BOUNDS, "BaselineIncomplete", f"{text}{waiting}")]
    if (pool := verdicts.get("TooFewRequests")) is not None:
        few = f"pool {pool.name} had {pool.requests} requests in {spec.window}"
        text = f"{few}, spec.monitoring.minRequests wants {spec.min_requests}"
        return [unknown(C.WITHIN_BOUNDS, "TooFewRequests", f"{text}{waiting}")]
    return [true(C.WITHIN_BOUNDS, "WithinBounds", waiting.removeprefix(". "))]


def _breached(resource: EdgeDeployment, status: MonitoringStatus, pools: Sequence[MonitoredPoolStatus]) -> Fact:
    told = [f"pool {pool.name}: {b.what} {b.value}, max {b.max}" for pool in pools for b in pool.breaches]
    kinds = {kind(b.what) for pool in pools for b in pool.breaches}
    drifted = kinds & {"InputDrift", "OutputDrift"}
    parts = ["; ".join(told)[:1024]]
    again = status.retrain
    if again is not None and again.cleared_at is None and again.revision == status.revision:
        parts.append(f"FineTune {again.fine_tune} was asked for a new run at {again.at}")
    elif status.waiting:
        parts.append(f"No retrain: {status.waiting}")
    if drifted:
        name = baseline_name(resource, status.revision)
        parts.append(
            f"What is asked, or answered, is not what it was when revision {status.revision} became stable: train on what "
            f"comes now, or, if that is as it should be, delete the ConfigMap {name} to have a new baseline"
        )
    if "Bounds" in kinds:
        parts.append("status.monitoring names bottlenecks; give the servers more, or change spec.monitoring.bounds")
    return false(C.WITHIN_BOUNDS, "Drifted" if drifted else "BoundExceeded", f"{'. '.join(parts)}.")
