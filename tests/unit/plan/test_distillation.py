"""Distillation -> a labelling Job, then a training Job on the very data set that it published."""

from typing import Any

import pytest

from slmops import contract
from slmops.api.distillation import Distillation
from slmops.plan.distillation import plan_distillation
from slmops.state import ANNOTATION_RETRY, Observed, Plan
from tests.unit.builders import (
    COMPLETE,
    DATA,
    DIGEST,
    FAILED,
    OUTPUT,
    SETTINGS,
    configuration,
    distillation,
    done,
    jobs,
    live,
    reference,
    report,
    together,
)

LABELLED = report("dataset")
SAMPLING = {"temperature": 1, "topP": 0.5, "maxTokens": 9, "stop": ["x"], "frequencyPenalty": 0.5,
            "presencePenalty": -0.5, "samples": 3}  # fmt: skip
LOCAL = {"teacher": {"model": {"uri": "oci://registry.example/slm/teacher:v1"}}}


def plan_of(resource: Distillation, observed: Observed | None = None) -> Plan:
    return plan_distillation(resource, observed or Observed(), SETTINGS)


def labelled(resource: Distillation) -> Observed:
    """The labelling done."""
    return done(plan_of(resource), LABELLED)


def label_run(spec: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the labelling is told."""
    return configuration(plan_of(distillation(spec)))


def train_run(spec: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the training is told."""
    resource = distillation(spec)
    return configuration(plan_of(resource, labelled(resource)))


# --- the order of the work -----------------------------------------------------------------------------------------


def test_labelling_comes_first_and_alone() -> None:
    plan = plan_of(distillation())
    assert [step.role for step in plan.steps] == ["label"]
    assert len(jobs(plan)) == 1


def test_training_follows_on_the_data_set_that_was_published() -> None:
    told = train_run()
    address = f"oci://registry.example/slm/dataset@{DIGEST}"
    assert told["train"]["source"]["uri"] == told["validation"]["source"]["uri"] == address
    assert (told["train"]["path"], told["validation"]["path"]) == ("train.jsonl", "validation.jsonl")


def test_a_data_set_in_a_private_registry_is_read_as_it_was_written() -> None:
    told = train_run({"output": OUTPUT | {"credentials": {"secret": "registry"}}})
    assert told["train"]["source"]["credentials"] == told["output"]["credentials"]


def test_no_training_while_labelling_runs_or_after_it_failed() -> None:
    first = plan_of(distillation())
    for conditions in ((), (FAILED,), (COMPLETE,)):
        made = tuple(live(m, *(conditions if m["kind"] == "Job" else ())) for m in first.apply)
        assert [step.role for step in plan_of(distillation(), Observed(children=made)).steps] == ["label"]


def test_a_good_report_without_a_data_set_is_told_and_not_stumbled_over() -> None:
    plan = plan_of(distillation(), done(plan_of(distillation()), report("model")))
    assert [step.role for step in plan.steps] == ["label"]
    assert plan.problem is not None
    assert plan.problem.reason == "DatasetMissing"
    assert plan.steps[0].name in plan.problem.message


def test_a_retry_of_the_training_does_not_label_again() -> None:
    resource = distillation(metadata={"annotations": {ANNOTATION_RETRY: "1"}})
    first = labelled(distillation())
    failed = [live(m, *([FAILED] if m["kind"] == "Job" else [])) for m in plan_of(distillation(), first).apply]
    plan = plan_of(resource, together(first, Observed(children=tuple(failed))))
    assert [m["metadata"]["name"] for m in plan.remove] == [failed[-1]["metadata"]["name"]]


def test_a_student_that_is_waited_for_does_not_hold_up_the_labelling() -> None:
    resource = distillation({"student": {"model": {"fineTune": {"name": "before"}}}})
    first = plan_of(resource)
    assert [step.role for step in first.steps] == ["label"]
    assert first.problem is None
    second = plan_of(resource, labelled(resource))
    assert second.problem is not None
    assert second.remove == ()
    third = plan_of(resource, together(labelled(resource), references=[reference("FineTune", "before")]))
    assert [step.role for step in third.steps] == ["label", "train"]


# --- what a change costs -------------------------------------------------------------------------------------------


def names(spec: dict[str, Any]) -> list[str]:
    resource = distillation(spec)
    return [step.name for step in plan_of(resource, labelled(resource)).steps]


def test_another_learning_rate_trains_again_and_does_not_label_again() -> None:
    before, after = names({}), names({"training": {"learningRate": 0.01}})
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_another_temperature_labels_and_trains_again() -> None:
    before = names(LOCAL)
    after = names({"teacher": LOCAL["teacher"] | {"sampling": {"temperature": 0}}})
    assert before[0] != after[0]


def test_another_node_for_labelling_does_not_train_again() -> None:
    before, after = names({}), names({"labelling": {"nodeSelector": {"pool": "gpu"}}})
    assert before[0] != after[0]
    assert before[1] == after[1]


def test_where_labelling_runs_is_where_training_runs_unless_said_otherwise() -> None:
    run = {"run": {"nodeSelector": {"pool": "gpu"}}}
    for spec, expected in (
        (run, ["gpu", "gpu"]),
        (run | {"labelling": {"nodeSelector": {"pool": "big"}}}, ["big", "gpu"]),
    ):
        resource = distillation(spec)
        found = [*jobs(plan_of(resource)), *jobs(plan_of(resource, labelled(resource)))]
        assert [job["spec"]["template"]["spec"]["nodeSelector"]["pool"] for job in found] == expected


# --- what the images are told --------------------------------------------------------------------------------------


def test_a_teacher_behind_an_address() -> None:
    endpoint = {"url": "https://api.example/v1", "model": "chat", "credentials": {"secret": "key"}, "concurrency": 2,
                "startupTimeout": "1m30s", "minSuccessRatio": 0.5, "timeout": "2m", "retries": 7,
                "azureApiVersion": "2024-10-21"}  # fmt: skip
    told = label_run(
        {
            "teacher": {
                "endpoint": endpoint,
                "sampling": {
                    "temperature": 1,
                    "topP": 0.5,
                    "maxTokens": 9,
                    "stop": ["x"],
                    "frequencyPenalty": 0.5,
                    "presencePenalty": -0.5,
                    "samples": 3,
                },
                "prompt": {"system": "Be short."},
            },
            "data": {"train": DATA, "filters": {"deduplicate": False, "maxTokens": 77, "agreement": 2}},
        }
    )
    assert told["model"] is None
    assert told["endpoint"] == {
        "url": "https://api.example/v1", "model": "chat", "credentials": {"path": "/etc/slmops/credentials/key/token"},
        "concurrency": 2, "startup_seconds": 90.0, "min_success_ratio": 0.5, "timeout_seconds": 120.0, "retries": 7,
        "azure_api_version": "2024-10-21",
    }  # fmt: skip
    assert told["sampling"] == {
        "temperature": 1, "top_p": 0.5, "max_tokens": 9, "stop": ["x"], "frequency_penalty": 0.5,
        "presence_penalty": -0.5, "samples": 3,
    }  # fmt: skip
    assert told["system_prompt"] == "Be short."
    assert told["filters"] == {
        "deduplicate": False, "near_duplicates": None, "min_tokens": None, "max_tokens": 77, "agreement": 2, "labels": [],
        "balance": None,
    }  # fmt: skip


@pytest.mark.parametrize(("own", "wanted"), [(None, ["a", "b"]), (["b", "c"], ["b", "c"])])
def test_a_teachers_answer_has_to_be_a_label_that_the_data_declare(own: list[str] | None, wanted: list[str]) -> None:
    train = DATA | {"format": "Classification", "labels": ["a", "b"]}
    told = label_run({"data": {"train": train, "filters": {"labels": own} if own else {}}})
    assert told["filters"]["labels"] == wanted


def test_what_is_not_said_is_as_before() -> None:
    """Names of Jobs are hashes of what they are told: nobody pays again for a new field."""
    plain = label_run() | {"run": "", "annotations": {}}
    for field in ("engine", "chain_of_thought", "chain_of_density", "max_summary_words", "task"):
        del plain[field]
    for field in ("timeout_seconds", "retries", "azure_api_version"):
        del plain["endpoint"][field]
    for field in ("frequency_penalty", "presence_penalty", "samples"):
        del plain["sampling"][field]
    whole = contract.LabelRun.model_validate(label_run() | {"run": "", "annotations": {}})
    assert contract.LabelRun.model_validate(plain) == whole


def test_a_task_and_how_the_teacher_thinks_about_it() -> None:
    teacher = distillation().spec.teacher.dump()
    thought = label_run({"teacher": teacher | {"prompt": {"chainOfThought": True}}, "task": "Math"})
    assert (thought["task"], thought["chain_of_thought"], thought["chain_of_density"]) == ("Math", True, False)
    density = {"chainOfDensity": True, "maxSummaryLength": 50}
    told = label_run({"teacher": teacher | {"prompt": density}, "task": "Summarization"})
    assert (told["chain_of_density"], told["max_summary_words"]) == (True, 50)
    assert label_run()["max_summary_words"] == 80


def test_the_engine_of_a_teacher_of_weights() -> None:
    assert label_run({"teacher": LOCAL["teacher"] | {"engine": "VLLM"}})["engine"] == "VLLM"
    assert label_run(LOCAL)["engine"] == "Transformers"


def test_a_teacher_of_weights_is_measured_beside_the_student() -> None:
    assert label_run(LOCAL)["endpoint"] is None
    assert train_run(LOCAL)["evaluation"]["compare"]["teacher"]["uri"] == "oci://registry.example/slm/teacher:v1"
    assert train_run()["evaluation"]["compare"] == {}


def test_a_teacher_behind_an_address_is_judged_by_the_records_that_the_student_is_measured_by() -> None:
    spec = {"evaluation": {"data": DATA | {"path": "judge.jsonl"}, "samples": 70}, "training": {"seed": 5}}
    told, trained = label_run(spec), train_run(spec)
    assert told["evaluation"] == trained["evaluation"]["data"]
    assert told["evaluation"]["path"] == "judge.jsonl"
    assert told["evaluation_samples"] == trained["evaluation"]["samples"] == 70
    assert told["seed"] == trained["hyperparameters"]["seed"] == 5
    assert label_run(spec | LOCAL)["evaluation"] is None, "weights are measured beside the student"


def test_the_student_is_measured_under_the_system_message_that_it_was_trained_with() -> None:
    own = {"evaluation": {"data": DATA}}
    for teacher in (distillation().spec.teacher.dump(), LOCAL["teacher"]):
        told = {"teacher": teacher | {"prompt": {"system": "Be short."}}}
        assert train_run(told | own)["system_prompt"] == "Be short."
        assert train_run(told)["system_prompt"] is None, "what is labelled has it already"


def test_how_the_evaluation_goes_asks_no_teacher_again_that_has_nothing_to_do_with_it() -> None:
    more = {"evaluation": {"samples": 70, "metrics": ["Accuracy"]}}
    assert names({})[0] == names(more)[0]
    own = {"evaluation": {"data": DATA}}
    assert names(own)[0] == names({"evaluation": {"data": DATA, "metrics": ["Accuracy"]}})[0]
    assert names(LOCAL)[0] == names(LOCAL | own)[0]
    assert names({})[0] != names(own)[0]


def test_a_teacher_of_weights_lends_its_tokenizer_to_a_new_student_that_names_none() -> None:
    own = {"student": {"architecture": {"tokenizer": {"uri": "hf://org/tokens"}}}}
    assert train_run(LOCAL)["architecture"]["tokenizer"]["uri"] == "oci://registry.example/slm/teacher:v1"
    assert train_run(LOCAL | own)["architecture"]["tokenizer"]["uri"] == "hf://org/tokens"
    assert train_run()["architecture"]["tokenizer"] is None


def test_logits_are_taken_from_the_teacher_and_labels_need_none() -> None:
    told = train_run(LOCAL | {"objective": {"type": "Logits", "temperature": 3, "alpha": 0.1, "topK": 5}})
    assert told["objective"]["teacher"]["uri"] == "oci://registry.example/slm/teacher:v1"
    assert (told["objective"]["temperature"], told["objective"]["alpha"], told["objective"]["top_k"]) == (3, 0.1, 5)
    assert train_run(LOCAL)["objective"]["teacher"] is None


def test_features_are_told_their_layers_and_where_their_teacher_is() -> None:
    layers = [{"student": 1, "teacher": 3}, {"student": 2, "teacher": 6}]
    told = train_run(LOCAL | {"objective": {"type": "Features", "layers": layers, "attention": True}})["objective"]
    assert told["teacher"]["uri"] == "oci://registry.example/slm/teacher:v1"
    assert (told["type"], told["layers"], told["attention"]) == ("Features", layers, True)
    plain = train_run(LOCAL | {"objective": {"type": "Features"}})["objective"]
    assert (plain["layers"], plain["attention"]) == ([], False)


def test_a_student_is_a_model_or_an_architecture() -> None:
    old = train_run({"student": {"model": {"uri": "hf://org/student"}}})
    assert (old["base"]["uri"], old["architecture"]) == ("hf://org/student", None)
    new = train_run({"student": {"architecture": {"hiddenSize": 64, "layers": 3, "vocabularySize": 500}}})
    assert new["base"] is None
    assert {"hidden_size": 64, "layers": 3, "vocabulary_size": 500}.items() <= new["architecture"].items()


def test_the_teacher_never_sees_the_validation_data_as_training_data() -> None:
    told = label_run({"data": {"train": DATA, "validation": DATA | {"path": "v.jsonl"}}})
    assert told["validation"]["path"] == "v.jsonl"
    assert label_run({"data": {"train": DATA, "validationSplit": 0.3}})["validation_split"] == 0.3
    assert label_run()["validation_split"] == 0.1
