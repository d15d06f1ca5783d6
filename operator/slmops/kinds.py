"""The four kinds, one line each: model, plan, status. A new kind is one file per column and one line here."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from slmops.api.base import GROUP, ApiModel
from slmops.api.batch import BatchStatus
from slmops.api.distillation import Distillation
from slmops.api.edgedeployment import EdgeDeployment
from slmops.api.finetune import FineTune
from slmops.api.quantizedmodel import QuantizedModel
from slmops.api.resource import Resource
from slmops.cost import budget_of, cost
from slmops.plan.budget import within_budget
from slmops.plan.distillation import plan_distillation
from slmops.plan.edgedeployment import plan_edgedeployment
from slmops.plan.finetune import plan_finetune
from slmops.plan.quantizedmodel import plan_quantizedmodel
from slmops.settings import Settings
from slmops.state import Manifest, Observed, Plan
from slmops.status.distillation import distillation_status
from slmops.status.edgedeployment import edgedeployment_status
from slmops.status.finetune import finetune_status
from slmops.status.quantizedmodel import quantizedmodel_status

PlanFunction = Callable[[Any, Observed, Settings, datetime], Plan]
StatusFunction = Callable[[Any, Observed, Plan, datetime], ApiModel]


@dataclass(frozen=True)
class Kind:
    """What a reconcile needs to know of a kind."""

    model: type[Resource[Any, Any]]
    plan: PlanFunction
    status: StatusFunction
    reads_nodes: bool = False


def _batch(
    model: type[Resource[Any, Any]],
    plan: Callable[[Any, Observed, Settings], Plan],
    status: Callable[[Any, Observed, Plan, datetime], BatchStatus],
) -> Kind:
    """A kind whose work is Jobs that end. What all of them have cost is counted here, and held against the budget."""

    def planned(resource: Any, observed: Observed, settings: Settings, now: datetime) -> Plan:
        return within_budget(resource, plan(resource, observed, settings), observed, now)

    def stated(resource: Any, observed: Observed, plan: Plan, now: datetime) -> ApiModel:
        budget = budget_of(resource)
        spent = cost(resource.status.cost, observed, budget.price if budget else None, now)
        told = status(resource, replace(observed, halted=plan.halted), plan, now)
        return told.model_copy(update={"cost": spent})

    return Kind(model, planned, stated)


KINDS: dict[str, Kind] = {
    "Distillation": _batch(Distillation, plan_distillation, distillation_status),
    "FineTune": _batch(FineTune, plan_finetune, finetune_status),
    "QuantizedModel": _batch(QuantizedModel, plan_quantizedmodel, quantizedmodel_status),
    "EdgeDeployment": Kind(EdgeDeployment, plan_edgedeployment, edgedeployment_status, reads_nodes=True),
}

REFERENCE_FIELDS = {"distillation": "Distillation", "fineTune": "FineTune", "quantizedModel": "QuantizedModel"}


def refers_to(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """(kind, name) of every resource that a manifest of ours refers to; always in its own namespace."""
    if str(manifest.get("apiVersion", "")).startswith(f"{GROUP}/"):
        yield from _references(manifest.get("spec"))


def _references(node: object) -> Iterable[tuple[str, str]]:
    if isinstance(node, dict):
        for key, value in node.items():
            kind = REFERENCE_FIELDS.get(key)
            if kind and isinstance(value, dict) and isinstance(value.get("name"), str):
                yield kind, value["name"]
            else:
                yield from _references(value)
    elif isinstance(node, list):
        for item in node:
            yield from _references(item)
