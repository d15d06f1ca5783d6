"""The status of a Distillation: two Jobs, one after the other, and what becomes of the prompts."""

from datetime import datetime

from slmops.api.distillation import Distillation, DistillationStatus
from slmops.contract import DatasetCounts, Figures, Progress
from slmops.plan.distillation import plan_distillation
from slmops.state import Observed
from slmops.status.distillation import distillation_status
from tests.unit.builders import (
    DIGEST,
    FAILED,
    NOW,
    RUNNING,
    SETTINGS,
    distillation,
    done,
    ended,
    facts,
    failure,
    figures,
    live,
    pod,
    report,
    together,
    told,
)

COUNTS = DatasetCounts(prompts=10, labelled=9, kept=7, dropped={"Duplicate": 2}, tokens=99, prompt_tokens=50,
                       completion_tokens=120, estimated=1, reused=3)  # fmt: skip
LABELLED = report(
    "dataset", dataset=COUNTS, inputs={"data": "oci://d@1", "teacher": "big"}, evaluation={"teacher": figures(0.9)}
)
TRAINED = report(
    "model", inputs={"data": "oci://dataset@2", "student": "new"},
    evaluation={"model": figures(0.81), "baseline": figures(0.3)},
)  # fmt: skip


def status_of(resource: Distillation, observed: Observed, now: datetime = NOW) -> DistillationStatus:
    return distillation_status(resource, observed, plan_distillation(resource, observed, SETTINGS), now)


def labelling_done(resource: Distillation) -> Observed:
    return done(plan_distillation(resource, Observed(), SETTINGS), LABELLED)


def all_done(resource: Distillation) -> Observed:
    first = labelling_done(resource)
    return together(first, done(plan_distillation(resource, first, SETTINGS), TRAINED))


def running(resource: Distillation, before: Observed, stage: str) -> Observed:
    """The next Job runs."""
    config_map, job = plan_distillation(resource, before, SETTINGS).apply
    made = live(job)
    mine = pod(made, state=RUNNING)
    now = Observed(
        children=(live(config_map), made), pods=(mine,), progress={mine["metadata"]["uid"]: Progress(stage=stage)}
    )
    return together(before, now)


def test_the_phases_follow_the_work() -> None:
    resource = distillation()
    seen = [
        Observed(),
        running(resource, Observed(), "Labelling"),
        labelling_done(resource),
        running(resource, labelling_done(resource), "Evaluating baseline"),
        all_done(resource),
    ]
    assert [status_of(resource, observed).phase for observed in seen] == [
        "Pending", "Labelling", "Pending", "Evaluating baseline", "Succeeded"
    ]  # fmt: skip


def test_while_the_first_step_runs_the_second_is_pending() -> None:
    status = status_of(distillation(), running(distillation(), Observed(), "Fetching"))
    assert facts(status)["Synthesized"] == ("Unknown", "Running")
    assert facts(status)["Trained"] == ("Unknown", "Pending")
    assert facts(status)["Succeeded"] == ("Unknown", "Running")


def test_once_labelled_the_data_set_is_shown_before_the_training_ends() -> None:
    status = status_of(distillation(), labelling_done(distillation()))
    assert facts(status)["Synthesized"] == ("True", "Labelled")
    assert facts(status)["Evaluated"] == ("Unknown", "Pending")
    assert status.dataset is not None
    assert status.dataset.dump() == {"prompts": 10, "labelled": 9, "kept": 7, "dropped": {"Duplicate": 2}, "tokens": 99,
                                     "promptTokens": 50, "completionTokens": 120, "estimated": 1, "reused": 3,
                                     "digest": DIGEST, "report": f"registry.example/slm/dataset@{DIGEST}"}  # fmt: skip
    assert status.artifact is None


def test_the_student_is_compared_with_the_teacher_before_the_untrained_student() -> None:
    status = status_of(distillation(), all_done(distillation()))
    assert status.phase == "Succeeded"
    assert set(status.evaluation) == {"model", "teacher", "baseline", "comparison"}
    assert status.evaluation["comparison"]["AccuracyRetained"] == 0.9
    assert told(status, "Succeeded") == "the student is 3Mi"


def test_inputs_are_what_came_from_outside() -> None:
    """The training's own data are what labelling made, not what the user named."""
    status = status_of(distillation(), all_done(distillation()))
    assert status.inputs == {"data": "oci://d@1", "teacher": "big", "student": "new"}


def test_a_gate_on_the_comparison_needs_the_teachers_figures() -> None:
    resource = distillation({"gates": [{"metric": "AccuracyRetained", "min": "95%"}]})
    status = status_of(resource, all_done(resource))
    assert facts(status)["Succeeded"] == ("False", "GateFailed")
    assert "AccuracyRetained is 90%, wanted min 95%" in told(status, "Succeeded")


def test_a_teacher_that_nothing_judges_is_nothing_to_compare_with() -> None:
    """A teacher behind an address and prompts without answers. To be better than the untrained student is no pass."""
    resource = distillation({"gates": [{"metric": "AccuracyRetained", "min": "95%"}]})
    plan = plan_distillation(resource, Observed(), SETTINGS)
    first = done(plan, report("dataset", dataset=COUNTS, evaluation={"teacher": Figures()}))
    status = status_of(resource, together(first, done(plan_distillation(resource, first, SETTINGS), TRAINED)))
    assert facts(status)["Succeeded"] == ("False", "NotComparable")
    assert status.gates[0].outcome == "Inconclusive"
    said = told(status, "Succeeded")
    assert "AccuracyRetained is not measured (of the teacher no ExactMatch is known), wanted min 95%." in said
    assert "spec.evaluation.data" in said


def test_a_labelling_that_failed_fails_the_whole_and_trains_nothing() -> None:
    config_map, job = plan_distillation(distillation(), Observed(), SETTINGS).apply
    made = live(job, FAILED)
    end = pod(made, state=ended(1, failure("TeacherUnreachable", "teacher:8080: connection refused")))
    status = status_of(distillation(), Observed(children=(live(config_map), made), pods=(end,)))
    assert facts(status)["Synthesized"] == facts(status)["Succeeded"] == ("False", "TeacherUnreachable")
    assert facts(status)["Trained"] == ("Unknown", "Pending")
    assert "spec.teacher.endpoint.url" in told(status, "Succeeded")
    assert status.dataset is None


def test_a_training_that_failed_leaves_the_data_set_in_sight() -> None:
    resource = distillation()
    first = labelling_done(resource)
    config_map, job = plan_distillation(resource, first, SETTINGS).apply
    made = live(job, FAILED)
    end = pod(made, state=ended(3, failure("TrainingDiverged", "the loss is nan")))
    status = status_of(resource, together(first, Observed(children=(live(config_map), made), pods=(end,))))
    assert facts(status)["Synthesized"][0] == "True"
    assert facts(status)["Trained"] == facts(status)["Succeeded"] == ("False", "TrainingDiverged")
    assert status.dataset is not None
    assert status.evaluation == {"teacher": {"ExactMatch": 0.9}}


def test_a_good_report_without_a_data_set_ends_in_a_condition() -> None:
    resource = distillation()
    bare = report("model", dataset=COUNTS)
    status = status_of(resource, done(plan_distillation(resource, Observed(), SETTINGS), bare))
    assert facts(status)["Succeeded"] == ("False", "DatasetMissing")
    assert status.dataset is None
