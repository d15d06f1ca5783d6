"""A budget: what a run is told of it, and what becomes of Jobs when it is used up."""

from datetime import datetime, timedelta
from typing import Any

from slmops.api.finetune import FineTune
from slmops.contract import Budget
from slmops.kinds import KINDS
from slmops.state import ANNOTATION_RETRY, Manifest, Observed, Plan
from tests.unit.builders import (
    COMPLETE,
    DATA,
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
    report,
    said,
    told,
)

GPU = {"resources": {"limits": {"nvidia.com/gpu": 1}}}
VOLUME = {"volume": {"size": "1Gi"}}
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
    words = told(status, "Trained")
    assert "1.028 GPU hours are used, spec.budget.gpuHours allows 1" in words
    assert "Raise spec.budget.gpuHours" in words


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


def test_a_job_that_is_tried_again_is_told_what_is_left_then() -> None:
    observed = refused(tuned(ONE_HOUR))
    metadata = {"annotations": {ANNOTATION_RETRY: "1"}}
    assert kinds(planned(tuned(ONE_HOUR, gone=900, metadata=metadata), observed).remove) == ["ConfigMap", "Job"]
    plain = planned(tuned(metadata=metadata), refused(tuned()))
    assert kinds(plain.remove) == ["Job"], "where nothing is bounded the configuration is what it was"


ADAPTERS = [{"name": name, "data": {"train": DATA}} for name in ("irrigation", "greenhouse")]


def skills(budget: dict[str, Any] | None, gone: int = 0, parallelism: int = 2) -> FineTune:
    """A FineTune of two adapters on a GPU each, with a volume."""
    cost = {"gpuHours": gone / 3600, "nodeHours": gone / 3600, "gone": {"gpuSeconds": gone, "podSeconds": gone}}
    return finetune({"data": None, "adapters": ADAPTERS, "parallelism": parallelism, "run": GPU | VOLUME}
                    | ({"budget": budget} if budget else {}), status={"cost": cost} if gone else {})  # fmt: skip


def adapters_running(resource: FineTune, *seconds: float) -> Observed:
    """Its first Jobs made, and a pod of each that runs since then."""
    made = [live(manifest) for manifest in planned(resource).apply]
    pods = []
    for job, since in zip((m for m in made if m["kind"] == "Job"), seconds, strict=True):
        begun = (NOW - timedelta(seconds=since)).strftime("%Y-%m-%dT%H:%M:%SZ")
        pods.append(pod(job, 0, RUNNING, startTime=begun))
        pods[-1]["metadata"]["creationTimestamp"] = begun
    return Observed(children=tuple(made), pods=tuple(pods))


def test_several_adapters_are_held_against_the_bound_together_and_each_that_is_stopped_is_named() -> None:
    resource = skills(ONE_HOUR)
    assert planned(resource, adapters_running(resource, 1700, 1800)).halted == {}
    observed = adapters_running(resource, 1800, 1900)
    plan = planned(resource, observed)
    assert kinds(plan.remove) == ["ConfigMap", "ConfigMap", "Job", "Job"], "what they have learned stays"
    status = KINDS["FineTune"].status(resource, observed, plan, NOW)
    words = told(status, "Succeeded")
    assert words.startswith("irrigation, greenhouse: 1.028 GPU hours are used, spec.budget.gpuHours allows 1. Raise")
    assert [row.phase for row in status.adapters] == ["Failed", "Failed"]


def test_one_that_has_ended_keeps_its_end_when_the_other_is_stopped() -> None:
    resource = skills(ONE_HOUR)
    observed = adapters_running(resource, 1800, 1900)
    first = next(child for child in observed.children if child["kind"] == "Job")
    first["status"] = {"conditions": [COMPLETE]}
    over = ended(0, said(report("adapter", "layer")))
    over["terminated"]["finishedAt"] = NOW.strftime("%Y-%m-%dT%H:%M:%SZ")
    observed.pods[0]["status"] |= {"phase": "Succeeded", "containerStatuses": [{"name": "run", "state": over}]}
    plan = planned(resource, observed)
    status = KINDS["FineTune"].status(resource, observed, plan, NOW)
    assert [row.phase for row in status.adapters] == ["Ready", "Failed"]
    assert told(status, "Succeeded").startswith("greenhouse: 1.028 GPU hours are used")
    assert {child["metadata"]["labels"]["slmops.dev/role"] for child in plan.remove if child["kind"] == "Job"} == {
        "train-greenhouse"
    }


def test_what_all_that_were_stopped_have_learned_waits_for_a_higher_bound() -> None:
    """Also of those whose turn comes later then."""
    both = skills(ONE_HOUR)
    claims = tuple(live(manifest) for manifest in planned(both).apply if manifest["kind"] == "PersistentVolumeClaim")
    assert len(claims) == 2
    stopped = skills(ONE_HOUR, gone=3700, parallelism=1)
    plan = planned(stopped, Observed(children=claims))
    assert (plan.remove, [step.role for step in plan.steps]) == ((), ["train-irrigation"])
    again = planned(skills({"gpuHours": 2}, gone=3700, parallelism=1), Observed(children=claims))
    assert again.remove == ()
    assert kinds(again.apply) == ["ConfigMap", "Job"]


def test_what_is_finished_is_left_alone_however_much_it_cost() -> None:
    resource = tuned(ONE_HOUR, gone=99999)
    observed = refused(tuned(ONE_HOUR))
    assert planned(resource, observed).remove == ()
