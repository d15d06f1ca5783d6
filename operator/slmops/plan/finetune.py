"""FineTune -> one training Job."""

from slmops.api.finetune import FineTune
from slmops.plan.adaptation import TRAIN, training
from slmops.plan.batch import batch_plan
from slmops.plan.sources import Unresolved
from slmops.settings import Settings
from slmops.state import Observed, Plan


def plan_finetune(resource: FineTune, observed: Observed, settings: Settings) -> Plan:
    """The Job that the FineTune needs."""
    try:
        train = training(resource, TRAIN, resource.spec, observed, settings)
    except Unresolved as unresolved:
        return batch_plan(resource, observed, [], unresolved.problem)
    return batch_plan(resource, observed, [train])
