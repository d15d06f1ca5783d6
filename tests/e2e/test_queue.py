"""GPUs, queues and budgets on the cluster, with Kueue's own controllers."""

from collections.abc import Iterator
from typing import Any

import pytest

from demo.assets import records
from demo.steps import Manifest, condition, wait_for
from demo.task import IRRIGATION
from slmkit.data import write_messages
from slmkit.registry import Registry
from slmops import contract
from slmops.contract import DATASET_TYPE, Sink
from tests.cluster import Cluster
from tests.e2e.platform import NAMESPACE, Platform

pytestmark = [pytest.mark.cluster, pytest.mark.long]
SECONDS = 600
GPU = "nvidia.com/gpu"
QUEUES = """\
apiVersion: kueue.x-k8s.io/v1beta2
kind: ResourceFlavor
metadata: {name: any-node}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata: {name: gpus}
spec:
  namespaceSelector: {}
  preemption: {withinClusterQueue: LowerPriority}
  resourceGroups:
    - coveredResources: [cpu, memory, nvidia.com/gpu]
      flavors:
        - name: any-node
          resources:
            - {name: cpu, nominalQuota: 8}
            - {name: memory, nominalQuota: 32Gi}
            - {name: nvidia.com/gpu, nominalQuota: 1}
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: e2e-urgent}
value: 1000
"""
LOCAL_QUEUE = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "LocalQueue",
               "metadata": {"name": "team-a", "namespace": NAMESPACE}, "spec": {"clusterQueue": "gpus"}}  # fmt: skip
STEPS = 200
BOTH = {"small": 2, "large": 4}
"""Adapters by name, with their ranks."""
OTHER_QUEUE = LOCAL_QUEUE | {"metadata": {"name": "team-b", "namespace": NAMESPACE}}


@pytest.fixture(scope="module")
def queues(platform: Platform, local: Cluster) -> Iterator[None]:
    """Kueue, with room for one GPU; the LocalQueue is for a test to make."""
    local.kueue()
    platform.kubectl("apply", "-f", "-", stdin=QUEUES)
    yield
    platform.kubectl("delete", "finetunes", "--all", "-n", NAMESPACE, "--timeout=120s")
    local.kueue_stop()
    platform.kubectl("delete", "priorityclass", "e2e-urgent", "--ignore-not-found")


@pytest.fixture(scope="module")
def client(platform: Platform) -> Registry:
    return Registry(contract.Registry(plain_http=platform.cluster.plain_http))


@pytest.fixture(scope="module")
def data(platform: Platform, client: Registry, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Forty records in the registry; their address by digest."""
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    write_messages(path, records((IRRIGATION,), 4, 40))
    sink = Sink(repository=f"{platform.registry}/slm/data/e2e-queue")
    return f"oci://{client.push_artifact(sink, {path.name: path}, DATASET_TYPE, {}).reference}"


def finetune(platform: Platform, name: str, data: str, steps: int = 6, **spec: Any) -> Manifest:
    """A FineTune on the GPU node, without a single retry."""
    run = {"nodeSelector": {"pool": "gpu"}, "retries": 0, "resources": {"limits": {GPU: 1}}} | spec.pop("run", {})
    return {
        "apiVersion": "slmops.dev/v1alpha1", "kind": "FineTune", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "base": {"uri": f"oci://{platform.registry}/slm/teacher:v1"}, "lora": {"rank": 4},
            "data": {"train": {"uri": data}, "validationSplit": 0.2},
            "training": {"epochs": 1000, "maxSteps": steps, "batchSize": 4},
            "evaluation": {"samples": 4, "maxNewTokens": 8},
            "output": {"repository": f"{platform.registry}/slm/{name}"}, "run": run, **spec,
        },
    }  # fmt: skip


def job(platform: Platform, name: str) -> Manifest:
    (found,) = platform.kubectl.items("jobs", "-l", f"slmops.dev/name={name}")
    return found


def phase(platform: Platform, name: str) -> str:
    return str(((platform.kubectl.get("finetune", name) or {}).get("status") or {}).get("phase"))


def reaches(platform: Platform, name: str, wanted: str) -> None:
    wait_for(f"{name} is {wanted}", lambda: phase(platform, name) == wanted, SECONDS,
             lambda: platform.show("finetune", name))  # fmt: skip


def test_a_run_waits_in_its_queue_and_says_so_until_kueue_admits_it(
    platform: Platform, queues: None, data: str
) -> None:
    platform.apply(finetune(platform, "queued", data, run={"queue": "team-a"}))
    reaches(platform, "queued", "Queued")
    told = platform.condition("finetune", "queued", "Trained")
    assert (told["status"], told["reason"]) == ("Unknown", "Queued")
    assert "waits in queue team-a" in told["message"]
    held = job(platform, "queued")
    assert held["spec"]["suspend"] is True
    platform.renewals(3)
    assert job(platform, "queued")["metadata"]["resourceVersion"] == held["metadata"]["resourceVersion"], (
        "nobody argues about it"
    )
    platform.apply(LOCAL_QUEUE)
    manifest = platform.wait("finetune", "queued", "Succeeded", "True", SECONDS)
    (pod,) = platform.kubectl.items("pods", "-l", "slmops.dev/name=queued")
    assert pod["spec"]["nodeName"] == "gpu1"
    assert pod["spec"]["containers"][0]["resources"]["limits"][GPU] == "1"
    cost = manifest["status"]["cost"]
    assert cost["gpuHours"] == cost["nodeHours"] > 0
    assert "amount" not in cost, "nobody said what an hour costs"
    leader = platform.metrics(platform.leader())
    assert leader['slmops_run_gpu_seconds_total{kind="FineTune"}'] >= cost["gpuHours"] * 3600 - 1


def test_a_preempted_run_is_queued_again_and_did_not_fail(platform: Platform, queues: None, data: str) -> None:
    platform.apply(LOCAL_QUEUE, finetune(platform, "patient", data, steps=120, run={"queue": "team-a"}))
    reaches(platform, "patient", "Training")
    urgent = {"queue": "team-a", "priorityClassName": "e2e-urgent"}
    platform.apply(finetune(platform, "urgent", data, run=urgent))
    reaches(platform, "patient", "Queued")
    assert "waits in queue team-a" in platform.condition("finetune", "patient", "Trained")["message"]
    platform.wait("finetune", "urgent", "Succeeded", "True", SECONDS)
    manifest = platform.wait("finetune", "patient", "Succeeded", "True", SECONDS)
    assert not job(platform, "patient")["status"].get("failed"), "there is not a single retry"
    assert manifest["status"]["cost"]["gone"]["gpuSeconds"] > 0, "the time before the preemption was used all the same"


def test_a_run_whose_estimate_is_beyond_the_budget_ends_before_the_long_part(
    platform: Platform, queues: None, data: str
) -> None:
    price = {"perGpuHour": "2.50", "perNodeHour": "0.10", "currency": "EUR"}
    budget = {"price": price, "max": "0.2"}
    platform.apply(finetune(platform, "dear", data, steps=100000, budget=budget))
    manifest = platform.wait("finetune", "dear", "Succeeded", "False", SECONDS)
    told = condition(manifest, "Succeeded")
    assert told["reason"] == "BudgetExceeded"
    for words in ("EUR are needed", "EUR are left of the budget", "s a step", "Raise spec.budget"):
        assert words in told["message"], told
    cost = manifest["status"]["cost"]
    assert cost["currency"] == "EUR"
    assert 0 < float(cost["amount"]) < 0.2
    assert job(platform, "dear")["status"]["failed"] == 1, "its estimate would be the same again"


def progress(platform: Platform, name: str) -> Manifest:
    """How far the resource says it is."""
    return dict(((platform.kubectl.get("finetune", name) or {}).get("status") or {}).get("progress") or {})


def test_a_run_that_has_used_its_budget_is_stopped_with_a_checkpoint_and_a_raised_bound_lets_it_go_on(
    platform: Platform, queues: None, data: str
) -> None:
    """The bound is lowered below what is spent once there are steps to lose: how long a pod takes to its first one is
    nothing to bet on."""
    spec = finetune(platform, "short", data, steps=300, run={"volume": {"size": "100Mi"}}, budget={"gpuHours": 1})
    spec["spec"]["training"] |= {"batchSize": 2, "checkpoint": {"everySteps": 5}}
    platform.apply(spec)
    wait_for("a checkpoint", lambda: progress(platform, "short").get("lastCheckpoint", 0) >= 5, SECONDS,
             lambda: platform.show("finetune", "short"))  # fmt: skip
    platform.patch("finetune", "short", {"budget": {"gpuHours": "0.0001"}})
    told = condition(platform.wait("finetune", "short", "Succeeded", "False", SECONDS), "Succeeded")
    assert told["reason"] == "BudgetExceeded"
    assert "spec.budget.gpuHours allows 0.0001" in told["message"], "the operator's word, not the run's own estimate"
    spent = (platform.kubectl.get("finetune", "short") or {})["status"]["cost"]["gpuHours"]
    # At once: the pod that was stopped may still be writing its last step, and the new one waits for it.
    platform.patch("finetune", "short", {"budget": {"gpuHours": 1}})
    manifest = platform.wait("finetune", "short", "Succeeded", "True", SECONDS)
    assert manifest["status"]["cost"]["gpuHours"] > spent, "what was spent stays spent"
    said = manifest["status"]["progress"]
    assert said["resumes"] == 1, "it was not begun anew"
    assert not said.get("lostSteps"), "who is told to stop keeps its last step"


def rows(platform: Platform, name: str) -> dict[str, Manifest]:
    """What the status says of each adapter."""
    status = (platform.kubectl.get("finetune", name) or {}).get("status") or {}
    return {row["name"]: row for row in status.get("adapters") or []}


def kept(row: Manifest) -> bool:
    """Whether there are steps to lose."""
    return bool((row.get("progress") or {}).get("lastCheckpoint", 0) >= 5)


def test_adapters_wait_in_the_queue_each_for_itself_and_one_budget_stops_them_all_until_it_is_raised(
    platform: Platform, queues: None, data: str
) -> None:
    """There is a GPU for one of the two. The queue is made once both are seen to wait."""
    name = "skills-in-turn"
    skills = finetune(platform, name, data, steps=STEPS, run={"queue": "team-b", "volume": {"size": "100Mi"}},
                      budget={"gpuHours": 1}, parallelism=2)  # fmt: skip
    source = skills["spec"].pop("data")
    skills["spec"]["adapters"] = [{"name": each, "data": source, "lora": {"rank": rank}} for each, rank in BOTH.items()]
    skills["spec"]["training"] |= {"batchSize": 2, "checkpoint": {"everySteps": 5}}
    platform.apply(skills)
    show = lambda: platform.show("finetune", name)  # noqa: E731
    wait_for("both to be Queued", lambda: {each: row["phase"] for each, row in rows(platform, name).items()}
             == dict.fromkeys(BOTH, "Queued"), SECONDS, show)  # fmt: skip
    assert phase(platform, name) == "Queued"
    assert platform.condition("finetune", name, "Trained")["message"].startswith("small, large: waits in queue team-b")

    platform.apply(OTHER_QUEUE)
    wait_for("a checkpoint of the one that was admitted", lambda: any(map(kept, rows(platform, name).values())), SECONDS,
             show)  # fmt: skip
    found = rows(platform, name)
    (first,) = (each for each, row in found.items() if kept(row))
    (second,) = found.keys() - {first}
    assert found[second]["phase"] == "Queued"
    assert "waits in queue team-b" in found[second]["message"]
    assert phase(platform, name) == found[first]["phase"] == "Training"

    platform.patch("finetune", name, {"budget": {"gpuHours": "0.0001"}})
    told = condition(platform.wait("finetune", name, "Succeeded", "False", SECONDS), "Succeeded")
    assert told["reason"] == "BudgetExceeded"
    assert told["message"].startswith("small, large: ")
    assert "spec.budget.gpuHours allows 0.0001" in told["message"]
    assert {row["phase"] for row in rows(platform, name).values()} == {"Failed"}

    platform.patch("finetune", name, {"budget": {"gpuHours": 1}})
    status = platform.wait("finetune", name, "Succeeded", "True", SECONDS)["status"]
    assert (status["ready"], status["image"]["reference"].startswith(platform.registry)) == ("2/2", True)
    found = rows(platform, name)
    assert {each: row["learning"]["steps"] for each, row in found.items()} == dict.fromkeys(BOTH, STEPS)
    assert found[first]["progress"]["resumes"] == 1, "it was not begun anew"
    assert "progress" not in found[second], "it had not begun"
