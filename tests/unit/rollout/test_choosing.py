"""Variant Auto: each hardware class gets the fastest variant that keeps the gates there."""

from typing import Any

import pytest

from slmops.api.edgedeployment import EdgeDeployment
from slmops.plan.choosing import KEY
from slmops.state import LABEL_ROLE, Manifest
from tests.unit.edgeworld import World

AUTO = {"name": "farms", "selector": {"matchLabels": {"pool": "farms"}}, "variant": "Auto"}
BOTH = {"n1": "small", "n2": "big", "n3": "small", "n4": "big"}


def fleet(*models: str, nodes: dict[str, str] = BOTH, **spec: Any) -> World:
    """A pool that takes what is best of these."""
    model = spec.pop("model", {"quantizedModel": {"name": "q"}})
    world = World(nodes, **{"pools": [AUTO]} | spec)
    world.change(model=model)
    world.quantize(*models)
    return world


def served(world: World) -> dict[str, list[str]]:
    return {name: world.serving(name) for name in world.nodes}


def choices(world: World) -> dict[str, str]:
    return {choice["hardware"]: choice["variant"] for choice in world.status["choices"]}


def jobs(world: World, role: str = "choose") -> list[Manifest]:
    return [job for job in world.of_kind("Job") if job["metadata"]["labels"][LABEL_ROLE] == role]


def test_each_class_gets_the_fastest_that_keeps_the_gates() -> None:
    world = fleet("lame-1", "broad-1", "good-1", "broken-1")
    world.settle()
    assert world.status["phase"] == "Ready"
    assert choices(world) == {"small": "good-1", "big": "broad-1"}
    assert served(world) == {"n1": ["good-1"], "n2": ["broad-1"], "n3": ["good-1"], "n4": ["broad-1"]}
    small = next(choice for choice in world.status["choices"] if choice["hardware"] == "small")
    assert small["speeds"] == {"broad-1": 25, "good-1": 30}
    assert "TokensPerSecond is 10" in small["refused"]["lame-1"]
    assert set(small["refused"]) == {"lame-1", "broken-1"}
    assert jobs(world) == [], "what was chosen is in the status"
    assert world.operate() == 0


def test_of_equals_the_one_that_is_named_first() -> None:
    world = fleet("good-2", "good-1", nodes={"n1": "small"})
    world.settle()
    assert choices(world) == {"small": "good-2"}


def test_where_none_keeps_the_gates_the_first_one_fails_in_its_turn() -> None:
    world = fleet("slow-1", "lame-1", nodes={"n1": "small"})
    world.settle()
    assert choices(world) == {"small": "slow-1"}
    assert world.status["lastOutcome"]["reason"] == "GateFailed"
    assert served(world) == {"n1": []}


def test_one_is_measured_after_the_other_and_nothing_else_begins_meanwhile() -> None:
    world = fleet("good-1", "broad-1", nodes={"n1": "small", "n2": "small"})
    seen = 0
    while not world.of_kind("DaemonSet"):
        world.operate()
        running = world.unfinished("choose")
        assert len(running) <= 1
        seen += len(running)
        world.turn()
        problem = world.condition("InputsResolved") if world.status.get("phase") == "Pending" else None
        assert problem is None or problem["reason"] == "ChoosingVariant"
    assert seen >= 2


def test_a_server_of_its_own_is_asked_in_the_same_pod() -> None:
    world = fleet("good-1", "broad-1")
    world.operate()
    job = jobs(world)[0]
    pod = job["spec"]["template"]["spec"]
    (server,) = pod["initContainers"]
    assert server["restartPolicy"] == "Always"
    assert "startupProbe" not in server, "a server that never gets ready would keep the benchmark from ending"
    config = world.objects["ConfigMap", job["metadata"]["name"]]["data"]
    assert set(config) == {"run.json", KEY}
    (mounted,) = (m for m in server["volumeMounts"] if m["name"] == "serve")
    (volume,) = (v for v in pod["volumes"] if v["name"] == "serve")
    assert (mounted["mountPath"], volume["configMap"]["items"]) == ("/etc/slmops", [{"key": KEY, "path": "run.json"}])
    assert server["securityContext"] == pod["containers"][0]["securityContext"]


def test_other_images_are_chosen_from_anew_while_the_old_ones_serve() -> None:
    world = fleet("good-1", "broad-1")
    world.settle()
    world.quantize("broad-2", "good-2")
    for _ in world.to_rest():
        assert all(served(world).values()), "what was chosen before serves"
    assert served(world) == {"n1": ["good-2"], "n2": ["broad-2"], "n3": ["good-2"], "n4": ["broad-2"]}
    assert world.status["lastOutcome"]["outcome"] == "Promoted"


def test_a_class_that_joins_is_measured_and_changes_nothing_for_the_others() -> None:
    world = fleet("good-1", "broad-1", nodes={"n1": "small"})
    world.settle()
    stable, pods = world.status["stable"]["revision"], {p["metadata"]["uid"] for p in world.pods_on("n1", "serve")}
    world.join("n2", "big")
    world.settle()
    assert served(world) == {"n1": ["good-1"], "n2": ["broad-1"]}
    assert world.status["stable"]["revision"] == stable
    assert {p["metadata"]["uid"] for p in world.pods_on("n1", "serve")} == pods
    assert {pool["name"] for pool in world.status["pools"]} == {"farms.small", "farms.big"}


def test_a_class_that_was_away_while_others_were_chosen_is_measured_when_it_is_back() -> None:
    world = fleet("good-1", "broad-1", nodes={"n1": "small", "n2": "big"})
    world.settle()
    world.offline("n2")
    world.quantize("good-2", "broad-2")
    world.settle()
    assert served(world)["n1"] == ["good-2"]
    world.online("n2")
    for _ in world.to_rest():
        assert world.serving("n2"), "it keeps what it had until it has something else"
    assert world.serving("n2") == ["broad-2"]


def test_a_pool_whose_variant_was_named_before_serves_on_meanwhile() -> None:
    named = AUTO | {"variant": "good-1"}
    world = fleet("good-1", "broad-1", pools=[named])
    world.settle()
    assert set(map(tuple, served(world).values())) == {("good-1",)}
    world.change(pools=[AUTO])
    for _ in world.to_rest():
        assert all(served(world).values())
    assert served(world) == {"n1": ["good-1"], "n2": ["broad-1"], "n3": ["good-1"], "n4": ["broad-1"]}
    assert {pool["name"] for pool in world.status["pools"]} == {"farms.small", "farms.big"}
    assert len(world.of_kind("DaemonSet")) == 2, "those of the pool by its old name are gone"


def test_renaming_a_pool_interrupts_nothing() -> None:
    world = World(BOTH)
    world.settle()
    world.change(pools=[{"name": "fields", "selector": {"matchLabels": {"pool": "farms"}}}])
    for _ in world.to_rest():
        assert all(served(world).values())
    assert {labels["slmops.dev/pool"] for labels in (d["metadata"]["labels"] for d in world.of_kind("DaemonSet"))} == {
        "fields"
    }


def test_a_lost_job_changes_nothing_that_was_chosen() -> None:
    world = fleet("good-1", "broad-1", nodes={"n1": "big"})
    world.settle()
    before = world.status["choices"]
    for _ in range(5):
        world.turn()
    assert world.status["choices"] == before
    assert choices(world) == {"big": "broad-1"}


@pytest.mark.parametrize("event", ["leave", "relabel", "offline"])
def test_a_node_that_goes_while_it_is_measured_holds_nothing_up(event: str) -> None:
    world = fleet("good-1", "broad-1", nodes={"n1": "small", "n2": "small"})
    world.settle()
    world.quantize("good-2", "broad-2")
    world.operate()
    (job,) = jobs(world)
    name = job["metadata"]["annotations"]["slmops.dev/node"].removesuffix(".local")
    if event == "relabel":
        world.relabel(name, None)
    else:
        getattr(world, event)(name)
    world.operate()
    other = "n2" if name == "n1" else "n1"
    assert {job["metadata"]["annotations"]["slmops.dev/node"] for job in jobs(world)} == {
        f"{name}.local",
        f"{other}.local",
    }
    world.settle()
    assert served(world)[other] == ["good-2"]
    if event == "offline":
        world.online(name)
        world.settle()
    assert jobs(world) == []


def test_a_variant_that_takes_its_nodes_down_is_refused_in_the_end() -> None:
    world = fleet("good-1", "broad-1", nodes={f"n{number}": "small" for number in range(5)})
    world.settle()
    world.quantize("fatal-2", "good-2")
    down = []
    while len(down) < 3:
        world.operate()
        job = next(job for job in jobs(world) if job["metadata"]["annotations"]["slmops.dev/node"] not in down)
        down.append(job["metadata"]["annotations"]["slmops.dev/node"])
        world.offline(down[-1].removesuffix(".local"))
    world.settle()
    (choice,) = world.status["choices"]
    assert choice["variant"] == "good-2"
    assert choice["refused"] == {"fatal-2": "its node went away in each of 3 measurements"}
    assert len(set(down)) == 3


def test_no_two_are_measured_on_one_node_when_a_measurement_that_failed_is_made_again() -> None:
    world = fleet("broken-1", "good-4", nodes={"n1": "small"})
    while len(jobs(world)) < 2:
        world.operate()
        world.jobs()
        if len(jobs(world)) < 2:
            world.kubelet("n1")
    world.offline("n1")
    world.advance(5)
    world.online("n1")
    for _ in range(4):
        world.operate()
        running = world.unfinished("choose")
        assert len(running) == 1
    world.settle()
    assert choices(world) == {"small": "good-4"}


def test_a_measurement_that_failed_while_its_node_was_away_refuses_nothing() -> None:
    world = fleet("good-1", nodes={"n1": "small"})
    world.operate()
    (job,) = jobs(world)
    world.offline("n1")
    job["status"] = {"conditions": [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}]}
    for _ in range(3):
        world.operate()
    assert not world.status.get("choices")
    world.online("n1")
    world.settle()
    assert choices(world) == {"small": "good-1"}


def test_of_images_that_changed_meanwhile_nothing_is_measured_beside_the_old_ones() -> None:
    world = fleet("good-1", "broad-1", nodes={"n1": "small"})
    world.operate()
    (old,) = jobs(world)
    world.quantize("good-2", "broad-2")
    world.operate()
    assert jobs(world) == []
    world.operate()
    (new,) = jobs(world)
    assert new["metadata"]["name"] != old["metadata"]["name"]


def test_a_node_under_a_pause_is_not_measured() -> None:
    world = fleet("good-1", "broad-1", paused=True)
    for _ in range(10):
        world.turn()
    assert jobs(world) == []


def test_what_has_to_be_signed_is_looked_at_before_any_node_pulls_it() -> None:
    key = {"configMap": "publisher"}
    for good, models in ((True, ("good-1", "broad-1")), (False, ("good-1", "unsigned-1"))):
        world = fleet(*models, model={"quantizedModel": {"name": "q"}, "verify": key})
        seen = set[str]()
        for _ in world.to_rest():
            seen |= {job["metadata"]["labels"][LABEL_ROLE] for job in world.of_kind("Job")}
            assert "verify" in seen or not seen
        assert ("choose" in seen) == good
        assert (world.status["phase"] == "Ready") == good


def test_the_status_is_read_back() -> None:
    world = fleet("good-1", "broad-1")
    world.settle()
    read = EdgeDeployment.model_validate(world.parent)
    assert {choice.variant for choice in read.status.choices} == {"good-1", "broad-1"}
