"""What the conditions, phases and times of all batch kinds have in common, as a FineTune shows it."""

from typing import Any

import pytest

from slmops.api.conditions import ConditionType
from slmops.api.finetune import FineTune
from slmops.contract import Progress
from slmops.state import Observed, Plan, Problem
from slmops.status.finetune import finetune_status
from tests.unit.builders import (
    COMPLETE,
    FAILED,
    LATER,
    NOW,
    RUNNING,
    body,
    condition,
    done,
    ended,
    facts,
    failure,
    finetune,
    reference,
    report,
    said,
    together,
    told,
    waiting,
)
from tests.unit.status.finetunes import GATE, MEASURED, plan_of, seen, status_of

# --- failures


@pytest.mark.parametrize(
    ("conditions", "state", "reason", "words"),
    [
        ([FAILED], ended(3, failure("InvalidData", "train.jsonl line 17")), "InvalidData", "line 17. Mend the named"),
        ([FAILED], ended(137, reason="OOMKilled"), "OutOfMemory", "spec.run.resources.limits.memory"),
        ([FAILED], ended(139), "ContainerFailed", "code 139 and left no report. Look at the pod's log"),
        ([condition("Failed", "DeadlineExceeded")], ended(1), "DeadlineExceeded", "Raise spec.run.deadline"),
        ([COMPLETE], ended(0, "done"), "ReportMissing", "slmops.dev/retry"),
        ([], waiting("ErrImagePull", "not found"), "ImageUnavailable", "cannot be pulled: not found. Push the image"),
    ],
)
def test_a_failure_is_told_with_cause_and_remedy(conditions: list[Any], state: Any, reason: str, words: str) -> None:
    status = status_of(finetune(), seen(finetune(), *conditions, state=state))
    assert status.phase == "Failed"
    assert facts(status)["Trained"] == facts(status)["Succeeded"] == ("False", reason)
    assert words in told(status, "Succeeded")
    assert status.artifact is None


def test_an_attempt_that_failed_with_retries_left_is_told_and_is_no_failure() -> None:
    status = status_of(finetune(), seen(finetune(), state=ended(1, failure("DiskFull", "full"))))
    assert status.phase == "Training"
    assert facts(status)["Succeeded"] == ("Unknown", "Running")
    assert "attempt 1 failed (DiskFull: full)" in told(status, "Trained")


def test_a_queued_job_is_queued() -> None:
    status = status_of(finetune(), seen(finetune(), suspend=True))
    assert status.phase == "Queued"
    assert facts(status)["Trained"] == ("Unknown", "Queued")


def test_a_problem_that_may_pass_is_unknown_and_one_that_will_not_is_false() -> None:
    resource = finetune({"base": {"fineTune": {"name": "before"}}})
    status = status_of(resource)
    assert facts(status)["InputsResolved"] == facts(status)["Succeeded"] == ("Unknown", "ReferenceNotFound")
    assert status.phase == "Pending"
    nothing = together(Observed(), references=[reference("FineTune", "before", {"artifact": None})])
    status = status_of(resource, nothing)
    assert facts(status)["InputsResolved"] == facts(status)["Succeeded"] == ("False", "NothingToUse")
    assert status.phase == "Failed"


def test_what_the_api_server_refused_is_not_accepted() -> None:
    refused = Plan(problem=Problem(ConditionType.ACCEPTED, "ChildRefused", "quota"))
    status = finetune_status(finetune(), Observed(), refused, NOW)
    assert facts(status)["Accepted"] == facts(status)["Succeeded"] == ("False", "ChildRefused")
    assert facts(status)["InputsResolved"] == ("Unknown", "NotAccepted")


# --- what pods say of themselves


@pytest.mark.parametrize("stage", ["Succeeded", "Failed"])
def test_a_pod_cannot_pass_for_the_end_of_the_whole(stage: str) -> None:
    status = status_of(finetune(), seen(finetune(), state=RUNNING, progress=Progress(stage=stage)))
    assert status.phase == "Training"
    assert facts(status)["Succeeded"][0] == "Unknown"


@pytest.mark.parametrize(
    ("step", "of", "percent"),
    [(0, 0, None), (5, 0, None), (0, 9, 0), (5, 9, 55), (9, 9, 100), (99, 9, 100), (2**53 - 1, 1, 100)],
)
def test_the_share_that_is_done_stays_within_a_hundred(step: int, of: int, percent: int | None) -> None:
    said_now = Progress(stage="Training", step=step, of=of)
    status = status_of(finetune(), seen(finetune(), state=RUNNING, progress=said_now))
    assert status.progress is not None
    assert status.progress.percent == percent


def test_words_of_a_pod_are_bounded_in_conditions() -> None:
    state = ended(1, failure("InternalError", "x" * 1024))
    status = status_of(finetune(), seen(finetune(), FAILED, state=state))
    assert all(len(c.message) <= 2048 for c in status.conditions)
    assert told(status, "Trained").startswith("xxx")


# --- times and generations


def test_a_condition_keeps_its_time_until_its_status_flips() -> None:
    first = status_of(finetune(), seen(finetune(), state=RUNNING))
    again = finetune(status=first.dump())
    failed = status_of(again, seen(finetune(), FAILED, state=ended(1, failure("DiskFull"))), LATER)
    times = {c.type: c.last_transition_time for c in failed.conditions}
    assert times["Accepted"] == times["Evaluated"] == "2026-03-01T12:00:00Z"
    assert times["Trained"] == times["Succeeded"] == "2026-03-01T13:00:00Z"


def test_a_reason_that_changes_without_a_flip_moves_no_time() -> None:
    first = status_of(finetune())
    second = status_of(finetune(status=first.dump()), seen(finetune(), state=RUNNING), LATER)
    assert facts(first)["Trained"] != facts(second)["Trained"]
    assert {c.last_transition_time for c in second.conditions} == {"2026-03-01T12:00:00Z"}


def test_every_condition_is_of_the_generation_that_it_was_computed_from() -> None:
    old = status_of(finetune(), done(plan_of(finetune()), report("model")))
    changed = body("FineTune", {"lora": {"rank": 2}}, status=old.dump(), metadata={"generation": 2})
    status = status_of(FineTune.model_validate(changed), done(plan_of(finetune()), report("model")), LATER)
    assert status.observed_generation == 2
    assert {c.observed_generation for c in status.conditions} == {2}
    assert facts(status)["Succeeded"] == ("Unknown", "Pending")
    assert status.artifact is None


def test_what_others_wrote_into_the_status_is_not_kept() -> None:
    spoiled = {
        "phase": "Succeeded",
        "artifact": {"reference": "elsewhere@sha256:0", "size": "1"},
        "conditions": [{"type": "Succeeded", "status": "True", "reason": "Trust", "observedGeneration": 9,
                        "lastTransitionTime": "yesterday"},
                       {"type": "Foreign", "status": "True", "reason": "X", "observedGeneration": 1,
                        "lastTransitionTime": ""}],
    }  # fmt: skip
    status = status_of(finetune(status=spoiled))
    assert status.phase == "Pending"
    assert status.artifact is None
    assert facts(status)["Succeeded"] == ("Unknown", "Pending")
    assert "Foreign" not in facts(status)


def test_the_same_pass_later_changes_nothing() -> None:
    for observed in (Observed(), seen(finetune(), state=RUNNING), done(plan_of(finetune()), report("model"))):
        first = status_of(finetune(), observed)
        assert status_of(finetune(status=first.dump()), observed, LATER).dump() == first.dump()


def test_a_report_that_is_only_in_the_annotation_gives_the_same_status() -> None:
    observed = done(plan_of(finetune(GATE)), report("model", evaluation=MEASURED))
    with_pods = status_of(finetune(GATE), observed)
    observed.children[1]["metadata"]["annotations"] = {"slmops.dev/report": said(report("model", evaluation=MEASURED))}
    assert status_of(finetune(GATE), Observed(children=observed.children)) == with_pods
