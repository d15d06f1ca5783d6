"""What a Job has come to, read from Jobs and pods as a cluster shows them."""

import itertools
import json
from typing import Any

import pytest

from slmops.contract import Progress, Reason
from slmops.state import (
    ANNOTATION_REPORT,
    INDEX_LABEL,
    LABEL_QUEUE,
    STARTING,
    Manifest,
    Observed,
    digest8,
    job_state,
    waiting_for,
)
from tests.unit.builders import (
    COMPLETE,
    FAILED,
    RUNNING,
    condition,
    ended,
    failure,
    job,
    live,
    pod,
    report,
    said,
    waiting,
)

GOOD = report("model")
UNSCHEDULED = condition("PodScheduled", "Unschedulable", "0/3 nodes are available:  3 Insufficient cpu.", "False")


def kept(text: str, *conditions: Manifest) -> Manifest:
    """A Job with a report in its annotation."""
    return job(*conditions, annotations={ANNOTATION_REPORT: text})


# --- before it runs ------------------------------------------------------------------------------------------------


def test_a_job_that_does_not_exist_is_absent() -> None:
    assert Observed().job("x").phase == "Absent"


def test_a_job_without_a_pod_is_starting() -> None:
    state = job_state(job(), [], {})
    assert (state.phase, state.message, state.failing) == ("Starting", STARTING, False)


def test_a_job_that_a_queue_holds_back_is_queued_even_when_it_ran_before() -> None:
    held = job(suspend=True)
    for pods in ([], [pod(held, state=ended(143))]):
        assert job_state(held, pods, {}).phase == "Queued"


def test_a_queued_job_names_its_queue_and_where_to_look() -> None:
    held = job(suspend=True)
    held["metadata"]["labels"] = {LABEL_QUEUE: "team-a"}
    said = job_state(held, [], {}).message
    assert "waits in queue team-a" in said
    assert "kubectl get localqueue team-a" in said
    assert "queue" not in job_state(job(suspend=True), [], {}).message, "nobody knows of one"


def test_a_pod_that_no_node_takes_says_why() -> None:
    state = job_state(job(), [pod(job(), conditions=[UNSCHEDULED])], {})
    assert state.phase == "Starting"
    assert state.message == "no node fits: 0/3 nodes are available: 3 Insufficient cpu."


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "ErrImagePull", "InvalidImageName"])
def test_an_image_that_cannot_be_pulled_is_failing_and_not_finished(reason: str) -> None:
    state = job_state(job(), [pod(job(), state=waiting(reason, "manifest\n unknown"))], {})
    assert (state.phase, state.failing, state.finished) == ("Starting", True, False)
    assert state.reason == "ImageUnavailable"
    assert state.message == "image slmops/trainer:0.1.0 cannot be pulled: manifest unknown"


def test_an_image_that_came_after_all_is_no_failure_any_more() -> None:
    state = job_state(job(), [pod(job(), state=RUNNING)], {})
    assert (state.phase, state.failing) == ("Running", False)


@pytest.mark.parametrize("reason", ["CreateContainerConfigError", "CreateContainerError", "RunContainerError"])
def test_a_container_that_cannot_be_made_says_why(reason: str) -> None:
    state = job_state(job(), [pod(job(), state=waiting(reason, 'secret "hub" not found'))], {})
    assert state.message == f'{reason}: secret "hub" not found'


def test_a_pod_that_waits_for_a_volume_tells_where_to_look() -> None:
    assert "a missing volume or Secret" in waiting_for(pod(job(), state=waiting("ContainerCreating")))


def test_words_of_others_are_cut_to_a_line() -> None:
    message = waiting_for(pod(job(), state=waiting("ErrImagePull", "no\n" * 5000)))
    assert len(message) < 500
    assert "\n" not in message


# --- while it runs -------------------------------------------------------------------------------------------------


def test_a_running_pod_shows_its_progress_and_no_other_pods() -> None:
    first, second = pod(job(), 0, ended(1)), pod(job(), 1, RUNNING)
    said_by = {first["metadata"]["uid"]: Progress(stage="Old"), second["metadata"]["uid"]: Progress(stage="Training")}
    state = job_state(job(), [first, second], said_by)
    assert (state.phase, state.attempts) == ("Running", 2)
    assert state.progress == Progress(stage="Training")


def test_a_running_pod_that_does_not_answer_is_running_all_the_same() -> None:
    assert job_state(job(), [pod(job(), state=RUNNING)], {}).progress is None


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (ended(1, failure("SourceUnreachable", "timed out")), "(SourceUnreachable: timed out)"),
        (ended(137, reason="OOMKilled"), "(OutOfMemory: the container was killed"),
        (ended(139), "(exit code 139)"),
        (ended(1, said(GOOD)), "(exit code 1)"),
    ],
)
def test_a_failed_attempt_with_retries_left_is_told_and_is_not_the_end(end: Manifest, why: str) -> None:
    state = job_state(job(), [pod(job(), state=end)], {})
    assert (state.phase, state.finished, state.failing, state.report) == ("Running", False, False, None)
    assert state.ending, "until the next pod is there"
    assert not job_state(job(), [pod(job(), state=end), pod(job(), 1)], {}).ending
    assert state.message.startswith(f"attempt 1 failed {why}")


def test_an_attempt_that_ended_well_before_its_job_says_so_is_no_failure() -> None:
    state = job_state(job(), [pod(job(), state=ended(0, said(GOOD)))], {})
    assert (state.phase, state.message, state.report, state.ending) == ("Running", "", None, True)
    assert not job_state(job(), [pod(job(), state=RUNNING)], {}).ending


def test_a_pod_that_was_evicted_before_it_ran_is_not_the_end() -> None:
    gone = pod(job(), phase="Failed", reason="Evicted", conditions=[condition("DisruptionTarget", "EvictionByKubelet")])
    state = job_state(job(), [gone], {})
    assert (state.phase, state.failing) == ("Starting", False)


def test_an_attempt_after_a_disruption_runs_and_counts_as_one_more() -> None:
    gone = pod(job(), 0, ended(143), conditions=[condition("DisruptionTarget", "TerminationByKubelet")])
    state = job_state(job(), [gone, pod(job(), 1, RUNNING)], {})
    assert (state.phase, state.attempts) == ("Running", 2)


# --- when it ended well --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type", ["Complete", "SuccessCriteriaMet"])
def test_the_report_of_a_job_that_ended_well(type: str) -> None:
    state = job_state(job(condition(type)), [pod(job(), state=ended(0, said(GOOD)))], {})
    assert (state.phase, state.report, state.recorded) == ("Succeeded", GOOD, False)


def test_an_attempt_that_failed_first_does_not_hide_the_report() -> None:
    bad, good = pod(job(), 0, ended(1, failure("DiskFull"))), pod(job(), 1, ended(0, said(GOOD)))
    state = job_state(job(COMPLETE), [bad, good], {})
    assert (state.phase, state.report, state.attempts) == ("Succeeded", GOOD, 2)


def test_a_good_report_of_an_attempt_that_failed_does_not_count() -> None:
    bad, silent = pod(job(), 0, ended(1, said(GOOD))), pod(job(), 1, ended(0))
    assert job_state(job(COMPLETE), [bad, silent], {}).reason == "ReportMissing"


def test_a_report_in_the_annotation_outlives_the_pods() -> None:
    state = job_state(kept(said(GOOD), COMPLETE), [], {})
    assert (state.phase, state.report, state.recorded) == ("Succeeded", GOOD, True)


def test_an_annotation_that_somebody_spoiled_is_written_again_while_the_pod_is_there() -> None:
    state = job_state(kept("oops", COMPLETE), [pod(job(), state=ended(0, said(GOOD)))], {})
    assert (state.phase, state.report, state.recorded) == ("Succeeded", GOOD, False)


@pytest.mark.parametrize(
    "message", ["", "done", "{}", said(GOOD)[:-20], failure("DiskFull"), "x" * 5000, "[" * 4000, '{"outcome": NaN}']
)
def test_a_job_that_ended_well_without_a_good_report_has_failed(message: str) -> None:
    state = job_state(job(COMPLETE), [pod(job(), state=ended(0, message))], {})
    assert (state.phase, state.reason, state.report) == ("Failed", "ReportMissing", None)


def test_a_job_that_ended_well_and_whose_pods_and_annotation_are_gone_has_failed() -> None:
    assert job_state(job(COMPLETE), [], {}).reason == "ReportMissing"


def test_a_pod_whose_end_has_not_been_seen_yet_is_waited_for() -> None:
    """Events of a Job and of its pods have no order between them."""
    state = job_state(job(COMPLETE), [pod(job(), state=RUNNING)], {})
    assert (state.phase, state.ending) == ("Running", True)


# --- when it failed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type", ["Failed", "FailureTarget"])
def test_a_failure_that_no_retry_can_mend_says_what_the_image_said(type: str) -> None:
    over = job(condition(type, "PodFailurePolicy", "Container run for pod farm/x failed with exit code 3"))
    state = job_state(over, [pod(job(), state=ended(3, failure("InvalidData", "train.jsonl line 17")))], {})
    assert (state.phase, state.reason, state.message) == ("Failed", Reason.INVALID_DATA, "train.jsonl line 17")
    assert state.report is not None
    assert not state.recorded


def test_the_last_attempt_is_the_one_that_tells_why() -> None:
    attempts = [
        pod(job(), number, ended(1, failure(reason)))
        for number, reason in enumerate(("DiskFull", "RegistryUnreachable"))
    ]
    assert job_state(job(FAILED), attempts, {}).reason == Reason.REGISTRY_UNREACHABLE


def test_a_container_that_the_kernel_killed_ran_out_of_memory() -> None:
    state = job_state(job(FAILED), [pod(job(), state=ended(137, reason="OOMKilled"))], {})
    assert (state.phase, state.reason) == ("Failed", Reason.OUT_OF_MEMORY)
    assert "memory" in state.message


def test_out_of_memory_is_still_known_when_the_pod_is_gone() -> None:
    seen = job_state(job(FAILED), [pod(job(), state=ended(137, reason="OOMKilled"))], {})
    assert seen.report is not None
    after = job_state(kept(said(seen.report), FAILED), [], {})
    assert (after.phase, after.reason, after.message) == (seen.phase, seen.reason, seen.message)


def test_a_job_that_ran_into_its_deadline_says_so_whatever_its_pods_said() -> None:
    over = job(condition("Failed", "DeadlineExceeded", "Job was active longer than specified deadline"))
    for pods in ([], [pod(job(), state=ended(1, failure("Terminated", "the pod was told to stop")))]):
        state = job_state(over, pods, {})
        assert (state.phase, state.reason) == ("Failed", "DeadlineExceeded")


def test_a_container_that_died_without_a_word_is_told_by_its_exit_code() -> None:
    state = job_state(job(FAILED), [pod(job(), state=ended(139, "segfault"))], {})
    assert state.reason == "ContainerFailed"
    assert "139" in state.message


def test_a_failed_job_without_pods_is_told_in_the_words_of_its_condition() -> None:
    state = job_state(job(FAILED), [], {})
    assert state.reason == "JobFailed"
    assert "BackoffLimitExceeded" in state.message


def test_a_job_that_failed_after_a_good_report_is_a_defect_and_not_a_success() -> None:
    state = job_state(job(FAILED), [pod(job(), state=ended(137, said(GOOD)))], {})
    assert (state.phase, state.reason) == ("Failed", Reason.INTERNAL_ERROR)


def test_a_condition_that_is_not_true_is_none() -> None:
    state = job_state(job(condition("Failed", status="False"), condition("Complete", status="Unknown")), [], {})
    assert state.phase == "Starting"


# --- whose pods, and in which order --------------------------------------------------------------------------------


def test_pods_come_in_the_order_of_their_making_whatever_order_they_were_seen_in() -> None:
    mine = live(job(FAILED))
    pods = [pod(mine, n, ended(1, failure(r))) for n, r in enumerate(("DiskFull", "Terminated", "InternalError"))]
    for order in itertools.permutations(pods):
        state = Observed(children=(mine,), pods=order).job("x-train-0a1b2c3d")
        assert state.reason == Reason.INTERNAL_ERROR


def test_pods_of_another_job_of_the_same_name_are_not_read() -> None:
    mine, theirs = live(job()), job()
    theirs["metadata"]["uid"] = "before"
    state = Observed(children=(mine,), pods=(pod(theirs, state=RUNNING),)).job("x-train-0a1b2c3d")
    assert (state.phase, state.attempts) == ("Starting", 0)


@pytest.mark.parametrize("statuses", [None, [], [{"name": "run", "state": None}], [{"name": "x", "state": RUNNING}]])
def test_a_pod_of_which_little_is_known_is_starting(statuses: list[Any] | None) -> None:
    assert job_state(job(), [pod(job(), containerStatuses=statuses)], {}).phase == "Starting"
    assert job_state(job(), [pod(job()) | {"status": {}}], {}).phase == "Starting"


def test_a_hash_depends_on_content_and_not_on_order() -> None:
    assert digest8({"a": 1, "b": [1, 2]}) == digest8(json.loads('{"b": [1, 2], "a": 1}'))
    assert digest8({"a": 1, "b": [1, 2]}) != digest8({"a": 1, "b": [2, 1]})


# --- several pods that train together ------------------------------------------------------------------------------


def ranked(made: Manifest, rank: int, number: int, state: Manifest | None = None, **status: Any) -> Manifest:
    """The ``number``-th pod of a Job, of a rank."""
    found = pod(made, number, state, **status)
    found["metadata"]["labels"] = {**found["metadata"]["labels"], INDEX_LABEL: str(rank)}
    return found


def test_a_group_starts_until_its_last_pod_runs() -> None:
    made = job()
    late = ranked(made, 1, 1, conditions=[UNSCHEDULED])
    found = job_state(made, [ranked(made, 0, 0, RUNNING), late], {})
    assert (found.phase, found.message[:12]) == ("Starting", "no node fits")
    assert job_state(made, [ranked(made, 0, 0, RUNNING), ranked(made, 1, 1, RUNNING)], {}).phase == "Running"
    assert job_state(made, [ranked(made, 1, 1, RUNNING)], {}).phase == "Starting"


def test_the_leader_speaks_for_the_group_whoever_came_last() -> None:
    made = job()
    pods = [ranked(made, 0, 0, RUNNING), ranked(made, 1, 1, RUNNING)]
    progress = {p["metadata"]["uid"]: Progress(stage="Training", step=n) for n, p in enumerate(pods, 7)}
    found = job_state(made, pods, progress)
    assert found.progress is not None
    assert (found.progress.step, found.attempts) == (7, 1)


def test_a_rank_that_was_replaced_does_not_hold_the_group_back() -> None:
    made = job()
    pods = [ranked(made, 0, 0, RUNNING), ranked(made, 1, 1, ended(143)), ranked(made, 1, 2, RUNNING)]
    assert job_state(made, pods, {}).phase == "Running"


def test_the_leaders_report_is_the_jobs() -> None:
    made = job(condition("SuccessCriteriaMet"))
    pods = [ranked(made, 0, 0, ended(0, said(GOOD))), ranked(made, 1, 1, RUNNING)]
    found = job_state(made, pods, {})
    assert (found.phase, found.report) == ("Succeeded", GOOD)


def test_who_failed_tells_why_and_not_who_lost_it() -> None:
    made = job(FAILED)
    lost = ranked(made, 0, 2, ended(143, failure("Terminated", "lost a pod of the group")))
    found = job_state(made, [ranked(made, 1, 1, ended(3, failure("InvalidData", "no record"))), lost], {})
    assert (found.reason, found.message) == ("InvalidData", "no record")
    assert job_state(made, [lost], {}).reason == "Terminated"


def test_an_interruption_is_told_as_one() -> None:
    made = job()
    found = job_state(made, [pod(made, state=ended(143, failure("Terminated", "the pod was told to stop")))], {})
    assert found.message == "attempt 1 was interrupted (the pod was told to stop); another follows"
