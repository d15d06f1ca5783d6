"""Nodes that fail for reasons of their own, and how many of them a rollout bears."""

from typing import Any

import pytest

from slmops.api.strategy import FailureLimit
from slmops.rollout.fleet import Node
from slmops.rollout.rollout import Rollout
from slmops.rollout.turns import Cause, Turn, TurnStep
from slmops.rollout.waves import too_many
from tests.unit.edgeworld import World

NAMES = ("n0", "n1", "n2", "n3")
ALL = {"waves": [{"name": "all", "nodes": "100%"}], "maxUnavailable": 4, "progressDeadline": "2m"}


def turn(step: TurnStep, cause: Cause | None = None) -> Turn:
    return Turn(Node("n", "n", "small", True), step, cause=cause)


OWN, AWAY, BAD = turn("Failed", "Node"), turn("Failed", "Registry"), turn("Failed", "Artifact")
SERVES, WAITS = turn("Serving"), turn("Waiting")


@pytest.mark.parametrize(
    ("limit", "turns", "found"),
    [
        ({}, [SERVES], None),
        ({}, [SERVES, OWN], OWN),
        ({}, [SERVES, turn("Inconclusive", "Benchmark")], None),
        ({"minimum": 2}, [SERVES, OWN], None),
        ({"minimum": 2}, [OWN, AWAY], OWN),
        ({"minimum": 2}, [OWN, SERVES, BAD], None),
        # A tenth of what has begun, and who only waits has not.
        ({"percent": "10%"}, [OWN, *[SERVES] * 9], None),
        ({"percent": "10%"}, [OWN, *[SERVES] * 8], OWN),
        ({"percent": "10%"}, [OWN, *[SERVES] * 8, WAITS], OWN),
        ({"percent": "10%", "minimum": 2}, [OWN], None),
        ({"percent": "10%", "minimum": 2}, [OWN, AWAY, *[SERVES] * 17], OWN),
        ({"percent": "10%", "minimum": 2}, [OWN, AWAY, *[SERVES] * 18], None),
    ],
)
def test_how_many_may_fail_for_reasons_of_their_own(
    limit: dict[str, Any], turns: list[Turn], found: Turn | None
) -> None:
    assert too_many(FailureLimit.model_validate(limit), turns) is found


def fleet(**strategy: Any) -> World:
    """Four nodes that serve good-1, and are asked for good-2, which n1 cannot pull."""
    world = World(dict.fromkeys(NAMES, "small"), strategy=ALL | strategy)
    world.settle()
    world.stuck["n1"] = "ErrImagePull"
    world.deploy("good-2")
    return world


def cause(world: World) -> Cause | None:
    rollout = world.plan.detail
    assert isinstance(rollout, Rollout)
    return rollout.pools[0].turns["n1"].cause


def test_a_node_that_fails_by_itself_is_left_out_until_the_promotion() -> None:
    world = fleet(failureLimit={"minimum": 2}, waves=[{"name": "all", "nodes": "100%", "soak": "1h"}])
    world.elapse(150)
    assert cause(world) == "Registry"
    assert [world.serving(name) for name in NAMES] == [["good-2"], ["good-1"], ["good-2"], ["good-2"]]
    assert world.status["pools"][0]["nodes"]["failed"] == 1
    assert world.status["phase"] == "Progressing"
    world.advance(3600)
    world.settle()
    assert world.status["lastOutcome"]["outcome"] == "Promoted"
    assert world.serving("n1") == ["good-1"], "what it has, until there is something better"
    world.stuck.clear()
    world.settle()
    assert [world.serving(name) for name in NAMES] == [["good-2"]] * 4, "now it gets what all have"


def test_one_too_many_fails_the_candidate_and_says_why() -> None:
    world = fleet(failureLimit={"minimum": 2})
    world.stuck["n2"] = "CreateContainerError"
    world.elapse(150)
    outcome = world.status["lastOutcome"]
    assert (outcome["outcome"], outcome["reason"]) == ("RolledBack", "ProgressDeadlineExceeded")
    assert "n1" in outcome["message"]
    assert [world.serving(name) for name in NAMES] == [["good-1"]] * 4


def test_without_a_limit_the_first_one_is_one_too_many() -> None:
    world = fleet()
    world.elapse(150)
    assert world.status["lastOutcome"]["outcome"] == "RolledBack"


def test_a_node_that_was_left_out_gets_another_turn_when_a_person_says_so() -> None:
    world = fleet(failureLimit={"minimum": 2}, waves=[{"name": "all", "nodes": "100%", "soak": "1h"}])
    world.elapse(150)
    told = world.condition("Progressing")
    assert told["reason"] == "Soaking"
    world.stuck.clear()
    world.say(retry_failed="mended")
    world.elapse(30)
    assert [world.serving(name) for name in NAMES] == [["good-2"]] * 4
    assert "failed" not in world.status["pools"][0]["nodes"]


def test_who_was_left_out_is_told_while_others_have_their_turn() -> None:
    world = fleet(failureLimit={"minimum": 2}, maxUnavailable=1)
    while not world.condition("Progressing").get("message"):
        world.elapse(2)
    told = world.condition("Progressing")
    assert told["reason"] == "InTurn"
    assert told["message"].startswith("1 left out, as node n1 (small): not done within progressDeadline 2m: image")


@pytest.mark.parametrize(("reason", "found"), [("ErrImagePull", "Registry"), ("CreateContainerError", "Node")])
def test_the_registry_and_the_node_are_told_apart(reason: str, found: Cause) -> None:
    world = fleet(failureLimit={"minimum": 2}, waves=[{"name": "all", "nodes": "100%", "soak": "1h"}])
    world.stuck["n1"] = reason
    world.elapse(150)
    assert cause(world) == found


def test_a_node_that_goes_away_with_the_candidate_fails_once_it_has_been_silent_for_too_long() -> None:
    world = fleet(failureLimit={"minimum": 2}, waves=[{"name": "all", "nodes": "100%", "soak": "1h"}])
    world.stuck.clear()
    world.elapse(30)
    assert [world.serving(name) for name in NAMES] == [["good-2"]] * 4
    world.offline("n1")
    world.elapse(100)
    assert "failed" not in world.status["pools"][0]["nodes"]
    world.elapse(30)
    assert cause(world) == "Node"
    assert world.status["pools"][0]["nodes"]["failed"] == 1
    world.offline("n2")
    world.elapse(125)
    outcome = world.status["lastOutcome"]
    assert (outcome["outcome"], outcome["reason"]) == ("RolledBack", "NodeLost")
    assert "n1" in outcome["message"]


def test_a_node_that_comes_back_in_time_goes_on_where_it_was() -> None:
    world = fleet(waves=[{"name": "all", "nodes": "100%", "soak": "10m"}])
    world.stuck.clear()
    world.elapse(30)
    for name in NAMES:
        world.offline(name)
        world.elapse(60)
        world.online(name)
    world.settle()
    assert world.status["lastOutcome"]["outcome"] == "Promoted"


def test_a_node_that_was_away_before_its_turn_fails_nothing() -> None:
    world = World(dict.fromkeys(NAMES, "small"), strategy=ALL)
    world.settle()
    world.offline("n1")
    world.elapse(1000)
    world.deploy("good-2")
    world.settle()
    assert world.status["lastOutcome"]["outcome"] == "Promoted"
