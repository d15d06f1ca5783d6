"""A training that loses its pod, its node or the operator goes on from its checkpoint and learns what it would have;
so does one that is spread over two nodes."""

import json
import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demo.assets import records
from demo.steps import Manifest, wait_for
from demo.task import IRRIGATION
from slmkit.data import write_messages
from slmkit.registry import Registry
from slmops import contract
from slmops.contract import DATASET_TYPE, Sink, Source
from tests.cluster import Cluster
from tests.e2e.platform import NAMESPACE, Platform

pytestmark = [pytest.mark.cluster, pytest.mark.long]
SECONDS = 600
STEPS = 160
"""Enough that an idle machine, too, is still at them when the second pod is killed."""
TAINT = "node.kubernetes.io/out-of-service"
"""How an administrator, or a cloud, says that a node will not come back by itself: its pods are given up."""


@pytest.fixture(scope="module")
def data(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Forty records in the registry."""
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    write_messages(path, records((IRRIGATION,), 4, 40))
    client = Registry(contract.Registry(plain_http=platform.cluster.plain_http))
    sink = Sink(repository=f"{platform.registry}/slm/data/e2e-resume")
    client.tag(sink, client.push_artifact(sink, {path.name: path}, DATASET_TYPE, {}), "v1")
    return f"oci://{sink.repository}:v1"


def training(platform: Platform, name: str, data: str, **run: Any) -> Manifest:
    """Steps without chance, kept every five."""
    # It asks for less than it may use, so that one small node holds it beside a demo on the same cluster.
    memory = {"requests": {"memory": "500Mi"}, "limits": {"memory": "1500Mi"}}
    volume = {"volume": {"size": "100Mi"}, "retries": 1, "resources": memory}
    return {
        "apiVersion": "slmops.dev/v1alpha1", "kind": "FineTune", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "base": {"uri": f"oci://{platform.registry}/slm/teacher:v1"},
            "lora": {"rank": 4, "dropout": 0.0},
            "merge": False,
            "data": {"train": {"uri": data}, "validationSplit": 0.2},
            "training": {"epochs": 1000, "maxSteps": STEPS, "batchSize": 4, "precision": "FP32",
                         "checkpoint": {"everySteps": 5}},
            "evaluation": {"samples": 2, "maxNewTokens": 8},
            "run": volume | run,
            "output": {"repository": f"{platform.registry}/slm/{name}"},
        },
    }  # fmt: skip


def progress(platform: Platform, name: str) -> Manifest:
    """How far the resource says it is."""
    return dict(((platform.kubectl.get("finetune", name) or {}).get("status") or {}).get("progress") or {})


def pods(platform: Platform, name: str, phase: str = "Running") -> list[Manifest]:
    """The pods of a resource in a phase that nobody has deleted."""
    found = platform.kubectl.items("pods", "-l", f"slmops.dev/name={name}")
    return [p for p in found if p["status"].get("phase") == phase and not p["metadata"].get("deletionTimestamp")]


def until_kept(platform: Platform, name: str, step: int) -> None:
    """Wait for a checkpoint of at least this step."""
    wait_for(f"{name} to be kept at step {step}", lambda: progress(platform, name).get("lastCheckpoint", 0) >= step,
             SECONDS, lambda: platform.show("finetune", name))  # fmt: skip


def adapter(platform: Platform, name: str, folder: Path) -> dict[str, Any]:
    """What was learned, by name."""
    made = platform.wait("finetune", name, "Succeeded", "True", SECONDS)["status"]["adapter"]["reference"]
    client = Registry(contract.Registry(plain_http=platform.cluster.plain_http))
    client.pull(Source(uri=f"oci://{made}"), folder / name)
    raw = (folder / name / "adapter_model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    body = raw[8 + length :]
    return {
        key: np.frombuffer(body[slice(*tensor["data_offsets"])], dtype=np.float32).reshape(tensor["shape"])
        for key, tensor in header.items()
        if key != "__metadata__"
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """The same weights, but for rounding; and they are no zeros."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], atol=2e-5, err_msg=name)
    assert max(float(np.abs(value).max()) for name, value in one.items() if "lora_B" in name) > 1e-3


@pytest.fixture(scope="module")
def whole(platform: Platform, data: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a training learns that nobody disturbs."""
    platform.apply(training(platform, "whole", data))
    return adapter(platform, "whole", tmp_path_factory.mktemp("whole"))


def kill(pod: Manifest) -> None:
    """End every process of a pod's image, as a crash does."""
    killed = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            ours = pod["metadata"]["uid"] in (entry / "cgroup").read_text()
            if ours and b"slm_trainer" in (entry / "cmdline").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)
                killed += 1
        except OSError:
            continue
    assert killed, f"no process of {pod['metadata']['name']}"


def test_whatever_is_taken_away_the_training_learns_the_same(
    platform: Platform, local: Cluster, data: str, whole: dict[str, Any], tmp_path: Path
) -> None:
    name = "broken"
    platform.apply(training(platform, name, data))
    until_kept(platform, name, 5)
    (first,) = pods(platform, name)
    said = progress(platform, name)
    assert said["firstStep"]
    print("from the start of the pod to its first step:", said["firstStep"])

    platform.evict(first)
    wait_for("the training to be taken up again", lambda: progress(platform, name).get("resumes") == 1, SECONDS,
             lambda: platform.show("finetune", name))  # fmt: skip
    assert not progress(platform, name).get("lostSteps"), "what is told to stop keeps its last step"
    (second,) = pods(platform, name)
    kill(second)
    wait_for("the training to be taken up once more", lambda: progress(platform, name).get("resumes") == 2, SECONDS,
             lambda: platform.show("finetune", name))  # fmt: skip
    platform.end_leader(hard=True)  # the operator's death is nothing to a training: it is not taken up a third time

    same(adapter(platform, name, tmp_path), whole)
    found = platform.kubectl.get("finetune", name) or {}
    assert found["status"]["progress"]["resumes"] == 2
    job = platform.kubectl.items("jobs", "-l", f"slmops.dev/name={name}")[0]
    assert job["status"].get("failed", 0) <= 1, "the eviction was counted as a failure"
    claims = ("persistentvolumeclaims", "-l", f"slmops.dev/name={name}")
    wait_for("the volume to be gone", lambda: not platform.kubectl.items(*claims), 60)


@pytest.fixture
def revived(local: Cluster) -> Iterator[list[str]]:
    """Names of nodes that are started again, whatever happens."""
    dead: list[str] = []
    yield dead
    for name in dead:
        local.node(name).start()
        wait_for(f"{name} to be Ready again", local.node(name).comes, 120)


def test_a_node_that_dies_takes_no_training_with_it(
    platform: Platform, local: Cluster, data: str, whole: dict[str, Any], revived: list[str], tmp_path: Path
) -> None:
    name = "homeless"
    platform.apply(training(platform, name, data, nodeSelector={"pool": "farms"}))
    until_kept(platform, name, 5)
    (pod,) = pods(platform, name)
    node = pod["spec"]["nodeName"]
    revived.append(node)
    local.node(node).kill()
    wait_for(f"{node} to be known as dead", lambda: not local.node(node).ready(), 60)
    platform.kubectl("taint", "node", node, f"{TAINT}=nodeshutdown:NoExecute")
    try:
        wait_for("a pod on another node", lambda: [p["spec"]["nodeName"] for p in pods(platform, name)] not in ([], [node]),
                 SECONDS, lambda: platform.show("finetune", name))  # fmt: skip
        same(adapter(platform, name, tmp_path), whole)
    finally:
        platform.kubectl("taint", "node", node, f"{TAINT}-")
    status = (platform.kubectl.get("finetune", name) or {})["status"]
    assert status["progress"]["resumes"] == 1
    assert status["progress"]["lostSteps"] <= 5 + 1, "more than between two checkpoints"


def test_two_nodes_learn_what_one_does_also_when_one_is_lost(
    platform: Platform, local: Cluster, data: str, whole: dict[str, Any], tmp_path: Path
) -> None:
    name = "spread"
    platform.apply(training(platform, name, data, nodes=2))
    until_kept(platform, name, 5)
    group = pods(platform, name)
    ranks = {p["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]: p for p in group}
    assert set(ranks) == {"0", "1"}
    assert len({pod["spec"]["nodeName"] for pod in group}) == 2
    kill(ranks["1"])
    wait_for("the group to be taken up again", lambda: progress(platform, name).get("resumes") == 1, SECONDS,
             lambda: platform.show("finetune", name))  # fmt: skip
    assert {p["metadata"]["uid"] for p in pods(platform, name)}.isdisjoint(p["metadata"]["uid"] for p in group)
    same(adapter(platform, name, tmp_path), whole)
    job = platform.kubectl.items("jobs", "-l", f"slmops.dev/name={name}")[0]
    assert job["status"].get("failed", 0) <= 1, "who lost the other was counted as failed, too"
