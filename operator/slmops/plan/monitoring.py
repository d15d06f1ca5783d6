"""EdgeDeployment with monitoring -> the ConfigMap of its baselines, and the retrain that a breach leads to."""

from dataclasses import replace
from datetime import datetime

from slmops.api.edgedeployment import EdgeDeployment
from slmops.monitoring.baseline import baseline_name, config_map
from slmops.monitoring.retrain import decide
from slmops.monitoring.watch import watched
from slmops.rollout.rollout import Rollout
from slmops.state import Manifest, Observed, Plan


def with_monitoring(plan: Plan, resource: EdgeDeployment, observed: Observed, rollout: Rollout, now: datetime) -> Plan:
    """The plan, with what the figures of the servers lead to."""
    spec = resource.spec.monitoring
    if spec is None:
        return plan
    deadline = min(spec.interval_seconds, plan.deadline or spec.interval_seconds)
    found = watched(resource, observed, spec, now)
    if found is None or found.revision != rollout.stays:  # the next pass knows of the revision that is stable now
        return replace(plan, deadline=deadline)
    again = None
    if spec.retrain is not None:
        fine_tune = observed.references.get(("FineTune", spec.retrain.fine_tune.name))
        wanted, waiting = decide(resource, spec.retrain, fine_tune, found.pools, rollout, now)
        found = replace(found, waiting=waiting)
        again = (fine_tune, wanted) if fine_tune is not None and wanted is not None else None
    made = (config_map(resource, found.revision, found.baselines),) if found.baselines else ()
    return replace(plan, apply=(*plan.apply, *made), retrain=again, watched=found, deadline=deadline)


def kept(resource: EdgeDeployment, rollout: Rollout, child: Manifest) -> bool:
    """Whether a child is the baseline of the revision that is stable."""
    spec, stays = resource.spec.monitoring, rollout.stays
    wanted = spec is not None and spec.drift is not None and stays is not None
    return wanted and child["metadata"]["name"] == baseline_name(resource, str(stays))
