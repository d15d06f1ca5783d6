"""What can never fit on a node is told before anything is begun there, and what a wave costs the network as well."""

from decimal import Decimal
from typing import Any

import pytest

from slmops.rollout.fit import Need, misfit
from slmops.rollout.fleet import Node
from slmops.rollout.revision import wanted
from slmops.state import Manifest, Observed, Problem
from tests.unit.edgeworld import World
from tests.unit.fleet_builders import SETTINGS, deployment, image

MIB = 2**20
NAMES = ("n0", "n1", "n2", "n3")


def machine(memory: str | None = "2Gi", disk: str | None = "10Gi") -> Node:
    return Node("n", "n.local", "small", ready=True, memory=memory, disk=disk)


def daemon_set(memory: str) -> Manifest:
    return {"spec": {"template": {"spec": {"containers": [{"resources": {"requests": {"memory": memory}}}]}}}}


@pytest.mark.parametrize(
    ("memory", "image", "node", "beside", "found"),
    [
        (512, None, machine(), None, ""),
        (512, 9 << 30, machine(), None, ""),
        (512, 11 << 30, machine(), None, "the model image has 11Gi, and the node's disk 10Gi for pods and images"),
        (512, 11 << 30, machine(disk=None), None, ""),
        (512, 11 << 30, machine(disk="a lot"), None, ""),
        (4096, None, machine(), None, "its server requests 4Gi of memory, and the node has 2Gi for pods"),
        (4096, None, machine(memory=None), None, ""),
        (1024, None, machine(), "1Gi", ""),
        (1025, None, machine(), "1Gi", "its server requests 1.001Gi of memory, beside the stable one's 1Gi, and the node "
                                       "has 2Gi for pods"),
    ],
)  # fmt: skip
def test_what_can_never_fit(memory: int, image: int | None, node: Node, beside: str | None, found: str) -> None:
    incumbent = daemon_set(beside) if beside else None
    assert misfit(Need(Decimal(memory * MIB), image), node, incumbent) == found


def fleet(**spec: Any) -> World:
    """Four nodes that serve good-1."""
    limits = {"strategy": {"failureLimit": {"minimum": 2}}}
    world = World(dict.fromkeys(NAMES, "small"), **limits | spec)
    world.settle()
    return world


def jobs_on(world: World, name: str) -> list[Manifest]:
    return [job for job in world.of_kind("Job")
            if job["metadata"]["annotations"]["slmops.dev/node"] == f"{name}.local"]  # fmt: skip


def test_a_node_that_is_too_small_is_left_out_before_anything_begins() -> None:
    world = fleet()
    world.nodes["n1"]["status"]["allocatable"] = {"memory": "400Mi"}
    world.deploy("good-2")
    said = "requests 256Mi of memory, beside the stable one's 256Mi, and the node has 400Mi for pods"
    while world.serving("n0") != ["good-2"]:
        world.turn()
        assert not jobs_on(world, "n1")
        assert said in world.condition("Progressing")["message"]
        assert world.status["pools"][0]["nodes"]["failed"] == 1
    world.settle()
    assert world.status["lastOutcome"]["outcome"] == "Promoted"
    assert [world.serving(name) for name in NAMES] == [["good-2"]] * 4, "once the stable one goes there is room"


def test_where_none_may_be_left_out_it_is_the_candidate_that_fails() -> None:
    world = fleet(strategy={})
    world.nodes["n1"]["status"]["allocatable"] = {"memory": "400Mi"}
    world.deploy("good-2")
    world.settle()
    assert world.status["lastOutcome"]["reason"] == "NodeTooSmall"
    assert [world.serving(name) for name in NAMES] == [["good-1"]] * 4


def test_a_node_under_pressure_is_skipped_and_follows_once_that_is_over() -> None:
    world = fleet()
    pressure = {"type": "DiskPressure", "status": "True"}
    world.nodes["n1"]["status"]["conditions"].append(pressure)
    world.version += 1
    world.deploy("good-2")
    for _ in range(12):
        world.turn()
        assert not jobs_on(world, "n1")
    assert world.status["pools"][0]["nodes"]["pressed"] == 1
    world.settle()
    assert world.status["lastOutcome"]["outcome"] == "Promoted"
    pressure["status"] = "False"
    world.version += 1
    world.settle()
    assert world.serving("n1") == ["good-2"]
    assert "pressed" not in world.status["pools"][0]["nodes"]


def test_pressure_that_comes_later_ends_no_turn() -> None:
    world = fleet()
    world.deploy("good-2")
    while not jobs_on(world, "n0"):
        world.turn()
    world.nodes["n0"]["status"]["conditions"].append({"type": "MemoryPressure", "status": "True"})
    world.settle()
    assert world.status["lastOutcome"]["outcome"] == "Promoted"


def test_a_model_larger_than_its_servers_memory_fails_on_the_first_node_that_has_it() -> None:
    world = fleet()
    world.deploy("huge-1")
    world.settle()
    outcome = world.status["lastOutcome"]
    assert (outcome["outcome"], outcome["reason"]) == ("RolledBack", "ModelTooLarge")
    assert "has 1.5Gi, and its server may have 1Gi of memory: raise spec.runtime.resources.limits.memory" in \
        outcome["message"]  # fmt: skip
    assert len({job["metadata"]["annotations"]["slmops.dev/node"] for job in world.of_kind("Job")
                if job["metadata"]["labels"]["slmops.dev/role"] == "pull"}) <= 1  # fmt: skip


@pytest.mark.parametrize(
    ("size", "resources", "refused"),
    [("900Mi", None, ""), ("1.5Gi", None, "raise spec.runtime.resources.limits.memory"), ("1.5Gi", "2Gi", ""),
     ("3Gi", "2Gi", "raise spec.pools[farms].resources.limits.memory"), (None, None, "")],
)  # fmt: skip
def test_a_quantized_model_that_is_too_large_is_refused_before_any_node(
    size: str | None, resources: str | None, refused: str
) -> None:
    pool: Manifest = {"name": "farms", "selector": {"matchLabels": {"pool": "farms"}}}
    pool |= {"resources": {"limits": {"memory": resources}}} if resources else {}
    variant = {"name": "int4", "phase": "Ready", "reference": image("int4")} | ({"size": size} if size else {})
    source = {"metadata": {"name": "q", "generation": 1}, "spec": {"variants": [{"name": "int4"}]},
              "status": {"observedGeneration": 1, "variants": [variant]}}  # fmt: skip
    resource = deployment(model={"quantizedModel": {"name": "q"}}, pools=[pool])
    found = wanted(resource, Observed(references={("QuantizedModel", "q"): source}), SETTINGS)
    assert isinstance(found, Problem) == bool(refused)
    if isinstance(found, Problem):
        assert found.reason == "ModelTooLarge"
        assert refused in found.message


def test_bytes_are_told_for_each_node_and_for_the_wave() -> None:
    world = fleet(strategy={"waves": [{"name": "canary", "nodes": 1}, {"name": "rest", "nodes": "100%"}]})
    world.deploy("good-2")
    world.operate()
    assert "pulls" not in world.status["wave"], "an image that nobody has pulled yet"
    seen = {}
    for _ in world.to_rest():
        if wave := world.status.get("wave"):
            seen.setdefault(wave["name"], []).append(wave.get("pulls"))
            sizes = world.status["candidate"].get("sizes")
    assert sizes == {"farms": "512Mi"}
    assert set(seen["canary"]) - {None} == {"512Mi"}
    assert set(seen["rest"]) == {"1.5Gi"}, "three more nodes"


def test_another_server_of_the_same_model_is_nothing_to_pull() -> None:
    world = fleet()
    world.change(runtime={"maxQueue": 8})
    world.operate()
    assert world.status["wave"]["pulls"] == "0"
