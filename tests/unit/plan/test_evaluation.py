"""What is measured: what the spec names, else what suits the task, and in any case what a gate needs."""

from typing import Any

import pytest

from slmops.api.evaluation import Evaluation, QualityGate
from slmops.contract import Metric
from slmops.plan.distillation import plan_distillation
from slmops.plan.evaluation import evaluation
from slmops.plan.finetune import plan_finetune
from slmops.plan.quantizedmodel import plan_quantizedmodel
from slmops.plan.sources import Sources
from slmops.state import Observed
from tests.unit.builders import SETTINGS, configuration, distillation, done, finetune, quantizedmodel, report

TEXT = {"ExactMatch", "Accuracy", "F1", "BLEU", "ROUGE"}


def metrics(spec: dict[str, Any], task: str, *gates: str) -> list[str]:
    wanted = [QualityGate.model_validate({"metric": metric, "min": 0}) for metric in gates]
    told = evaluation(Evaluation.model_validate(spec), wanted, task, Sources(Observed()))  # type: ignore[arg-type]
    assert told.task == task
    return [str(metric) for metric in told.metrics]


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ("Generation", TEXT),
        ("Classification", {"ExactMatch", "Accuracy", "F1"}),
        ("Extraction", {"ExactMatch", "Accuracy", "F1"}),
        ("Summarization", TEXT - {"Accuracy"}),
    ],
)
def test_what_suits_the_task_is_measured_where_nothing_is_named(task: str, text: set[str]) -> None:
    found = metrics({}, task)
    assert text == set(found) & TEXT
    assert set(found) - TEXT == {"Perplexity", "InferenceTime", "TimeToFirstToken", "PeakMemory"}


def test_what_is_named_is_measured_and_the_rest_is_not() -> None:
    assert metrics({"metrics": ["BLEU", "InferenceTime"]}, "Classification") == ["ExactMatch", "BLEU", "InferenceTime"]


def test_an_order_in_the_spec_makes_no_other_job() -> None:
    assert metrics({"metrics": ["BLEU", "F1"]}, "Generation") == metrics({"metrics": ["F1", "BLEU"]}, "Generation")


@pytest.mark.parametrize(
    ("gate", "needed"),
    [("ROUGE", "ROUGE"), ("PeakMemory", "PeakMemory"), ("InferenceTimeReduction", "InferenceTime"),
     ("PeakMemoryReduction", "PeakMemory")],
)  # fmt: skip
def test_what_a_gate_needs_is_measured_in_any_case(gate: str, needed: str) -> None:
    assert metrics({"metrics": ["F1"]}, "Generation", gate) == sorted(
        ["ExactMatch", "F1", needed], key=list(Metric).index
    )


@pytest.mark.parametrize("gate", ["AccuracyRetained", "WeightsReduction", "WeightBytes", "BaseAccuracyRetained"])
def test_other_gates_need_nothing_more(gate: str) -> None:
    assert metrics({"metrics": ["F1"]}, "Generation", gate) == ["ExactMatch", "F1"]


@pytest.mark.parametrize(
    ("spec", "task"),
    [
        ({}, "Generation"),
        ({"task": "NLI"}, "Classification"),
        ({"task": "Summarization"}, "Summarization"),
        ({"task": "Math"}, "Generation"),
    ],
)
def test_a_distillations_task_says_what_an_answer_is(spec: dict[str, Any], task: str) -> None:
    resource = distillation(spec)
    label = plan_distillation(resource, Observed(), SETTINGS)
    plan = plan_distillation(resource, done(label, report("dataset")), SETTINGS)
    assert configuration(plan)["evaluation"]["task"] == task


def test_a_finetune_measures_by_its_own_task() -> None:
    plan = plan_finetune(finetune({"task": "Extraction"}), Observed(), SETTINGS)
    assert configuration(plan)["evaluation"]["task"] == "Extraction"


@pytest.mark.parametrize(("format", "task"), [("Classification", "Classification"), ("Messages", "Generation")])
def test_a_quantized_model_measures_by_what_its_records_are(format: str, task: str) -> None:
    data = {"uri": "oci://registry.example/data:v1", "format": format}
    plan = plan_quantizedmodel(quantizedmodel({"evaluation": {"data": data}}), Observed(), SETTINGS)
    assert configuration(plan)["evaluation"]["task"] == task
