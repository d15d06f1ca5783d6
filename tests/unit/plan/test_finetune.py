"""FineTune -> one training Job; and what all batch kinds do with Jobs that exist, failed, ended or are wanted no more."""

from dataclasses import replace
from typing import Any

import pytest

from slmops.api.finetune import FineTune
from slmops.plan.batch import POLL_SECONDS
from slmops.plan.finetune import plan_finetune
from slmops.state import ANNOTATION_REPORT, ANNOTATION_RETRY, Manifest, Observed, Plan
from tests.unit.builders import (
    COMPLETE,
    DATA,
    DIGEST,
    FAILED,
    RUNNING,
    SETTINGS,
    body,
    configuration,
    done,
    ended,
    failure,
    finetune,
    jobs,
    live,
    pod,
    reference,
    report,
    said,
    together,
)

NAME = "farm-tuned-train-7183737e"
"""The Job of the shortest manifest, since the first version."""


def plan_of(resource: FineTune, observed: Observed | None = None) -> Plan:
    return plan_finetune(resource, observed or Observed(), SETTINGS)


def configured(spec: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the training is told."""
    return configuration(plan_of(finetune(spec)))


def made(spec: dict[str, Any] | None = None, *conditions: Manifest, **fields: Any) -> tuple[Manifest, Manifest]:
    """The live ConfigMap and Job of a FineTune."""
    config_map, job = plan_of(finetune(spec, **fields)).apply
    return live(config_map), live(job, *conditions)


def retried(number: str) -> FineTune:
    return finetune(metadata={"annotations": {ANNOTATION_RETRY: number}})


# --- what is trained -----------------------------------------------------------------------------------------------


def test_filters_are_told_to_the_training_and_without_them_it_is_as_before() -> None:
    filters = {"nearDuplicates": 0.8, "minTokens": 2, "maxTokens": 9, "labels": ["a", "b"],
               "balance": {"per": "Category", "maximum": 7}}  # fmt: skip
    assert configured()["filters"] is None
    assert configured({"data": {"train": DATA, "filters": filters}})["filters"] == {
        "deduplicate": True, "near_duplicates": 0.8, "min_tokens": 2, "max_tokens": 9, "agreement": None,
        "labels": ["a", "b"], "balance": {"per": "Category", "maximum": 7},
    }  # fmt: skip
    assert configured({"data": {"train": DATA, "filters": {}}})["filters"]["deduplicate"] is True


def test_the_shortest_manifest_trains_an_adapter_and_merges_it() -> None:
    told = configured()
    assert (told["type"], told["method"], told["merge"]) == ("Train", "LoRA", True)
    assert told["base"]["uri"] == "oci://registry.example/slm/base:v1"
    assert told["base"]["license_policy"] is None
    assert (told["validation"], told["validation_split"]) == (None, 0.1)
    assert told["output"]["repository"] == "registry.example/slm/out"


def test_every_setting_of_the_user_reaches_the_training() -> None:
    told = configured(
        {
            "method": "LoRA",
            "lora": {"rank": 4, "alpha": 9, "dropout": 0.5, "targetModules": ["q_proj", "v_proj"]},
            "training": {"epochs": 2, "maxSteps": 7, "batchSize": 3, "gradientAccumulation": 5, "learningRate": 0.01,
                         "scheduler": "Linear", "warmupRatio": 0.2, "precision": "FP32", "maxSequenceLength": 99,
                         "seed": 1},
            "data": {"train": DATA | {"path": "a.jsonl", "format": "PromptCompletion"}, "validationSplit": 0.25},
            "evaluation": {"data": DATA | {"path": "b.jsonl"}, "samples": 11, "maxNewTokens": 13},
            "merge": False,
        }
    )  # fmt: skip
    assert told["lora"] == {"rank": 4, "alpha": 9, "dropout": 0.5, "target_modules": ["q_proj", "v_proj"]}
    wanted = {"epochs": 2, "max_steps": 7, "batch_size": 3, "gradient_accumulation": 5, "learning_rate": 0.01,
              "scheduler": "Linear", "warmup_ratio": 0.2, "precision": "FP32", "max_sequence_length": 99,
              "seed": 1}  # fmt: skip
    assert wanted.items() <= told["hyperparameters"].items()
    assert (told["train"]["path"], told["train"]["format"]) == ("a.jsonl", "PromptCompletion")
    assert told["validation_split"] == 0.25
    assert (told["evaluation"]["samples"], told["evaluation"]["max_new_tokens"]) == (11, 13)
    assert told["evaluation"]["data"]["path"] == "b.jsonl"
    assert told["merge"] is False


@pytest.mark.parametrize("method", ["Full", "LoRA", "QLoRA", "DoRA"])
def test_the_method_reaches_the_training(method: str) -> None:
    assert configured({"method": method})["method"] == method


def test_how_the_base_is_held_in_four_bits_reaches_the_training() -> None:
    assert configured({"method": "QLoRA"})["qlora"] == {"quant_type": "NF4", "double_quant": True}
    told = configured({"method": "QLoRA", "qlora": {"quantType": "FP4", "doubleQuant": False}, "lora": {"rank": 2}})
    assert told["qlora"] == {"quant_type": "FP4", "double_quant": False}
    assert told["lora"]["rank"] == 2


def test_options_of_the_training_reach_it_and_are_off_by_default() -> None:
    plain = configured()["hyperparameters"]
    assert not plain["gradient_checkpointing"]
    assert not plain["packing"]
    assert plain["early_stopping"] is plain["evaluate_every"] is None
    told = configured({"training": {"gradientCheckpointing": True, "packing": True, "evaluateEvery": 7,
                                    "earlyStopping": {"patience": 2, "minDelta": 0.5}, "precision": "FP16",
                                    "scheduler": "WarmupStableDecay"}})["hyperparameters"]  # fmt: skip
    wanted = {"gradient_checkpointing": True, "packing": True, "evaluate_every": 7, "precision": "FP16",
              "early_stopping": {"patience": 2, "min_delta": 0.5}, "scheduler": "WarmupStableDecay"}  # fmt: skip
    assert wanted.items() <= told.items()


def test_task_loss_and_template_reach_the_training() -> None:
    plain = configured()
    assert (plain["task"], plain["contrast"], plain["template"]) == ("Generation", None, None)
    data = {"train": DATA | {"format": "PromptCompletion"}, "template": "{{ messages }}"}
    told = configured({"task": "Extraction", "loss": {"type": "Contrastive", "margin": 2.5}, "data": data})
    assert (told["task"], told["contrast"], told["template"]) == ("Extraction", {"margin": 2.5}, "{{ messages }}")
    assert configured({"loss": {"type": "Contrastive"}, "data": data})["contrast"] == {"margin": 1.0}


def test_an_option_that_is_not_used_changes_no_name() -> None:
    """Else an upgrade of the operator would train everything again."""
    assert plan_of(finetune()).steps[0].name == NAME
    assert plan_of(finetune({"training": {"packing": True}})).steps[0].name != NAME


def test_validation_data_of_the_users_own_are_used() -> None:
    told = configured({"data": {"train": DATA, "validation": DATA | {"path": "v.jsonl"}}})
    assert told["validation"]["path"] == "v.jsonl"


def test_a_base_that_is_not_ready_is_waited_for_without_a_job() -> None:
    plan = plan_of(finetune({"base": {"distillation": {"name": "student"}}}))
    assert (plan.apply, plan.steps) == ((), ())
    assert plan.problem is not None
    assert plan.problem.waiting


def test_another_base_of_the_same_name_is_another_job() -> None:
    resource = finetune({"base": {"distillation": {"name": "student"}}})
    old = reference("Distillation", "student")
    new = reference("Distillation", "student", {"artifact": {"reference": f"registry.example/slm/new@{DIGEST}"}})
    names = [plan_of(resource, together(Observed(), references=[base])).steps[0].name for base in (old, new)]
    assert names[0] != names[1]


# --- another engine --------------------------------------------------------------------------------------------------

OLIVE = {"engine": "Olive", "method": "QLoRA"}


def test_olive_learns_in_the_quantizers_image_and_nothing_is_measured_before() -> None:
    plan = plan_of(finetune(OLIVE))
    (step,) = plan.steps
    assert step.role == "olive"
    told = configuration(plan)
    assert (told["type"], told["engine"], told["method"], told["adapter"]) == ("Train", "Olive", "QLoRA", None)
    (job,) = jobs(plan)
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == SETTINGS.images.quantizer


def test_what_olive_learned_is_measured_and_published_by_the_trainer() -> None:
    resource = finetune(OLIVE)
    learned = done(plan_of(resource), report("adapter"))
    plan = plan_of(resource, learned)
    assert [step.role for step in plan.steps] == ["olive", "train"]
    told = configuration(plan)
    assert told["adapter"]["uri"] == f"oci://registry.example/slm/adapter@{DIGEST}"
    assert told["engine"] == "PyTorch", "nothing is learned twice"
    (job,) = jobs(plan)
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == SETTINGS.images.trainer
    assert plan.remove == ()


def test_a_job_of_olive_that_reports_no_adapter_is_named() -> None:
    resource = finetune(OLIVE)
    plan = plan_of(resource, done(plan_of(resource), report()))
    assert plan.problem is not None
    assert plan.problem.reason == "AdapterMissing"
    assert plan.remove == ()


# --- Jobs that exist -----------------------------------------------------------------------------------------------


def test_a_job_that_runs_is_left_alone_and_looked_at_again() -> None:
    config_map, job = made()
    plan = plan_of(finetune(), Observed(children=(config_map, job), pods=(pod(job, state=RUNNING),)))
    assert (plan.apply, plan.remove, plan.annotate) == ((), (), ())
    assert plan.deadline == POLL_SECONDS


def test_a_job_that_has_ended_is_not_looked_at_again() -> None:
    plan = plan_of(finetune())
    assert plan_of(finetune(), done(plan, report("model"))).deadline is None


def test_the_report_of_an_ended_job_is_kept_on_it_once() -> None:
    observed = done(plan_of(finetune()), report("model"))
    ((job, annotations),) = plan_of(finetune(), observed).annotate
    assert annotations == {ANNOTATION_REPORT: said(report("model"))}
    assert job["kind"] == "Job"
    job["metadata"]["annotations"] = dict(annotations)
    assert plan_of(finetune(), replace(observed)).annotate == (), "the next pass"


def test_the_report_of_a_failed_job_is_kept_too() -> None:
    config_map, job = made(None, FAILED)
    end = pod(job, state=ended(1, failure("DiskFull", "full")))
    plan = plan_of(finetune(), Observed(children=(config_map, job), pods=(end,)))
    assert [list(annotations) for _, annotations in plan.annotate] == [[ANNOTATION_REPORT]]


def test_a_job_that_somebody_deleted_is_made_again_on_the_config_map_that_is_there() -> None:
    config_map, job = made()
    plan = plan_of(finetune(), Observed(children=(config_map,)))
    assert [m["metadata"]["name"] for m in plan.apply] == [job["metadata"]["name"]]
    assert jobs(plan) == list(plan.apply)


def test_a_config_map_that_somebody_deleted_comes_back_under_a_job_that_is_not_done() -> None:
    config_map, job = made()
    plan = plan_of(finetune(), Observed(children=(job,)))
    assert [(m["kind"], m["metadata"]["name"]) for m in plan.apply] == [("ConfigMap", config_map["metadata"]["name"])]


def test_a_config_map_of_a_job_that_is_done_is_not_needed_any_more() -> None:
    _, job = made(None, COMPLETE)
    end = pod(job, state=ended(0, said(report("model"))))
    assert plan_of(finetune(), Observed(children=(job,), pods=(end,))).apply == ()


# --- changes -------------------------------------------------------------------------------------------------------


def test_a_changed_spec_makes_another_job_and_removes_the_first_with_its_config_map() -> None:
    before = made()
    plan = plan_of(finetune({"lora": {"rank": 8}}), Observed(children=before))
    assert [m["kind"] for m in plan.apply] == ["ConfigMap", "Job"]
    assert plan.apply[1]["metadata"]["name"] != before[1]["metadata"]["name"]
    assert list(plan.remove) == list(before)


def test_a_base_that_is_being_made_again_does_not_cost_the_job_on_the_old_one() -> None:
    resource = finetune({"base": {"distillation": {"name": "student"}}})
    base = reference("Distillation", "student")
    plan = plan_of(resource, together(Observed(), references=[base]))
    done_once = done(plan, report("model"))
    base["metadata"]["generation"] = 2
    assert plan_of(resource, together(done_once, references=[base])).remove == ()
    assert plan_of(resource, together(done_once)).remove == ()


def test_a_slip_that_does_not_pass_by_waiting_does_not_cost_the_work_that_is_done() -> None:
    """The base's owner switches merge off and on again: this training has not changed."""
    resource = finetune({"base": {"fineTune": {"name": "before"}}})
    base = reference("FineTune", "before")
    done_once = done(plan_of(resource, together(Observed(), references=[base])), report("model"))
    slip = plan_of(resource, together(done_once, references=[reference("FineTune", "before", {"artifact": None})]))
    assert slip.problem is not None
    assert not slip.problem.waiting
    assert slip.remove == ()
    back = plan_of(resource, together(done_once, references=[base]))
    assert (back.apply, back.remove, back.problem) == ((), (), None)


# --- retry ---------------------------------------------------------------------------------------------------------


def test_a_new_value_of_the_retry_annotation_runs_a_failed_job_again() -> None:
    config_map, job = made(None, FAILED)
    plan = plan_of(retried("1"), Observed(children=(config_map, job)))
    assert list(plan.remove) == [job]
    assert plan.apply == ()
    (again,) = plan_of(retried("1"), Observed(children=(config_map,))).apply
    assert again["metadata"]["name"] == job["metadata"]["name"]
    assert again["metadata"]["annotations"] == {ANNOTATION_RETRY: "1"}


def test_a_retry_that_failed_is_not_tried_again_by_itself() -> None:
    failed = made(None, FAILED, metadata={"annotations": {ANNOTATION_RETRY: "1"}})
    assert plan_of(retried("1"), Observed(children=failed)).remove == ()
    assert [m["kind"] for m in plan_of(retried("2"), Observed(children=failed)).remove] == ["Job"]


@pytest.mark.parametrize("resource", [finetune(), finetune(metadata={"annotations": {"slmops.dev/other": "1"}})])
def test_without_the_annotation_nothing_is_tried_again(resource: FineTune) -> None:
    failed = made(None, FAILED, metadata={"annotations": {ANNOTATION_RETRY: "1"}})
    assert plan_of(resource, Observed(children=failed)).remove == ()


def test_a_job_that_runs_or_ended_well_is_not_touched_by_the_annotation() -> None:
    config_map, job = made()
    running = Observed(children=(config_map, job), pods=(pod(job, state=RUNNING),))
    assert plan_of(retried("1"), running).remove == ()
    assert plan_of(retried("1"), done(plan_of(finetune()), report("model"))).remove == ()


def test_annotations_are_optional() -> None:
    plain = body("FineTune")
    plain["metadata"]["annotations"] = {}
    assert plan_of(FineTune.model_validate(plain)) == plan_of(finetune())


def test_a_licence_policy_goes_with_the_base() -> None:
    told = configured({"licensePolicy": {"allow": ["MIT", "Apache-2.0"]}})
    assert told["base"]["license_policy"] == {"allow": ["MIT", "Apache-2.0"], "deny": []}
    assert told["train"]["source"]["license_policy"] is None
