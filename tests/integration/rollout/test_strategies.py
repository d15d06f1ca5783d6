"""Strategies beside waves: blue and green, two revisions side by side, and all at once."""

from typing import Any

import pytest

from tests.unit.edgemachines import named
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
            return named(known["images"]["farms"])
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
    world.elapse(60)
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
    world.elapse(60)


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


def one_at_a_time(model: str = "good-2", **spec: Any) -> World:
    """Three nodes that hold one server each, and are asked for another model."""
    world = World(dict.fromkeys(NAMES, "small"), strategy={"cutOver": "StopThenDownload"}, **spec)
    world.settle()
    world.deploy(model)
    return world


def servers_on(world: World, name: str) -> int:
    return len([pod for pod in world.pods_on(name, "serve") if "deletionTimestamp" not in pod["metadata"]])


def run(world: World, done: Any, limit: int = 200) -> None:
    """Turn until it is so; never two servers on a node, but where one has failed and goes, and one node at a time without
    any."""
    for _ in range(limit):
        world.turn()
        assert all(servers_on(world, name) <= 1 for name in NAMES) or world.status["phase"] in ("Degraded", "Paused")
        assert sum(not world.serving(name) for name in NAMES) <= 1
        if done():
            return
    raise AssertionError(world.status)


def test_a_node_that_holds_one_server_is_stopped_first() -> None:
    world = one_at_a_time()
    roles = []
    for _ in range(60):
        world.turn()
        assert all(servers_on(world, name) <= 1 for name in NAMES)
        about = [job["metadata"]["labels"] for job in world.of_kind("Job")]
        candidate = (world.status.get("candidate") or {}).get("revision")
        roles += [labels["slmops.dev/role"] for labels in about if labels["slmops.dev/revision"] == candidate]
        if world.status["phase"] == "Ready":
            break
    assert [role for number, role in enumerate(roles) if role not in roles[:number]] == ["before", "pull", "bench"]
    assert [world.serving(name) for name in NAMES] == [["good-2"]] * 3
    gate = next(g for g in world.status["pools"][0]["classes"][0]["gates"] if "maxRegression" in g["bound"])
    assert "measured before it was stopped" in gate["interval"]


@pytest.mark.parametrize("model", ["slow-1", "crashing-1", "broken-1"])
def test_what_fails_there_gives_the_node_its_server_back(model: str) -> None:
    world = one_at_a_time(model)
    run(world, lambda: world.status["phase"] == "Degraded")
    run(world, lambda: [world.serving(name) for name in NAMES] == [["good-1"]] * 3)
    world.settle()
    assert [servers_on(world, name) for name in NAMES] == [1, 1, 1]
    assert world.operate() == 0


def test_while_a_person_is_asked_there_the_node_has_the_server_that_it_had() -> None:
    world = one_at_a_time("noisy-1")
    run(world, lambda: world.status["phase"] == "Paused")
    run(world, lambda: [world.serving(name) for name in NAMES] == [["good-1"]] * 3)
    for _ in range(5):
        world.turn()
    assert [servers_on(world, name) for name in NAMES] == [1, 1, 1], "and no other beside it"
    world.say(promote=world.status["candidate"]["revision"])
    run(world, lambda: [world.serving(name) for name in NAMES] == [["noisy-1"]] * 3)


def test_a_node_that_was_away_meanwhile_has_one_server_too() -> None:
    world = one_at_a_time()
    world.offline("n2")
    run_all = [name for name in NAMES if name != "n2"]
    world.elapse(100)
    assert [world.serving(name) for name in run_all] == [["good-2"]] * 2
    world.online("n2")
    run(world, lambda: world.serving("n2") == ["good-2"])


def test_a_small_node_that_holds_one_server_is_not_too_small() -> None:
    world = one_at_a_time()
    for name in NAMES:
        world.nodes[name]["status"]["allocatable"] = {"memory": "400Mi"}
    world.settle()
    assert world.status["lastOutcome"]["outcome"] == "Promoted"


def test_a_pause_begins_nothing_there() -> None:
    world = one_at_a_time(paused=False)
    world.change(paused=True)
    world.settle()
    assert [world.serving(name) for name in NAMES] == [["good-1"]] * 3
    assert not world.of_kind("Job") or all(
        job["metadata"]["labels"]["slmops.dev/role"] != "before" for job in world.of_kind("Job")
    )


@pytest.mark.parametrize("moment", range(5, 12))
def test_whenever_its_turn_is_overtaken_a_node_has_its_server_back_while_a_person_is_asked(moment: int) -> None:
    world = World(dict.fromkeys(NAMES, "small"), strategy={"cutOver": "StopThenDownload"})
    world.settle()
    world.retry("again")
    for _ in range(moment):
        world.turn()
    world.deploy("noisy-1")
    world.settle()
    assert world.status["phase"] == "Paused"
    assert [world.serving(name) for name in NAMES] == [["good-1"]] * 3


def test_a_class_that_kept_what_it_had_is_stopped_for_the_next_one_too() -> None:
    classes = {"n1": "small", "n2": "small", "n3": "big"}
    world = World(classes, strategy={"cutOver": "StopThenDownload", "promotionScope": "HardwareClass"})
    world.settle()
    world.deploy("lame-1")
    world.settle()
    assert [world.serving(name) for name in classes] == [["good-1"], ["good-1"], ["lame-1"]]
    world.deploy("good-2")
    world.settle()
    assert [world.serving(name) for name in classes] == [["good-2"]] * 3
    assert world.status["phase"] == "Ready"
