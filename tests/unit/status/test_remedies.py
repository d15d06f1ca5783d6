"""A message without a remedy is half a message: every way to fail says what to do."""

import re

import pytest

from slmops.api.distillation import Distillation
from slmops.api.finetune import FineTune
from slmops.api.quantizedmodel import QuantizedModel
from slmops.contract import Reason
from slmops.state import JobState, job_state
from slmops.status.remedies import REMEDIES, with_remedy
from tests.unit.api.test_crd import SCHEMAS, at
from tests.unit.builders import COMPLETE, FAILED, condition, ended, job, pod, waiting

KINDS = (Distillation, FineTune, QuantizedModel)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_of_a_report_has_a_remedy(reason: Reason) -> None:
    assert with_remedy(reason, "it broke").startswith("it broke. ")
    assert len(REMEDIES[reason]) > 20


@pytest.mark.parametrize(
    "state",
    [
        job_state(job(FAILED), [], {}),
        job_state(job(FAILED), [pod(job(), state=ended(139))], {}),
        job_state(job(FAILED), [pod(job(), state=ended(137, reason="OOMKilled"))], {}),
        job_state(job(FAILED), [pod(job(), state=ended(1, '{"outcome": "Failed"}'))], {}),
        job_state(job(condition("Failed", "DeadlineExceeded")), [], {}),
        job_state(job(COMPLETE), [], {}),
        job_state(job(), [pod(job(), state=waiting("ErrImagePull"))], {}),
    ],
    ids=lambda state: state.reason,
)
def test_every_other_way_that_a_job_fails_has_a_remedy_too(state: JobState) -> None:
    assert state.failing
    assert state.reason in REMEDIES


@pytest.mark.parametrize("reason", REMEDIES)
def test_a_remedy_names_only_fields_that_some_kind_has(reason: str) -> None:
    for path in re.findall(r"\bspec((?:\.[A-Za-z]+)+)", REMEDIES[reason]):
        assert any(at(SCHEMAS[kind.kind()]["properties"]["spec"], path) is not None for kind in KINDS), path


@pytest.mark.parametrize(
    "reason",
    [
        Reason.INVALID_CONFIGURATION, Reason.SOURCE_UNREACHABLE, Reason.SOURCE_NOT_FOUND, Reason.SOURCE_UNAUTHORIZED,
        Reason.TEACHER_UNREACHABLE, Reason.TOO_FEW_ANSWERS, Reason.REGISTRY_REFUSED, Reason.REGISTRY_UNREACHABLE,
        Reason.TERMINATED, Reason.INVALID_DATA, "DeadlineExceeded", "ContainerFailed", "JobFailed", "ReportMissing",
    ],
)  # fmt: skip
def test_what_can_be_mended_outside_of_the_spec_tells_how_to_try_again(reason: str) -> None:
    """Nothing starts a Job again by itself when its name, a hash over the spec, stays the same."""
    assert "slmops.dev/retry" in REMEDIES[reason]


def test_nobody_is_told_to_pay_a_teacher_twice() -> None:
    """What is tried again without a volume asks for all answers again."""
    remedy = REMEDIES[Reason.TOO_FEW_ANSWERS]
    assert remedy.index("spec.run.volume") < remedy.index("pays for all prompts")


@pytest.mark.parametrize(
    ("reason", "message", "expected"),
    [
        ("Unheard", "it broke", "it broke"),
        ("Unheard", "", ""),
        (Reason.TRAINING_DIVERGED, "", "Lower spec.training.learningRate, or raise warmupRatio."),
        (Reason.TRAINING_DIVERGED, "no.", "no. Lower spec.training.learningRate, or raise warmupRatio."),
    ],
)
def test_message_and_remedy_are_two_sentences(reason: str, message: str, expected: str) -> None:
    assert with_remedy(reason, message) == expected
