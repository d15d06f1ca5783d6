"""Strategies beside waves: blue and green, two revisions side by side, and all at once."""

from typing import Any

import pytest

from tests.unit.edgeworld import World

NAMES = ("n0", "n1", "n2")


def fleet(model: str = "good-2", **strategy: Any) -> World:
    """Three nodes that serve good-1, and are asked for another model."""
    world = World(dict.fromkeys(NAMES, "small"), strategy={"type": "BlueGreen"} | strategy)
    world.settle()
    world.deploy(model)
    return world


def receives(world: World) -> set[str]:
    """Models that the Service sends requests to."""
    (service,) = world.of_kind("Service")
    wanted = service["spec"]["selector"].get("slmops.dev/revision")
    models = set()
    for name in NAMES:
        for pod in world.pods_on(name, "serve"):
            ready = any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"])
            if ready and wanted in (None, pod["metadata"]["labels"]["slmops.dev/revision"]):
                models |= set(world.serving(name)) if wanted is None else {_model(world, wanted)}
    return models


def _model(world: World, revision: str) -> str:
    for role in ("stable", "candidate"):
        known = world.status.get(role) or {}
        if known.get("revision") == revision:
            return str(known["images"]["farms"].split("/")[-1].split("@")[0])
    return revision


def until(world: World, done: Any) -> list[set[str]]:
    """Turn until it is so; what got requests after each turn."""
    seen = []
    for _ in range(200):
        world.turn()
        seen.append(receives(world))
        if done():
            return seen
    raise AssertionError(world.status)


def test_traffic_goes_to_one_revision_at_any_time_and_is_switched_once() -> None:
    world = fleet(hold="10m")
    seen = until(world, lambda: receives(world) == {"good-2"})
    assert all(models in ({"good-1"}, {"good-2"}) for models in seen)
    assert [world.serving(name) for name in NAMES] == [["good-1", "good-2"]] * 3, "both are there"
    assert world.condition("Progressing")["reason"] == "Soaking"
    world.advance(600)
    world.settle()
    assert world.status["lastOutcome"]["outcome"] == "Promoted"
    assert [world.serving(name) for name in NAMES] == [["good-2"]] * 3
    assert receives(world) == {"good-2"}


def test_the_first_one_of_all_has_nothing_to_hold() -> None:
    world = World(dict.fromkeys(NAMES, "small"), strategy={"type": "BlueGreen", "hold": "1h"})
    for _ in range(60):
        world.turn()
    assert world.status["phase"] == "Ready"


def test_it_is_switched_back_at_once_when_somebody_aborts() -> None:
    world = fleet(hold="10m")
    until(world, lambda: receives(world) == {"good-2"})
    world.say(abort=world.status["candidate"]["revision"])
    before = {pod["metadata"]["uid"] for name in NAMES for pod in world.pods_on(name, "serve")}
    world.operate()
    (service,) = world.of_kind("Service")
    assert service["spec"]["selector"]["slmops.dev/revision"] == world.status["stable"]["revision"]
    world.settle()
    after = {pod["metadata"]["uid"] for name in NAMES for pod in world.pods_on(name, "serve")}
    assert after < before, "from what was there, with no new pod"
    assert receives(world) == {"good-1"}


@pytest.mark.parametrize("model", ["slow-1", "crashing-1", "broken-1"])
def test_what_fails_never_gets_a_request(model: str) -> None:
    world = fleet(model)
    seen = until(world, lambda: world.status["phase"] == "Degraded")
    world.settle()
    assert all(models == {"good-1"} for models in seen)
    assert [world.serving(name) for name in NAMES] == [["good-1"]] * 3


def test_a_server_that_is_unready_for_a_moment_does_not_switch_it_back() -> None:
    world = fleet(hold="10m")
    until(world, lambda: receives(world) == {"good-2"})
    (pod,) = [p for p in world.pods_on("n1", "serve") if p["metadata"]["labels"]["slmops.dev/revision"]
              == world.status["candidate"]["revision"]]  # fmt: skip
    world.crash(pod)
    world.operate()
    (service,) = world.of_kind("Service")
    assert service["spec"]["selector"]["slmops.dev/revision"] == world.status["candidate"]["revision"]


def test_the_service_asks_all_servers_once_it_is_blue_and_green_no_more() -> None:
    world = fleet()
    world.settle()
    (service,) = world.of_kind("Service")
    assert service["spec"]["selector"]["slmops.dev/revision"] == world.status["stable"]["revision"]
    world.change(strategy={"type": "Canary"})
    world.settle()
    assert "slmops.dev/revision" not in world.of_kind("Service")[0]["spec"]["selector"]
    world.deploy("good-3")
    world.settle()
    assert receives(world) == {"good-3"}


def test_all_at_once_is_every_node_at_the_same_time() -> None:
    world = fleet(type="AllAtOnce")
    world.operate()
    pulls = [job for job in world.of_kind("Job") if job["metadata"]["labels"]["slmops.dev/role"] == "pull"]
    assert len(pulls) == 3
    world.settle()
    assert [world.serving(name) for name in NAMES] == [["good-2"]] * 3
    (service,) = world.of_kind("Service")
    assert "slmops.dev/revision" not in service["spec"]["selector"]


def split(**strategy: Any) -> World:
    """Five nodes of two classes; half of them get another model, for an hour."""
    nodes = {"n0": "small", "n1": "small", "n2": "small", "n3": "big", "n4": "big"}
    world = World(nodes, strategy={"type": "AB", "hold": "1h"} | strategy)
    world.settle()
    assert world.status["phase"] == "Ready", "the first one of all has nothing beside it"
    world.deploy("good-2")
    turns(world)
    return world


def turns(world: World) -> None:
    """Much less than the hour passes."""
    for _ in range(60):
        world.turn()


def served(world: World) -> list[str]:
    return sorted(model for name in world.nodes for model in world.serving(name))


def test_two_revisions_stay_side_by_side_until_a_person_decides() -> None:
    world = split()
    assert served(world) == ["good-1"] * 2 + ["good-2"] * 3
    assert {"good-2"} <= {model for name in ("n3", "n4") for model in world.serving(name)}, "one of each class"
    assert world.condition("Progressing")["reason"] == "Soaking"
    (service,) = world.of_kind("Service")
    assert "slmops.dev/revision" not in service["spec"]["selector"], "both are asked"
    world.advance(3600)
    world.settle()
    assert world.status["phase"] == "Waiting"
    candidate = world.status["candidate"]["revision"]
    for word in ("approve", "abort"):
        assert f"slmops.dev/{word}={candidate}" in world.condition("Progressing")["message"]
    world.advance(10 * 86400)
    world.settle()
    assert served(world) == ["good-1"] * 2 + ["good-2"] * 3, "nothing is promoted by itself"
    world.say(approve=f"{candidate}/rest")
    world.settle()
    assert served(world) == ["good-2"] * 5
    assert world.status["lastOutcome"]["outcome"] == "Promoted"


def test_what_was_compared_and_is_not_wanted_goes() -> None:
    world = split(split=1)
    assert served(world) == ["good-1"] * 3 + ["good-2"] * 2, "one of each class in any case"
    world.say(abort=world.status["candidate"]["revision"])
    world.settle()
    assert served(world) == ["good-1"] * 5
    assert world.status["lastOutcome"]["outcome"] == "Aborted"


def test_an_early_approval_does_not_cut_the_comparison_short() -> None:
    world = split()
    world.say(approve=f"{world.status['candidate']['revision']}/rest")
    turns(world)
    assert served(world) == ["good-1"] * 2 + ["good-2"] * 3
    world.advance(3600)
    world.settle()
    assert served(world) == ["good-2"] * 5
