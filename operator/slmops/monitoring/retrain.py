"""Whether a breach leads to a retrain now. One for each breach, not sooner than is allowed, and never into a rollout or a
run that is under way: so what a retrain brings about, a rollout and a new baseline, cannot bring about the next by itself.

What is remembered is on the FineTune, in its annotation and its status: it outlives the operator and this EdgeDeployment's
status, and holds for all that name the FineTune.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from slmops.api.base import seconds
from slmops.api.conditions import moment
from slmops.api.edgedeployment import EdgeDeployment
from slmops.api.monitoring import MonitoredPoolStatus, Retrain
from slmops.monitoring.watch import kind
from slmops.retraining import Trace, last, trace, word
from slmops.rollout.rollout import Rollout
from slmops.state import Manifest

MANAGER = "slmops-monitoring"
"""Whose field the annotation is."""
LEAST_SECONDS = 600.0
"""What the schema asks of minInterval, for a spec that is older than that."""


def leading(pools: Sequence[MonitoredPoolStatus], wanted: Retrain) -> str:
    """The breaches that lead to a retrain, in words; empty where there is none."""
    return "; ".join(
        f"pool {pool.name}: {breach.what} {breach.value}, max {breach.max}"
        for pool in pools
        for breach in pool.breaches
        if kind(breach.what) in wanted.on
    )


def decide(
    resource: EdgeDeployment, wanted: Retrain, fine_tune: Manifest | None, pools: Sequence[MonitoredPoolStatus],
    rollout: Rollout, now: datetime,
) -> tuple[Trace | None, str | None]:  # fmt: skip
    """The retrain that is to be asked for, or why there is none although there is a breach."""
    name, why = wanted.fine_tune.name, leading(pools, wanted)
    if fine_tune is None:
        missing = f"FineTune {name} does not exist in this namespace"
        return None, f"{missing}: create it, or change spec.monitoring.retrain.fineTune"
    if not why or rollout.stable is None:
        return None, None
    if rollout.candidate is not None or rollout.problem is not None:
        return None, "a rollout is under way"
    before, times = last(fine_tune)
    if answered(resource, name, before, rollout.stable):
        return None, f"FineTune {name} was retrained for it already; another follows when it has ended and begins anew"
    if text := _busy(fine_tune, name):
        return None, text
    own = resource.status.monitoring.retrain if resource.status.monitoring is not None else None
    times += [at for at in [moment(own.at)] if at is not None] if own is not None and own.fine_tune == name else []
    if times and (now - max(times)).total_seconds() < max(LEAST_SECONDS, seconds(wanted.min_interval)):
        return None, f"FineTune {name} was retrained less than {wanted.min_interval} ago (minInterval)"
    return trace(now, resource.metadata.name, rollout.stable, why), None


def answered(resource: EdgeDeployment, name: str, before: Trace | None, stable: str) -> bool:
    """Whether the breach is one that led to a retrain: this EdgeDeployment asked for the last one, the same revision was
    stable, and no end of the breach was seen since. Its own status knows that, or the FineTune where that was lost."""
    own = resource.status.monitoring.retrain if resource.status.monitoring is not None else None
    if own is not None and own.fine_tune == name and own.revision == stable and own.cleared_at is None:
        return True
    if before is None or (before.deployment, before.revision) != (resource.metadata.name, stable):
        return False
    return own is None or own.at != before.at


def _busy(fine_tune: Manifest, name: str) -> str | None:
    """Why the FineTune cannot be asked now."""
    end = succeeded(fine_tune)
    if end.get("status") == "True":
        return None
    if end.get("status") == "False":
        return f"FineTune {name} has failed ({end.get('reason')}): mend that first"
    return f"FineTune {name} is running"


def succeeded(fine_tune: Manifest) -> Mapping[str, Any]:
    """The condition Succeeded of the run that is wanted; empty while its status is of another."""
    status = fine_tune.get("status") or {}
    seen = (status.get("retrain") or {}).get("why") or ""
    current = status.get("observedGeneration") == fine_tune["metadata"].get("generation") and seen == word(fine_tune)
    found: Manifest = next((c for c in status.get("conditions") or [] if c.get("type") == "Succeeded"), {})
    return found if current else {}
