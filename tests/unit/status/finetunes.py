"""Statuses of a FineTune, whose Job and pods are in this state or that."""

from datetime import datetime
from typing import Any

from slmops.api.finetune import FineTune, FineTuneStatus
from slmops.contract import Progress
from slmops.plan.finetune import plan_finetune
from slmops.state import Observed, Plan
from slmops.status.finetune import finetune_status
from tests.unit.builders import NOW, SETTINGS, figures, live, pod

GATE = {"gates": [{"metric": "ExactMatch", "min": "80%"}]}
MEASURED = {"model": figures(0.9), "baseline": figures(0.6)}


def status_of(resource: FineTune, observed: Observed | None = None, now: datetime = NOW) -> FineTuneStatus:
    """The status of a pass over it."""
    observed = observed or Observed()
    return finetune_status(resource, observed, plan_finetune(resource, observed, SETTINGS), now)


def plan_of(resource: FineTune) -> Plan:
    """The plan while nothing of it was done."""
    return plan_finetune(resource, Observed(), SETTINGS)


def seen(
    resource: FineTune, *conditions: Any, state: Any = None, progress: Progress | None = None, **spec: Any
) -> Observed:
    """Its Job and one pod in that state."""
    config_map, job = plan_of(resource).apply
    made = live(job, *conditions)
    made["spec"] |= spec
    mine = pod(made, state=state)
    said_by = {mine["metadata"]["uid"]: progress} if progress else {}
    return Observed(children=(live(config_map), made), pods=(mine,) if state else (), progress=said_by)
