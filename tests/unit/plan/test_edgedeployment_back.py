"""An EdgeDeployment goes back: candidates that fail, that are given up, and that are tried again."""

from typing import Any

import pytest

from tests.unit.copies import fresh
from tests.unit.edgeworld import World
from tests.unit.plan.fleets import FOUR, TWO, nodes_with_job, running, tracks, until


@pytest.mark.parametrize("model", ["slow-1", "crashing-1", "broken-1"])
def test_a_bad_candidate_reaches_one_node_and_is_taken_back(model: str) -> None:
    world = running(FOUR)
    spec = fresh(world.parent["spec"]) | {"model": None}
    stable = world.status["stable"]
    touched: set[str] = set()
    world.deploy(model)
    for _ in world.to_rest():
        for name in FOUR:
            touched |= {name} if len(world.revisions(name)) > 1 else set()
            assert world.serving(name) == ["good-1"]
    assert len(touched) <= 1
    assert world.status["lastOutcome"]["outcome"] == "RolledBack"
    assert world.status["stable"] == stable
    assert world.parent["spec"] | {"model": None} == spec
    assert tracks(world) == {"stable": ("Any", set())}


def test_a_failure_in_a_later_wave_gives_every_node_back_without_a_gap() -> None:
    """The class that failed came last; on the other nodes the candidate serves alone by then."""
    world = running({"n1": "big", "n2": "big", "n3": "big"})
    world.deploy("lame-1")
    until(world, lambda w: w.serving("n1") == w.serving("n2") == ["lame-1"])
    world.join("n4", "small")
    while world.plan.detail.decision != "RollBack":  # type: ignore[attr-defined]
        assert tracks(world)["stable"][0] == "NotIn"
        world.turn()
    assert tracks(world)["stable"] == ("Any", set()), "it gets its nodes back at once"
    for _ in world.to_rest():
        assert all(world.serving(name) for name in ("n1", "n2", "n3"))
    assert [world.serving(name) for name in world.nodes] == [["good-1"]] * 4
    assert [len(world.pods_on(name, "serve")) for name in world.nodes] == [1] * 4


def test_a_failure_is_recorded_before_its_evidence_is_cleared_away() -> None:
    world = running(TWO)
    world.deploy("crashing-1")
    until(world, lambda w: w.plan.detail.decision == "RollBack")  # type: ignore[attr-defined]
    assert world.plan.remove == ()
    assert world.plan.deadline is not None, "somebody has to come back"
    assert world.plan.deadline <= 1
    world.operate()
    assert {child["kind"] for child in world.plan.remove} == {"Job", "ConfigMap", "DaemonSet"}


def test_returning_to_the_good_spec_in_the_middle_leaves_no_gap() -> None:
    world = running(TWO, strategy={"waves": [{"name": "all", "nodes": "100%"}]})
    world.deploy("good-2")
    until(world, lambda w: w.serving("n1") == ["good-2"])
    world.deploy("good-1")
    for _ in world.to_rest():
        assert all(world.serving(name) for name in TWO)
    assert [world.serving(name) for name in TWO] == [["good-1"], ["good-1"]]
    assert (world.status["lastOutcome"]["outcome"], world.status["phase"]) == ("Superseded", "Ready")


@pytest.mark.parametrize("stable", [True, False])
def test_a_newer_candidate_takes_over_from_one_that_was_not_done(stable: bool) -> None:
    world = running(TWO) if stable else World(TWO, model="good-3")
    world.deploy("good-2" if stable else "good-3")
    until(world, lambda w: w.serving("n1") in (["good-2"], ["good-3"]))
    world.deploy("good-4")
    for _ in world.to_rest():
        assert world.serving("n1"), "what serves goes only when another serves"
    assert [world.serving(name) for name in TWO] == [["good-4"], ["good-4"]]
    assert set(tracks(world)) == {"stable"}


def test_a_failed_first_revision_leaves_nothing_behind() -> None:
    world = World({"a": "small", "b": "big"}, model="lame-1", strategy={"waves": [{"name": "all", "nodes": "100%"}]})
    world.settle()
    assert world.status["lastOutcome"]["outcome"] == "RolledBack"
    assert world.pods_on("a", "serve") + world.pods_on("b", "serve") == []
    assert world.of_kind("DaemonSet") == []


def test_a_failed_candidate_leaves_a_new_pool_as_empty_as_it_was() -> None:
    """The stable revision was never there, so nothing would ever take the place of what failed."""
    world = running({"n1": "big", "n2": "small"})
    world.join("b1", "big", "barns")
    farms = world.parent["spec"]["pools"]
    world.change(pools=[*farms, {"name": "barns", "selector": {"matchLabels": {"pool": "barns"}}}])
    world.deploy("lame-1")
    until(world, lambda w: w.serving("n1") == w.serving("b1") == ["lame-1"])
    world.settle()
    assert world.status["phase"] == "Degraded"
    assert [world.serving(name) for name in world.nodes] == [["good-1"], ["good-1"], []]
    assert len(world.of_kind("DaemonSet")) == 1
    world.deploy("good-2")
    world.settle()
    assert [world.serving(name) for name in world.nodes] == [["good-2"]] * 3


def test_the_annotation_tries_a_failed_candidate_again_and_only_once() -> None:
    world = running(TWO)
    world.deploy("slow-1")
    world.settle()
    first = world.status["lastOutcome"]
    world.retry("1")
    world.settle()
    assert world.status["lastOutcome"]["revision"] != first["revision"]
    assert len(world.status["failed"]) == 2
    assert world.operate() == 0


def _retried() -> World:
    """What failed at first serves, since it was tried again under other gates."""
    world = running(TWO)
    world.deploy("slow-1")
    world.settle()
    assert world.status["phase"] == "Degraded"
    world.change(gates=[])
    world.retry("1")
    world.settle()
    assert (world.status["phase"], world.serving("n1")) == ("Ready", ["slow-1"])
    return world


def test_to_take_the_annotation_away_asks_for_nothing() -> None:
    world = _retried()
    stable = world.status["stable"]
    world.retry(None)
    assert world.operate() == 0, "it is what is wanted, and what failed before is no candidate again"
    world.deploy("good-2")
    until(world, lambda w: w.serving("n1") == ["good-2"])
    world.deploy("slow-1")
    world.settle()
    assert (world.status["phase"], world.status["stable"]) == ("Ready", stable)
    world.retry("2")
    world.settle()
    assert world.status["stable"]["revision"] != stable["revision"], "to set it again is a wish"


@pytest.mark.parametrize("when", [lambda w: nodes_with_job(w, "pull"), lambda w: "candidate" in tracks(w)])
def test_a_rollout_goes_on_when_the_annotation_that_began_it_is_taken_away(when: Any) -> None:
    world = running(TWO)
    world.deploy("slow-1")
    world.settle()
    world.change(gates=[])
    world.retry("1")
    until(world, when)
    candidate = world.status["candidate"]["revision"]
    world.retry(None)
    world.settle()
    assert (world.status["phase"], world.status["stable"]["revision"]) == ("Ready", candidate)


def test_what_serves_well_and_is_tried_again_for_nothing_stays_when_the_annotation_is_taken_away() -> None:
    world = running(TWO)
    stable = world.status["stable"]
    world.retry("1")
    until(world, lambda w: "candidate" in tracks(w))
    world.retry(None)
    world.settle()
    assert (world.status["phase"], world.status["stable"]) == ("Ready", stable)
    assert len(world.of_kind("DaemonSet")) == 1
