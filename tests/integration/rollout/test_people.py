"""What people say of a rollout: approve, promote, abort, another turn for who failed, and the way back."""

from typing import Any

import pytest

from slmops.rollout.rollout import Rollout
from tests.unit.edgeworld import World

FOUR = {"n0": "small", "n1": "small", "n2": "small", "n3": "small"}
ASKING = [{"name": "canary", "nodes": 1}, {"name": "half", "nodes": "50%", "approval": "Required"},
          {"name": "rest", "nodes": "100%", "approval": "Required"}]  # fmt: skip


def running(**spec: Any) -> World:
    """A fleet that serves good-1 and is asked for good-2."""
    world = World(FOUR, **{"strategy": {"waves": [{"name": "all", "nodes": "100%"}]}} | spec)
    world.settle()
    world.deploy("good-2")
    return world


def served(world: World) -> list[str]:
    return [world.serving(name)[0] for name in FOUR]


def candidate(world: World) -> str:
    return str(world.status["candidate"]["revision"])


# --- approval


def asking() -> World:
    world = World(FOUR, strategy={"waves": ASKING})
    world.settle()
    for wave in ("half", "rest"):
        world.say(approve=f"{candidate(world)}/{wave}")
        world.settle()
    world.deploy("good-2")
    world.settle()
    return world


def test_a_wave_waits_for_its_approval_and_says_how_to_give_it() -> None:
    world = asking()
    assert served(world) == ["good-2", "good-1", "good-1", "good-1"]
    name = candidate(world)
    assert world.status["phase"] == "Waiting"
    assert world.status["wave"] == {
        "name": "half", "index": 2, "of": 3, "pulls": "512Mi", "approval": f"{name}/half",
    }  # fmt: skip
    told = world.condition("Progressing")
    assert (told["status"], told["reason"]) == ("Unknown", "ApprovalRequired")
    assert told["message"] == (
        f"wave half needs an approval. To allow it, set the annotation slmops.dev/approve={name}/half; to give the "
        f"candidate up, slmops.dev/abort={name}."
    )


def test_an_approval_is_for_its_wave_and_those_before() -> None:
    world = asking()
    name = candidate(world)
    world.say(approve=f"{name}/half")
    world.settle()
    assert served(world) == ["good-2", "good-2", "good-1", "good-1"]
    assert world.status["wave"]["approval"] == f"{name}/rest"
    world.say(approve=f"{name}/rest")
    world.settle()
    assert served(world) == ["good-2"] * 4
    assert world.status["lastOutcome"]["outcome"] == "Promoted"


def test_an_approval_of_the_last_wave_holds_for_all() -> None:
    world = asking()
    world.say(approve=f"{candidate(world)}/rest")
    world.settle()
    assert served(world) == ["good-2"] * 4


@pytest.mark.parametrize("said", ["half", "{old}/half", "{old}/rest", "{new}", "{new}/canary", "{new}/half/", ""])
def test_an_approval_of_something_else_is_none(said: str) -> None:
    world = asking()
    world.say(approve=said.format(old=world.status["stable"]["revision"], new=candidate(world)))
    world.settle()
    assert served(world) == ["good-2", "good-1", "good-1", "good-1"]


def test_a_node_of_an_approved_wave_that_comes_back_needs_no_other() -> None:
    world = asking()
    world.say(approve=f"{candidate(world)}/half")
    world.settle()
    world.leave("n0")
    world.join("n0", "small")
    world.settle()
    assert sum("good-2" in world.serving(name) for name in FOUR) == 2


# --- promote


SLOW = [{"name": "canary", "nodes": 1, "soak": "1d"}, {"name": "rest", "nodes": "100%", "approval": "Required"}]


def test_promoted_in_full_it_waits_for_nothing_more() -> None:
    world = World(FOUR, strategy={"waves": SLOW, "window": {"from": "01:00", "to": "01:01"}})
    world.operate()
    assert world.status["phase"] == "Waiting"
    world.say(promote=candidate(world))
    world.settle()
    assert served(world) == ["good-1"] * 4
    assert world.status["stable"] is not None


def test_promoted_in_full_a_doubt_is_none_and_a_failure_is_one() -> None:
    for model, outcome in (("noisy-1", "Promoted"), ("slow-1", "RolledBack")):
        world = running()
        world.settle()
        world.deploy(model)
        world.operate()
        world.say(promote=candidate(world))
        world.settle()
        assert world.status["lastOutcome"]["outcome"] == outcome, model


# --- abort


def test_an_abort_gives_the_nodes_back_and_is_told_apart() -> None:
    world = running(
        strategy={"waves": [{"name": "canary", "nodes": 2, "soak": "1h"}, {"name": "rest", "nodes": "100%"}]}
    )
    world.elapse(40)
    assert "good-2" in served(world)
    name = candidate(world)
    world.say(abort=name)
    world.settle()
    assert served(world) == ["good-1"] * 4
    assert world.status["lastOutcome"]["outcome"] == "Aborted"
    assert world.status["failed"] == [name]
    assert world.condition("Promoted")["reason"] == "Aborted"


def test_an_abort_of_another_candidate_is_none() -> None:
    world = running()
    world.say(abort=world.status["stable"]["revision"])
    world.settle()
    assert served(world) == ["good-2"] * 4


# --- another turn


def test_a_doubtful_node_gets_another_turn_and_the_others_are_left_alone() -> None:
    world = running()
    world.settle()
    world.deploy("noisy-1")
    world.settle()
    assert world.status["phase"] == "Paused"
    name = candidate(world)
    told = world.condition("Progressing")["message"]
    assert told.endswith(f"Set the annotation slmops.dev/retry-failed to another word to give the nodes another turn, "
                         f"slmops.dev/promote or slmops.dev/abort to {name} to decide, or change the spec.")  # fmt: skip
    before = {job["metadata"]["uid"] for job in world.of_kind("Job")}
    world.say(retry_failed="monday")
    world.settle()
    after = {job["metadata"]["uid"] for job in world.of_kind("Job")}
    assert len(after - before) == 1, "one node is measured again"
    assert (candidate(world), world.status["retried"]) == (name, "monday")
    assert world.operate() == 0, "once for each word"


def test_a_word_that_was_set_before_means_nothing_later() -> None:
    world = running()
    world.say(retry_failed="monday")
    world.settle()
    world.deploy("noisy-1")
    world.settle()
    jobs = {job["metadata"]["uid"] for job in world.of_kind("Job")}
    for _ in range(3):
        world.turn()
    assert {job["metadata"]["uid"] for job in world.of_kind("Job")} == jobs


def test_a_node_that_failed_gets_another_turn_where_a_person_decides() -> None:
    world = running(rollback={"automatic": False})
    world.settle()
    world.deploy("crashing-1")
    world.settle()
    assert world.status["phase"] == "Paused"
    pods = {pod["metadata"]["uid"] for name in FOUR for pod in world.pods_on(name, "serve")}
    world.say(retry_failed="monday")
    world.operate()
    world.turn()
    again = {pod["metadata"]["uid"] for name in FOUR for pod in world.pods_on(name, "serve")}
    assert len(again - pods) == 1, "its pod is another one"
    world.settle()
    assert world.status["phase"] == "Paused"


# --- the way back


def test_a_revision_that_was_good_comes_back_without_waves_and_benchmarks() -> None:
    world = World(FOUR, strategy={"waves": SLOW, "maxUnavailable": "50%"})
    for model in ("good-1", "good-2"):
        world.deploy(model)
        world.operate()
        world.say(promote=candidate(world))
        world.settle()
        assert served(world) == [model] * 4
    (before,) = world.status["history"]
    assert before["images"]["farms"].split("/")[-1].startswith("good-1@")
    jobs = {job["metadata"]["uid"] for job in world.of_kind("Job")}
    world.deploy("good-1")
    world.operate()
    assert candidate(world) == before["revision"]
    rollout = world.plan.detail
    assert isinstance(rollout, Rollout)
    assert len(rollout.pools[0].active) == 2, "as many at once as ever"
    world.settle()
    assert served(world) == ["good-1"] * 4
    assert world.status["lastOutcome"]["outcome"] == "FastPromoted"
    new = [job for job in world.of_kind("Job") if job["metadata"]["uid"] not in jobs]
    assert {job["metadata"]["labels"]["slmops.dev/role"] for job in new} <= {"pull"}


def test_a_word_that_asked_for_another_try_does_not_stand_in_the_way_back() -> None:
    world = running(rollback={"keep": 1})
    world.settle()
    world.retry("monday")
    world.deploy("good-3")
    world.settle()
    world.deploy("good-2")
    world.settle()
    assert world.status["lastOutcome"]["outcome"] == "FastPromoted"
    stable = world.status["stable"]["revision"]
    world.settle()
    assert world.status["stable"]["revision"] == stable
    world.retry("tuesday")
    world.settle()
    assert world.status["stable"]["revision"] != stable, "another word asks again"
    world.deploy("good-1")
    world.settle()
    assert (served(world), world.status["phase"]) == (["good-1"] * 4, "Ready")


@pytest.mark.parametrize(("keep", "kept"), [(0, 0), (1, 1), (2, 2)])
def test_so_many_are_remembered(keep: int, kept: int) -> None:
    world = running(rollback={"keep": keep})
    world.settle()
    for model in ("good-3", "good-4"):
        world.deploy(model)
        world.settle()
    assert len(world.status.get("history", [])) == kept


# --- a former revision instead of what the spec asks for

TWO = {"n1": "small", "n2": "small"}


def pair() -> World:
    """Two nodes that serve good-1."""
    world = World(TWO)
    world.settle()
    return world


def test_a_former_revision_stands_for_what_the_spec_asks_for_until_that_is_another() -> None:
    world = pair()
    first = world.status["stable"]["revision"]
    world.deploy("good-2")
    world.settle()
    second, generation = world.status["stable"]["revision"], world.parent["metadata"]["generation"]
    world.say(rollback=f"{second}/{first}")
    world.settle()
    assert [world.serving(name) for name in TWO] == [["good-1"]] * 2
    assert world.status["lastOutcome"]["outcome"] == "FastPromoted"
    assert world.parent["metadata"]["generation"] == generation, "the spec is the user's"
    assert world.status["phase"] == "Ready"
    world.deploy("good-3")
    world.settle()
    assert [world.serving(name) for name in TWO] == [["good-3"]] * 2, "it was said of another one"


def test_what_is_not_kept_cannot_be_gone_back_to_and_what_serves_serves_on() -> None:
    world = pair()
    now = world.status["stable"]["revision"]
    world.say(rollback=f"{now}/12345678")
    world.settle()
    told = world.condition("InputsResolved")
    assert (told["status"], told["reason"]) == ("False", "UnknownRevision")
    assert "which is not kept; those are: none" in told["message"]
    assert [world.serving(name) for name in TWO] == [["good-1"]] * 2


def test_a_former_revision_of_other_servers_is_not_made_up() -> None:
    world = pair()
    first = world.status["stable"]["revision"]
    world.change(runtime={"maxQueue": 7})
    world.settle()
    now = world.status["stable"]["revision"]
    assert now != first
    world.say(rollback=f"{now}/{first}")
    world.settle()
    assert "differ from the spec in more than the model" in world.condition("InputsResolved")["message"]
    assert [world.revisions(name) for name in TWO] == [{now}] * 2
