"""Budgets: what a run is told when it begins, and Jobs that are not let run any longer.

The run itself stops before its long part when its measured pace would pass the bound (slmkit.budget). Here what is spent
already is held against it, over all Jobs and attempts: Jobs are removed, which tells their pods to stop, and come again
under the same name when the bound is raised.
"""

from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from slmops import contract
from slmops.api.budget import Budget
from slmops.api.resource import Resource
from slmops.cost import HOUR, Used, attempts, budget_of, exceeded, remembered, used
from slmops.state import ANNOTATION_BUDGET, Manifest, Observed, Plan, digest8


def left(resource: Resource[Any, Any], gpus: int, pods: int = 1) -> contract.Budget | None:
    """What a new Job of so many pods, each with so many GPUs, may still spend."""
    budget = budget_of(resource)
    if budget is None or (budget.gpu_hours is None and budget.max is None):
        return None
    before = remembered(resource.status.cost)
    spent = Used(before.gpu_hours * HOUR, before.node_hours * HOUR)
    price = budget.price
    bound = None if budget.max is None else Decimal(str(budget.max)) - spent.amount(price)
    return contract.Budget(
        gpus=gpus * pods,
        gpu_hours=None if budget.gpu_hours is None else max(0.0, float(budget.gpu_hours) - spent.gpu_seconds / HOUR),
        hourly=float(price.hourly(gpus) * pods) if price else 0.0,
        cost=None if bound is None else max(0.0, float(bound)),
        currency=price.currency if price else "",
    )


def mark(resource: Resource[Any, Any]) -> dict[str, str]:
    """The annotation that tells a Job's budget from a later one."""
    budget = budget_of(resource)
    return {} if budget is None else {ANNOTATION_BUDGET: _hash(budget)}


def within_budget(resource: Resource[Any, Any], plan: Plan, observed: Observed, now: datetime) -> Plan:
    """The plan, less what the budget does not allow."""
    budget = budget_of(resource)
    if budget is None:
        return plan
    spent = used(attempts(resource.status.cost, observed, now), now)
    why = exceeded(budget, spent)
    if why:
        stopped = {step.name: why for step in plan.steps if not observed.job(step.name).finished}
        return _without(replace(plan, halted=stopped, deadline=None), observed, set(stopped))
    again = {step.name for step in plan.steps if _refused_under_another(observed, step.name, budget)}
    return _without(plan, observed, again)


def _without(plan: Plan, observed: Observed, names: set[str]) -> Plan:
    """The plan without these Jobs and their configuration, which says what may be spent."""

    def among(manifest: Manifest) -> bool:
        return manifest["kind"] in ("Job", "ConfigMap") and manifest["metadata"]["name"] in names

    if not names:
        return plan
    return replace(
        plan,
        apply=tuple(manifest for manifest in plan.apply if not among(manifest)),
        annotate=tuple((live, values) for live, values in plan.annotate if not among(live)),
        remove=(*(m for m in plan.remove if not among(m)), *(child for child in observed.children if among(child))),
    )


def _refused_under_another(observed: Observed, name: str, budget: Budget) -> bool:
    """Whether a Job ended because of a budget that has changed since."""
    state, job = observed.job(name), observed.child("Job", name)
    if job is None or state.phase != "Failed" or state.reason != contract.Reason.BUDGET_EXCEEDED:
        return False
    return (job["metadata"].get("annotations") or {}).get(ANNOTATION_BUDGET) != _hash(budget)


def _hash(budget: Budget) -> str:
    return digest8(budget.model_dump(mode="json", exclude_none=True))
