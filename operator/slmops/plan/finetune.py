"""FineTune -> one training Job; with engine Olive two: Olive learns the adapter, then it is measured and published."""

from slmops import contract
from slmops.api.conditions import ConditionType
from slmops.api.finetune import FineTune
from slmops.plan.adaptation import OLIVE, TRAIN, learning, training
from slmops.plan.batch import batch_plan
from slmops.plan.job import Work
from slmops.plan.sources import Unresolved
from slmops.settings import Settings
from slmops.state import Observed, Plan, Problem


def plan_finetune(resource: FineTune, observed: Observed, settings: Settings) -> Plan:
    """The Jobs that the FineTune needs now."""
    works: list[Work] = []
    try:
        if resource.spec.engine == "PyTorch":
            works.append(training(resource, TRAIN, resource.spec, observed, settings))
        else:
            works.append(learning(resource, OLIVE, resource.spec, observed, settings))
            made = _learned(observed, works[0].step.name)
            if made is not None:
                works.append(training(resource, TRAIN, resource.spec, observed, settings, made))
    except Unresolved as unresolved:
        return batch_plan(resource, observed, works, unresolved.problem)
    return batch_plan(resource, observed, works)


def _learned(observed: Observed, job: str) -> contract.Artifact | None:
    """The adapter, once it is there. Raises Unresolved where an image of another version reports none."""
    state = observed.job(job)
    if state.phase != "Succeeded" or state.report is None:
        return None
    made = state.report.artifacts.get("adapter")
    if made is None:
        text = f"the Job {job} reports success and no adapter; install images of the operator's version, then delete it"
        raise Unresolved(Problem(ConditionType.INPUTS_RESOLVED, "AdapterMissing", text))
    return made
