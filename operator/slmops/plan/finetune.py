"""FineTune -> the Jobs of its one training, of each of several adapters, or of a search."""

from slmops.api.finetune import FineTune
from slmops.plan.adaptation import OLIVE, TRAIN, one_training, signed_training
from slmops.plan.adapters import plan_adapters
from slmops.plan.batch import batch_plan
from slmops.plan.job import Work
from slmops.plan.search import plan_search
from slmops.plan.sources import Unresolved
from slmops.settings import Settings
from slmops.state import Observed, Plan


def plan_finetune(resource: FineTune, observed: Observed, settings: Settings) -> Plan:
    """The Jobs that the FineTune needs now."""
    if resource.spec.adapters is not None:
        return plan_adapters(resource, resource.spec.adapters, observed, settings)
    if resource.spec.search is not None:
        return plan_search(resource, resource.spec.search, observed, settings)
    works: list[Work] = []
    try:
        works += one_training(resource, resource.spec, observed, settings, (TRAIN, OLIVE))
        works += signed_training(resource, works, observed, settings)
    except Unresolved as unresolved:
        return batch_plan(resource, observed, works, unresolved.problem)
    return batch_plan(resource, observed, works)
