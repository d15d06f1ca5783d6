"""A search on the real cluster: four trials, two side by side, of which one is evicted; the operator is killed; the best
values are trained with and published."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.assets import records
from demo.steps import Manifest, wait_for
from demo.task import IRRIGATION
from slmops.contract import Source
from tests.e2e import toys
from tests.e2e.platform import NAMESPACE, Platform
from tests.e2e.toys import client, dataset

pytestmark = [pytest.mark.cluster, pytest.mark.long]
SECONDS = 600
NAME = "searched"


@pytest.fixture(scope="module")
def searched(platform: Platform, base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manifest]:
    """The FineTune, applied."""
    chores = dataset(platform, tmp_path_factory.mktemp("search"), "search", records((IRRIGATION,), 4, 120))
    made = {
        "apiVersion": "slmops.dev/v1alpha1", "kind": "FineTune", "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "base": {"uri": base},
            "data": {"train": {"uri": chores}, "validationSplit": 0.2},
            "search": {
                "trials": 4, "parallelism": 2, "sampler": "TPE", "pruner": "Hyperband",
                "objective": {"metric": "evalLoss", "direction": "Minimize"},
                "space": [{"name": "learningRate", "log": {"min": 0.0001, "max": 0.01}},
                          {"name": "lora.rank", "choice": [2, 4]}],
            },
            "training": {"epochs": 40, "maxSteps": 60, "batchSize": 4, "evaluateEvery": 10},
            "evaluation": {"samples": 4, "maxNewTokens": 4},
            "merge": False,
            "output": {"repository": f"{platform.registry}/slm/searched"},
            "run": toys.A_CORE_EACH,
        },
    }  # fmt: skip
    platform.apply(made)
    yield made
    platform.kubectl("delete", "finetune", NAME, "-n", NAMESPACE, "--ignore-not-found")


def children(platform: Platform, kind: str) -> dict[str, Manifest]:
    """Jobs, or pods that run, by role."""
    found = platform.kubectl.items(kind, "-l", f"slmops.dev/name={NAME}", namespace=NAMESPACE)
    return {m["metadata"]["labels"]["slmops.dev/role"]: m for m in found
            if kind == "jobs" or m["status"].get("phase") == "Running"}  # fmt: skip


def status(platform: Platform) -> dict[str, Any]:
    return dict((platform.kubectl.get("finetune", NAME) or {}).get("status", {}))


def result(job: Manifest) -> dict[str, Any]:
    """What a trial reported, as the operator keeps it."""
    return dict(json.loads(job["metadata"]["annotations"]["slmops.dev/report"])["trial"])


def test_trials_run_side_by_side_one_is_evicted_and_the_best_values_are_published(
    platform: Platform, searched: Manifest, tmp_path: Path
) -> None:
    def show() -> str:
        return platform.show("finetune", NAME)

    wait_for("two trials that run", lambda: {"trial-0", "trial-1"} <= children(platform, "pods").keys(), SECONDS, show)
    seen = status(platform)
    assert seen["phase"] == "Searching"
    assert (seen["trials"]["of"], seen["trials"]["running"]) == (4, 2)
    assert (seen["progress"]["done"], seen["progress"]["unit"]) == ("0/4", "Trials")
    platform.evict(children(platform, "pods")["trial-1"])
    # An operator that is started anew finds the search in its Jobs.
    wait_for("the second generation", lambda: "trial-3" in children(platform, "jobs"), SECONDS, show)
    before = {role: job["metadata"]["uid"] for role, job in children(platform, "jobs").items()}
    platform.end_leader(hard=True)

    found = platform.wait("finetune", NAME, "Succeeded", "True", SECONDS)["status"]
    jobs = children(platform, "jobs")
    assert {role: jobs[role]["metadata"]["uid"] for role in before} == before
    assert jobs.keys() == {"suggest-0", "suggest-1", "trial-0", "trial-1", "trial-2", "trial-3", "train"}
    assert found["trials"]["failed"] == found["trials"]["running"] == 0
    assert found["trials"]["succeeded"] + found["trials"]["pruned"] == 4
    results = {number: result(jobs[f"trial-{number}"]) for number in range(4)}
    values = {number: said["value"] for number, said in results.items() if "value" in said}
    best = min(values, key=lambda number: values[number])
    assert found["best"]["trial"] == best
    assert found["best"]["value"] == pytest.approx(values[best], rel=1e-3)
    assert found["search"]["curve"][-1] == {"trial": best, "value": found["best"]["value"]}

    client(platform).pull(Source(uri=f"oci://{found['adapter']['reference']}"), tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert str(config["r"]) == found["best"]["parameters"]["lora.rank"]
    assert found["learning"]["evalLoss"] == pytest.approx(values[best], rel=1e-3), "trained again with the same values"
    client(platform).pull(Source(uri=f"oci://{found['search']['report']}"), tmp_path / "page")
    said = json.loads((tmp_path / "page" / "search.json").read_text())
    assert (said["best"], len(said["trials"])) == (best, 4)
    assert "<svg" in (tmp_path / "page" / "search.html").read_text()
    assert said["name"] == jobs["train"]["metadata"]["name"]


def test_a_value_that_a_field_cannot_have_is_refused_with_its_name(platform: Platform, searched: Manifest) -> None:
    bad = json.loads(json.dumps(searched))
    bad["metadata"]["name"] = "searched-badly"
    bad["spec"]["search"]["space"] = [{"name": "scheduler", "choice": ["Cosine", "Sine"]}]
    platform.apply(bad)
    try:
        found = platform.wait("finetune", "searched-badly", "Accepted", "False", 60)
        (told,) = (c for c in found["status"]["conditions"] if c["type"] == "Accepted")
        assert told["reason"] == "InvalidSpec"
        assert told["message"].startswith("spec.search.space.0: Value error, scheduler cannot be Sine: ")
    finally:
        platform.kubectl("delete", "finetune", "searched-badly", "-n", NAMESPACE)
