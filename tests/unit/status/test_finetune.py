"""The status of a FineTune, from nothing to done, and its gates."""

from datetime import UTC, datetime

import pytest

from slmops.contract import CurvePoint, DatasetCounts, Learning, Progress
from slmops.plan.finetune import plan_finetune
from slmops.state import Observed
from tests.unit.builders import (
    DIGEST,
    FAILED,
    RUNNING,
    SETTINGS,
    done,
    ended,
    facts,
    failure,
    figures,
    finetune,
    live,
    pod,
    report,
    together,
    told,
)
from tests.unit.status.finetunes import GATE, MEASURED, plan_of, seen, status_of

# --- from nothing to done


def test_what_became_of_the_records_is_shown_with_the_page_on_it() -> None:
    counts = DatasetCounts(prompts=10, labelled=9, kept=7, dropped={"NoAnswer": 1, "Leaked": 2}, tokens=99)
    shown = {"prompts": 10, "labelled": 9, "kept": 7, "dropped": {"NoAnswer": 1, "Leaked": 2}, "tokens": 99}
    resource = finetune()
    for names, more in ((("model",), {}), (("model", "data"), {"report": f"registry.example/slm/data@{DIGEST}"})):
        status = status_of(resource, done(plan_of(resource), report(*names, dataset=counts, evaluation=MEASURED)))
        assert status.dataset is not None
        assert status.dataset.dump() == shown | more
    assert status_of(resource, done(plan_of(resource), report("model", evaluation=MEASURED))).dataset is None


def test_before_anything_is_known_nothing_is_claimed() -> None:
    status = status_of(finetune())
    assert status.phase == "Pending"
    assert facts(status) == {
        "Accepted": ("True", "Valid"), "InputsResolved": ("True", "Resolved"), "Trained": ("Unknown", "Pending"),
        "Evaluated": ("Unknown", "Pending"), "Published": ("Unknown", "Pending"), "Succeeded": ("Unknown", "Pending"),
    }  # fmt: skip


OLIVE = {"engine": "Olive", "method": "LoRA"}


def test_an_adapter_of_olive_is_trained_before_it_is_measured() -> None:
    resource = finetune(OLIVE)
    learned = Learning(steps=8, curve=(CurvePoint(step=8, train_loss=0.5),))
    first = done(plan_of(resource), report("adapter", learning=learned))
    status = status_of(resource, first)
    assert facts(status)["Trained"] == ("True", "Trained")
    assert facts(status)["Evaluated"] == ("Unknown", "Pending")
    assert status.adapter is None, "what is not measured is not published"
    assert status.learning is not None
    assert status.learning.steps == 8
    second = plan_finetune(resource, first, SETTINGS)
    after = together(first, done(second, report("adapter", "model", evaluation=MEASURED)))
    status = status_of(resource, after)
    assert facts(status)["Succeeded"] == ("True", "Completed")
    assert status.adapter is not None
    assert status.artifact is not None
    assert status.learning.curve[0].train_loss == 0.5


def test_an_adapter_of_olive_that_does_not_fit_fails_where_it_is_measured() -> None:
    resource = finetune(OLIVE)
    first = done(plan_of(resource), report("adapter"))
    config_map, job = plan_finetune(resource, first, SETTINGS).apply
    failed = live(job, FAILED)
    end = pod(failed, state=ended(3, failure("AdapterUnusable", "2 tensors fit nowhere in the base")))
    status = status_of(resource, together(first, Observed(children=(live(config_map), failed), pods=(end,))))
    assert facts(status)["Trained"] == ("True", "Trained")
    assert facts(status)["Evaluated"] == ("False", "AdapterUnusable")
    assert facts(status)["Succeeded"] == ("False", "AdapterUnusable")
    assert "use spec.engine: PyTorch" in told(status, "Succeeded")


CURVE = (CurvePoint(step=4, train_loss=1.23456, eval_loss=0.5), CurvePoint(step=8, train_loss=0.1, eval_loss=0.9))


def test_a_training_that_ended_shows_its_curve_and_its_logs() -> None:
    learned = Learning(steps=8, best_step=4, best_eval_loss=0.5, eval_loss=0.5, stopped_early=True, curve=CURVE)
    made = report("model", "adapter", "logs", learning=learned, evaluation=MEASURED)
    status = status_of(finetune(), done(plan_of(finetune()), made))
    assert status.learning is not None
    assert status.learning.dump() == {
        "steps": 8, "bestStep": 4, "bestEvalLoss": 0.5, "evalLoss": 0.5, "stoppedEarly": True, "overfitted": False,
        "curve": [{"step": 4, "trainLoss": 1.235, "evalLoss": 0.5}, {"step": 8, "trainLoss": 0.1, "evalLoss": 0.9}],
    }  # fmt: skip
    assert status.logs is not None
    assert status.logs.reference.startswith("registry.example/slm/logs@sha256:")
    assert facts(status)["Trained"] == ("True", "Trained")
    assert told(status, "Trained") == "stopped early after step 8; the weights are those of step 4"


def test_overfitting_is_a_warning_with_figures_and_a_remedy() -> None:
    learned = Learning(steps=8, best_step=4, best_eval_loss=0.5, eval_loss=0.9, overfitted=True, curve=CURVE)
    status = status_of(finetune(), done(plan_of(finetune()), report("model", learning=learned, evaluation=MEASURED)))
    assert facts(status)["Trained"] == ("True", "Overfitting")
    assert told(status, "Trained") == (
        "the loss on held-out records was 0.5 after step 4 and is 0.9 after step 8, while the training loss went on "
        "falling. Set spec.training.earlyStopping to keep the weights of the best step, train for fewer epochs, or add "
        "data."
    )
    assert facts(status)["Succeeded"] == ("True", "Completed"), "a warning fails nothing"


def test_answers_without_an_end_are_a_warning_with_a_remedy() -> None:
    learned = Learning(steps=8, endless=True)
    status = status_of(finetune(), done(plan_of(finetune()), report("model", learning=learned, evaluation=MEASURED)))
    assert facts(status)["Trained"] == ("True", "EndlessAnswers")
    assert told(status, "Trained").startswith("the chat template ends an answer with no special token")
    assert "spec.data.template" in told(status, "Trained")
    assert facts(status)["Succeeded"] == ("True", "Completed"), "a warning fails nothing"


def test_a_training_that_runs_shows_how_far_it_is() -> None:
    said_now = Progress(stage="Training", step=420, of=1200, loss=0.412345, tokens_per_second=5120.4, eta_seconds=370)
    status = status_of(finetune(), seen(finetune(), state=RUNNING, progress=said_now))
    assert status.phase == "Training"
    assert status.progress is not None
    assert status.progress.dump() == {"stage": "Training", "step": 420, "of": 1200, "unit": "Steps", "done": "420/1200",
                                      "percent": 35, "loss": 0.4123, "tokensPerSecond": 5120.0,
                                      "eta": "6m10s"}  # fmt: skip
    assert facts(status)["Succeeded"] == ("Unknown", "Running")


def test_a_training_that_was_taken_up_again_says_from_where_and_what_that_cost() -> None:
    at = datetime(2026, 3, 1, 11, 0, 41, tzinfo=UTC).timestamp()
    said_now = Progress(stage="Training", step=420, of=1200, last_checkpoint=400, resumes=2, lost_steps=12,
                        first_step_at=at)  # fmt: skip
    resource = finetune()
    observed = seen(resource, state=RUNNING, progress=said_now)
    observed.pods[0]["status"]["startTime"] = "2026-03-01T11:00:00Z"
    found = status_of(resource, observed).progress
    assert found is not None
    assert (found.last_checkpoint, found.resumes, found.lost_steps, found.first_step) == (400, 2, 12, "41s")


@pytest.mark.parametrize("at", [0.0, datetime(2026, 3, 1, 10, 59, tzinfo=UTC).timestamp(), 4e15])
def test_a_time_that_cannot_be_is_left_out(at: float) -> None:
    resource = finetune()
    observed = seen(resource, state=RUNNING, progress=Progress(stage="Training", first_step_at=at))
    observed.pods[0]["status"]["startTime"] = "2026-03-01T11:00:00Z"
    found = status_of(resource, observed).progress
    assert found is not None
    assert found.first_step is None


def test_bytes_are_shown_as_people_write_them() -> None:
    said_now = Progress(stage="Fetching", unit="Bytes", step=3 * 2**20, of=12 * 2**20)
    found = status_of(finetune(), seen(finetune(), state=RUNNING, progress=said_now)).progress
    assert found is not None
    assert (found.done, found.percent) == ("3Mi/12Mi", 25)


def test_how_often_a_training_was_taken_up_again_is_known_after_its_end() -> None:
    resource = finetune()
    once = status_of(resource, done(plan_of(resource), report("model", resumes=1, lost_steps=7))).progress
    assert once is not None
    assert once.dump() == {"stage": "Succeeded", "step": 0, "of": 0, "percent": 100, "resumes": 1, "lostSteps": 7}
    assert status_of(resource, done(plan_of(resource), report("model"))).progress is None


def test_done_without_gates_is_success() -> None:
    observed = done(plan_of(finetune()), report("model", "adapter", evaluation=MEASURED, inputs={"base": "oci://b@x"}))
    status = status_of(finetune(), observed)
    assert status.phase == "Succeeded"
    assert {fact[0] for fact in facts(status).values()} == {"True"}
    assert facts(status)["Evaluated"] == ("True", "Measured")
    assert status.artifact is not None
    assert (status.artifact.reference, status.artifact.size) == (f"registry.example/slm/model@{DIGEST}", "3Mi")
    assert status.adapter is not None
    assert status.inputs == {"base": "oci://b@x"}
    assert status.evaluation["comparison"] == {"AccuracyRetained": 1.5}
    assert status.progress is None


def test_an_adapter_alone_is_success_without_a_model() -> None:
    resource = finetune({"merge": False})
    status = status_of(resource, done(plan_of(resource), report("adapter")))
    assert status.phase == "Succeeded"
    assert status.artifact is None


# --- gates


def test_a_gate_that_is_kept() -> None:
    status = status_of(finetune(GATE), done(plan_of(finetune(GATE)), report("model", evaluation=MEASURED)))
    assert facts(status)["Evaluated"] == ("True", "GatesPassed")
    assert [(gate.outcome, gate.value, gate.bound) for gate in status.gates] == [("Passed", "90%", "min 80%")]


def test_a_gate_that_is_missed_fails_the_whole_and_the_artefact_is_still_shown() -> None:
    bad = report("model", evaluation={"model": figures(0.7)})
    status = status_of(finetune(GATE), done(plan_of(finetune(GATE)), bad))
    assert status.phase == "Failed"
    assert facts(status)["Evaluated"] == facts(status)["Succeeded"] == ("False", "GateFailed")
    assert facts(status)["Published"] == ("True", "Pushed")
    assert "ExactMatch is 70%, wanted min 80%. Train longer" in told(status, "Succeeded")
    assert status.artifact is not None


def test_a_figure_that_is_missing_is_inconclusive_and_no_success() -> None:
    status = status_of(finetune(GATE), done(plan_of(finetune(GATE)), report("model")))
    assert facts(status)["Succeeded"] == ("False", "GateInconclusive")
    assert "ExactMatch is not measured" in told(status, "Evaluated")


def test_a_base_that_knows_nothing_is_nothing_to_compare_with() -> None:
    resource = finetune({"gates": [{"metric": "AccuracyRetained", "min": "95%"}]})
    found = report("model", evaluation={"model": figures(0.7), "baseline": figures(0.0)})
    status = status_of(resource, done(plan_of(resource), found))
    assert facts(status)["Succeeded"] == ("False", "NotComparable")
    assert "AccuracyRetained is not measured (the baseline's ExactMatch is 0%)" in told(status, "Evaluated")


def test_of_several_gates_the_failed_ones_are_named_before_the_unmeasured_ones() -> None:
    resource = finetune({"gates": [*GATE["gates"], {"metric": "InferenceTime", "max": "1s"}]})
    status = status_of(resource, done(plan_of(resource), report("model", evaluation={"model": figures(0.7)})))
    assert facts(status)["Evaluated"] == ("False", "GateFailed")
    assert "InferenceTime" not in told(status, "Evaluated")


def test_another_bound_is_judged_at_once_on_what_was_measured() -> None:
    before = done(plan_of(finetune()), report("model", evaluation=MEASURED))
    assert status_of(finetune(GATE), before).phase == "Succeeded"
    stricter = finetune({"gates": [{"metric": "ExactMatch", "min": "95%"}]})
    assert status_of(stricter, before).phase == "Failed"
