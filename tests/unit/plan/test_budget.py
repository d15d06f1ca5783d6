"""A budget: what a run is told of it, and what becomes of Jobs when it is used up."""

from datetime import datetime, timedelta
from typing import Any

from slmops.api.finetune import FineTune
from slmops.contract import Budget
from slmops.kinds import KINDS
from slmops.state import Manifest, Observed, Plan
from tests.unit.builders import (
    FAILED,
    NOW,
    RUNNING,
    SETTINGS,
    configuration,
    ended,
    facts,
    failure,
    finetune,
    jobs,
    live,
    pod,
    told,
)

GPU = {"resources": {"limits": {"nvidia.com/gpu": 1}}}
ONE_HOUR = {"gpuHours": 1}
PRICED = {"price": {"perGpuHour": "2.50", "currency": "EUR"}, "max": 5}


def tuned(budget: dict[str, Any] | None = None, gone: int = 0, **fields: Any) -> FineTune:
    """A FineTune on one GPU that has used so many GPU seconds before."""
    cost = {"gpuHours": gone / 3600, "nodeHours": gone / 3600, "gone": {"gpuSeconds": gone, "podSeconds": gone}}
    status = {"status": {"cost": cost}} if gone else {}
    return finetune({"run": GPU} | ({"budget": budget} if budget else {}), **status, **fields)


def planned(resource: FineTune, observed: Observed | None = None, now: datetime = NOW) -> Plan:
    return KINDS["FineTune"].plan(resource, observed or Observed(), SETTINGS, now)


def running(resource: FineTune, seconds: float) -> Observed:
    """Its Job made, and a pod that runs since then."""
    made = [live(manifest) for manifest in planned(resource).apply]
    begun = (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    job = next(m for m in made if m["kind"] == "Job")
    one = pod(job, 0, RUNNING, startTime=begun)
    one["metadata"]["creationTimestamp"] = begun
    return Observed(children=tuple(made), pods=(one,))


def kinds(manifests: tuple[Manifest, ...]) -> list[str]:
    return sorted(manifest["kind"] for manifest in manifests)


def test_a_run_without_a_budget_is_told_of_none() -> None:
    assert configuration(planned(tuned()))["budget"] is None
    accounted = {"price": {"perNodeHour": 1, "currency": "EUR"}}
    assert configuration(planned(tuned(accounted)))["budget"] is None, "a price alone bounds nothing"


def test_a_run_is_told_what_is_left_when_it_begins() -> None:
    left = Budget.model_validate(configuration(planned(tuned(ONE_HOUR, gone=900)))["budget"])
    assert (left.gpus, left.gpu_hours, left.cost) == (1, 0.75, None)
    left = Budget.model_validate(configuration(planned(tuned(PRICED, gone=3600)))["budget"])
    assert (left.hourly, left.cost, left.currency) == (2.5, 2.5, "EUR")


def test_another_budget_is_no_other_work() -> None:
    names = {planned(tuned(budget)).steps[0].name for budget in (None, ONE_HOUR, PRICED)}
    assert len(names) == 1


def test_within_the_budget_a_job_is_let_run() -> None:
    resource = tuned(ONE_HOUR)
    plan = planned(resource, running(resource, 3599))
    assert (plan.remove, plan.halted) == ((), {})


def test_beyond_the_budget_the_job_is_stopped_and_the_status_says_so() -> None:
    resource = tuned(ONE_HOUR)
    observed = running(resource, 3700)
    plan = planned(resource, observed)
    assert kinds(plan.remove) == ["ConfigMap", "Job"], "its configuration goes too: it says what was left"
    assert plan.deadline is None
    status = KINDS["FineTune"].status(resource, observed, plan, NOW)
    assert facts(status)["Trained"] == facts(status)["Succeeded"] == ("False", "BudgetExceeded")
    said = told(status, "Trained")
    assert "1.028 GPU hours are used, spec.budget.gpuHours allows 1" in said
    assert "Raise spec.budget.gpuHours" in said


def test_a_stopped_job_stays_away_until_the_bound_is_raised() -> None:
    assert planned(tuned(ONE_HOUR, gone=3700)).apply == ()
    assert kinds(planned(tuned({"gpuHours": 2}, gone=3700)).apply) == ["ConfigMap", "Job"]


def test_earlier_attempts_and_jobs_count_too() -> None:
    resource = tuned(PRICED, gone=3600)
    assert planned(resource, running(resource, 3500)).halted == {}
    assert "5.07 EUR are spent" in next(iter(planned(resource, running(resource, 3700)).halted.values()))


def refused(resource: FineTune) -> Observed:
    """Its Job, which ended because its own estimate was beyond the bound."""
    made = [live(manifest, *([FAILED] if manifest["kind"] == "Job" else [])) for manifest in planned(resource).apply]
    job = next(m for m in made if m["kind"] == "Job")
    state = ended(3, failure("BudgetExceeded", "about 9 GPU hours are needed, 1 are left of the budget"))
    return Observed(children=tuple(made), pods=(pod(job, 0, state),))


def test_a_job_that_its_estimate_ended_is_made_again_under_another_budget_only() -> None:
    observed = refused(tuned(ONE_HOUR))
    same = planned(tuned(ONE_HOUR), observed)
    assert (same.remove, same.apply) == ((), ())
    raised = planned(tuned({"gpuHours": 10}), observed)
    assert kinds(raised.remove) == ["ConfigMap", "Job"]
    assert raised.annotate == ()
    fresh = planned(tuned({"gpuHours": 10}))
    assert jobs(fresh)[0]["metadata"]["name"] == next(m["metadata"]["name"] for m in raised.remove)


def test_what_is_finished_is_left_alone_however_much_it_cost() -> None:
    resource = tuned(ONE_HOUR, gone=99999)
    observed = refused(tuned(ONE_HOUR))
    assert planned(resource, observed).remove == ()
