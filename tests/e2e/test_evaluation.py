"""What a FineTune measures on the real cluster: every figure that suits the task, how sure each is, and what gates make of
a bound that moves."""

import pytest

from demo.assets import records
from demo.steps import Manifest
from demo.task import IRRIGATION
from tests.e2e.platform import NAMESPACE, Platform
from tests.e2e.toys import dataset

pytestmark = pytest.mark.cluster
SECONDS = 600
NAME = "measured"
SURE = {"ExactMatch", "Accuracy", "F1", "Perplexity", "InferenceTime", "TimeToFirstToken"}
EXACT = {"PeakMemory", "WeightBytes", "Parameters", "Samples"}


@pytest.fixture(scope="module")
def measured(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The FineTune, once its figures are there."""
    chores = dataset(platform, tmp_path_factory.mktemp("measured"), "measured", records((IRRIGATION,), 4, 120))
    platform.apply({
        "apiVersion": "slmops.dev/v1alpha1", "kind": "FineTune", "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "base": {"uri": f"oci://{platform.registry}/slm/teacher:v1"},
            "task": "Extraction",
            "lora": {"rank": 4},
            "data": {"train": {"uri": chores}, "validationSplit": 0.3},
            "training": {"epochs": 40, "maxSteps": 30, "batchSize": 8, "learningRate": 0.003},
            "evaluation": {"samples": 24, "maxNewTokens": 64},
            "merge": False,
            "output": {"repository": f"{platform.registry}/slm/measured"},
        },
    })  # fmt: skip
    return platform.wait("finetune", NAME, "Succeeded", "True", SECONDS)


def test_every_figure_that_suits_the_task_and_how_sure_it_is(measured: Manifest) -> None:
    status = measured["status"]
    for role in ("model", "baseline"):
        assert status["evaluation"][role].keys() == SURE | EXACT
    figures, sure = status["evaluation"]["model"], status["intervals"]["model"]
    assert sure.keys() == SURE
    for name, (low, high) in sure.items():
        assert 0 <= low <= figures[name] <= high, name
    assert figures["Samples"] == 24
    assert 0 < figures["TimeToFirstToken"] < figures["InferenceTime"]
    assert figures["F1"] > status["evaluation"]["baseline"]["F1"], "it has learned some fields"
    assert figures["Perplexity"] < status["evaluation"]["baseline"]["Perplexity"]
    assert figures["PeakMemory"] < 2 * 2**30


def test_a_bound_within_the_interval_is_no_pass_and_one_that_is_moved_needs_no_other_job(
    platform: Platform, measured: Manifest
) -> None:
    low, high = measured["status"]["intervals"]["model"]["F1"]

    def job() -> str:
        (found,) = platform.kubectl.items("jobs", "-l", f"slmops.dev/name={NAME}")
        return str(found["metadata"]["uid"])

    before = job()
    platform.patch("finetune", NAME, {"gates": [{"metric": "F1", "min": f"{(low + high) / 2:.2%}"}]})
    doubted = platform.wait("finetune", NAME, "Evaluated", "False", 30)["status"]
    assert doubted["gates"][0]["outcome"] == "Inconclusive"
    told = next(c for c in doubted["conditions"] if c["type"] == "Evaluated")
    assert told["reason"] == "GateInconclusive"
    assert doubted["gates"][0]["interval"] in told["message"]
    platform.patch("finetune", NAME, {"gates": [{"metric": "F1", "min": f"{low / 2:.2%}"}]})
    passed = platform.wait("finetune", NAME, "Succeeded", "True", 30)["status"]
    assert passed["gates"][0]["outcome"] == "Passed"
    assert job() == before
