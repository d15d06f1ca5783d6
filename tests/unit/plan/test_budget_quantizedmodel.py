"""The budget of a QuantizedModel: over the Jobs of all variants, those of precisions that were not good enough too."""

from datetime import datetime, timedelta
from typing import Any

from slmops.api.quantizedmodel import QuantizedModel, QuantizedModelStatus
from slmops.contract import Budget
from slmops.kinds import KINDS
from slmops.state import Manifest, Observed, Plan
from tests.unit.builders import (
    COMPLETE,
    DATA,
    NOW,
    RUNNING,
    SETTINGS,
    configuration,
    ended,
    facts,
    figures,
    jobs,
    live,
    pod,
    quantizedmodel,
    report,
    said,
    told,
)

GPU = {"resources": {"limits": {"nvidia.com/gpu": 2}}}
PRICE = {"perGpuHour": "2.00", "perNodeHour": "1.00", "currency": "EUR"}
LADDER = {
    "variants": [{"name": "small"}], "fallback": ["INT8"], "evaluation": {"data": DATA}, "run": GPU,
    "gates": [{"metric": "AccuracyRetained", "min": "95%"}],
}  # fmt: skip


def ladder(**budget: Any) -> QuantizedModel:
    return quantizedmodel(LADDER | {"budget": budget} if budget else LADDER)


def planned(resource: QuantizedModel, observed: Observed, now: datetime = NOW) -> Plan:
    return KINDS["QuantizedModel"].plan(resource, observed, SETTINGS, now)


def status_of(resource: QuantizedModel, observed: Observed) -> QuantizedModelStatus:
    plan = planned(resource, observed)
    status = KINDS["QuantizedModel"].status(resource, observed, plan, NOW)
    assert isinstance(status, QuantizedModelStatus)
    return status


def took(job: Manifest, began: int, lasted: int | None, state: Manifest) -> Manifest:
    """A pod that a node took so many seconds ago."""
    stamp = lambda ago: (NOW - timedelta(seconds=ago)).strftime("%Y-%m-%dT%H:%M:%SZ")  # noqa: E731
    one = pod(job, state=state, startTime=stamp(began))
    one["metadata"]["creationTimestamp"] = stamp(began)
    if lasted is not None:
        state["terminated"]["finishedAt"] = stamp(began - lasted)
    return one


def second_rung(resource: QuantizedModel, first: int, second: int) -> Observed:
    """INT4 was not good enough after so many seconds, and INT8 has run for so many."""
    made = [live(m, *([COMPLETE] if m["kind"] == "Job" else [])) for m in planned(resource, Observed()).apply]
    job = next(m for m in made if m["kind"] == "Job")
    bad = report("image", evaluation={"model": figures(0.5), "reference": figures(0.9)})
    observed = Observed(children=tuple(made), pods=(took(job, first + second, first, ended(0, said(bad))),))
    more = [live(manifest) for manifest in planned(resource, observed).apply]
    other = next(m for m in more if m["kind"] == "Job")
    return Observed(children=(*observed.children, *more), pods=(*observed.pods, took(other, second, None, RUNNING)))


def test_every_job_counts_also_those_that_were_not_good_enough() -> None:
    resource = ladder(price=PRICE)
    cost = status_of(resource, second_rung(resource, 3600, 1800)).cost
    assert cost is not None
    assert (cost.gpu_hours, cost.node_hours) == (3.0, 1.5)
    assert (cost.amount, cost.currency) == ("7.50", "EUR")
    plain = ladder()
    free = status_of(plain, second_rung(plain, 3600, 1800)).cost
    assert free is not None
    assert (free.gpu_hours, free.amount) == (3.0, None), "hours are told without a price too"


def test_a_job_is_told_what_is_left_of_the_budget_and_a_budget_is_no_other_work() -> None:
    resource = ladder(gpuHours=4)
    plan = planned(resource, Observed())
    assert Budget.model_validate(configuration(plan)["budget"]).gpu_hours == 4
    assert [step.name for step in plan.steps] == [step.name for step in planned(ladder(), Observed()).steps]
    observed = second_rung(resource, 3600, 0)
    status = resource.status.model_copy(update={"cost": status_of(resource, observed).cost})
    later = resource.model_copy(update={"status": status})
    first = Observed(children=observed.children[:2], pods=observed.pods[:1])
    left = configuration(planned(later, first))["budget"]["gpu_hours"]
    assert left == 2, "two GPUs for an hour are spent on what was not good enough"


def test_beyond_the_budget_the_variant_is_stopped_and_says_so() -> None:
    resource = ladder(gpuHours=3)
    observed = second_rung(resource, 3600, 3000)
    plan = planned(resource, observed)
    assert sorted(manifest["kind"] for manifest in plan.remove) == ["ConfigMap", "Job"]
    assert jobs(plan) == []
    status = status_of(resource, observed)
    (variant,) = status.variants
    assert (variant.phase, variant.precision, [tried.precision for tried in variant.tried]) == (
        "Failed",
        "INT8",
        ["INT4"],
    )
    assert facts(status)["Quantized"] == facts(status)["Succeeded"] == ("False", "BudgetExceeded")
    assert "3.667 GPU hours are used, spec.budget.gpuHours allows 3" in told(status, "Quantized")
    raised = ladder(gpuHours=9)
    assert planned(raised, observed).halted == {}
