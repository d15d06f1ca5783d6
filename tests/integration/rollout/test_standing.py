"""Which hardware gets a revision that was promoted: classes that fail alone, and nodes that come late."""

from typing import Any

from slmops.rollout.rollout import Rollout
from tests.unit.edgeworld import World
from tests.unit.fleet_builders import hosts
from tests.unit.plan.fleets import nodes_with_job, running, tracks, until

BOTH = {"n1": "big", "n2": "big", "n3": "small", "n4": "small"}
ALONE = {"strategy": {"promotionScope": "HardwareClass"}}


def decision(world: World) -> str:
    rollout = world.plan.detail
    assert isinstance(rollout, Rollout)
    return rollout.decision


def served(world: World) -> dict[str, list[str]]:
    return {name: world.serving(name) for name in world.nodes}


def stable(world: World) -> dict[str, Any]:
    return dict(world.status["stable"])


def serving(world: World) -> set[str]:
    return {name for name in world.nodes if world.is_online(name) and world.serving(name)}


def without_a_gap(world: World) -> None:
    """Everybody works until all is done, and no node that served stops."""
    before = serving(world)
    for _ in world.to_rest():
        assert before <= serving(world), served(world)
        before = serving(world)


# --- a class that fails


def test_a_class_that_fails_keeps_what_it_has_and_the_others_are_promoted() -> None:
    world = running(BOTH, **ALONE)
    first = stable(world)["revision"]
    world.deploy("lame-1")
    without_a_gap(world)
    assert served(world) == {"n1": ["lame-1"], "n2": ["lame-1"], "n3": ["good-1"], "n4": ["good-1"]}
    assert all(len(world.pods_on(name, "serve")) == 1 for name in world.nodes)
    outcome = world.status["lastOutcome"]
    assert (outcome["outcome"], outcome["reason"]) == ("Promoted", "SomeClassesPassed")
    assert stable(world)["classes"] == {"farms": ["big"]}
    assert stable(world)["behind"] == {"farms": {"small": first}}
    assert "TokensPerSecond is 10" in stable(world)["failed"]["farms"]["small"]
    assert world.status["pools"][0]["nodes"]["behind"] == 2
    assert world.status["phase"] == "Degraded", "the spec is not met everywhere"
    promoted = world.condition("Promoted")
    assert (promoted["status"], promoted["reason"]) == ("True", "PromotedPartly")
    assert "it has failed on small of pool farms" in promoted["message"]
    assert "slmops.dev/retry-failed" in promoted["message"]
    assert nodes_with_job(world, "pull") == set()


def test_it_stays_so_for_nodes_that_come_go_and_lose_their_server() -> None:
    world = running(BOTH, **ALONE)
    world.deploy("lame-1")
    world.settle()
    world.join("n5", "small")
    world.join("n6", "big")
    for pod in world.pods_on("n3", "serve"):
        world.evict(pod)
    world.settle()
    assert [world.serving(name) for name in ("n3", "n5", "n6")] == [["good-1"], ["good-1"], ["lame-1"]]
    world.leave("n3")
    world.leave("n4")
    world.leave("n5")
    world.settle()
    assert "retired" not in tracks(world), "nobody is left who keeps it"


def test_by_default_a_class_that_fails_takes_all_with_it() -> None:
    world = running(BOTH)
    world.deploy("lame-1")
    world.settle()
    assert set(map(tuple, served(world).values())) == {("good-1",)}
    assert world.status["lastOutcome"]["outcome"] == "RolledBack"


def test_the_next_candidate_is_compared_with_what_each_class_has() -> None:
    world = running(BOTH, **ALONE)
    world.deploy("lame-1")
    world.settle()
    world.deploy("good-2")
    without_a_gap(world)
    assert set(map(tuple, served(world).values())) == {("good-2",)}
    assert world.status["phase"] == "Ready"
    assert not stable(world).get("behind")
    assert tracks(world) == {"stable": ("Any", set())}


def test_what_fails_everywhere_is_taken_back_and_each_class_has_what_it_had() -> None:
    world = running(BOTH, **ALONE)
    world.deploy("lame-1")
    world.settle()
    world.deploy("slow-1")
    without_a_gap(world)
    assert world.status["lastOutcome"]["outcome"] == "RolledBack"
    assert served(world) == {"n1": ["lame-1"], "n2": ["lame-1"], "n3": ["good-1"], "n4": ["good-1"]}
    assert "small" in stable(world)["failed"]["farms"], "what failed is not forgotten"


def test_a_class_is_given_back_before_the_others_are_done() -> None:
    world = running(BOTH, **ALONE)
    waves = [{"name": "canary", "nodes": 1}, {"name": "rest", "nodes": "100%", "approval": "Required"}]
    world.change(strategy=ALONE["strategy"] | {"waves": waves})
    world.deploy("lame-1")
    until(world, lambda w: w.status["phase"] == "Waiting")
    assert served(world) == {"n1": ["lame-1"], "n2": ["good-1"], "n3": ["good-1"], "n4": ["good-1"]}
    assert not any(found == ("In", {"n3.local"}) for found in map(hosts, world.of_kind("DaemonSet")))
    assert "small" in world.status["candidate"]["failed"]["farms"]
    (big, small) = world.status["pools"][0]["classes"]
    assert (big["verdict"], small["verdict"]) == ("Passed", "Failed")


def test_a_class_that_failed_has_another_turn_when_somebody_says_so() -> None:
    world = running(BOTH, **ALONE)
    world.deploy("lame-1")
    world.settle()
    world.parent["spec"]["gates"] = []
    world.version += 1
    world.say(retry_failed="mended")
    without_a_gap(world)
    assert set(map(tuple, served(world).values())) == {("lame-1",)}
    assert world.status["phase"] == "Ready"
    assert not stable(world).get("failed")


def test_a_pool_may_fail_alone() -> None:
    world = World({}, pools=("farms", "barns"), strategy={"promotionScope": "Pool"})
    for name, hardware, pool in (("n1", "big", "farms"), ("n2", "big", "barns"), ("n3", "small", "barns")):
        world.join(name, hardware, pool)
    world.settle()
    world.deploy("lame-1")
    without_a_gap(world)
    assert served(world) == {"n1": ["lame-1"], "n2": ["good-1"], "n3": ["good-1"]}
    assert set(stable(world)["behind"]["barns"]) == {"big", "small"}


def test_the_first_revision_of_all_leaves_a_class_that_it_fails_without() -> None:
    world = World(BOTH, "lame-1", **ALONE)
    world.settle()
    assert served(world) == {"n1": ["lame-1"], "n2": ["lame-1"], "n3": [], "n4": []}
    assert not stable(world).get("behind")
    assert world.condition("Ready")["status"] == "False"


# --- nodes that come late


def test_a_late_node_of_a_class_that_was_not_there_keeps_what_it_has_until_it_has_passed() -> None:
    world = running(BOTH)
    world.offline("n3")
    world.offline("n4")
    world.deploy("lame-1")
    world.settle()
    assert world.status["phase"] == "Ready"
    assert world.status["pools"][0]["nodes"]["behind"] == 2
    world.online("n3")
    for _ in world.to_rest():
        assert world.serving("n3") in ([], ["good-1"]), "it is not good enough there"
    assert world.serving("n3") == ["good-1"]
    assert "small" in stable(world)["failed"]["farms"]
    assert world.status["phase"] == "Degraded"
    world.online("n4")
    world.settle()
    assert world.serving("n4") == ["good-1"]


def test_a_late_node_gets_what_passes_there() -> None:
    world = running(BOTH)
    world.offline("n3")
    world.offline("n4")
    world.deploy("good-2")
    world.settle()
    world.online("n3")
    until(world, lambda w: "bench" in str([j["metadata"]["labels"] for j in w.of_kind("Job")]) and
          "n3" in nodes_with_job(w, "bench"))  # fmt: skip
    assert world.serving("n3") == ["good-1"]
    assert world.condition("Progressing")["reason"] == "CatchingUp"
    world.settle()
    assert world.serving("n3") == ["good-2"]
    assert stable(world)["classes"] == {"farms": ["big", "small"]}
    world.online("n4")
    world.settle()
    assert world.serving("n4") == ["good-2"]
    assert nodes_with_job(world, "bench") & {"n3", "n4"} == {"n3"}, "one of a class is enough"
    assert tracks(world) == {"stable": ("Any", set())}


def test_a_new_node_of_a_new_class_serves_once_it_has_passed() -> None:
    world = World({"n1": "big"}, "lame-1")
    world.settle()
    world.join("n2", "small")
    world.join("n3", "medium")
    world.settle()
    assert served(world) == {"n1": ["lame-1"], "n2": [], "n3": ["lame-1"]}
    assert stable(world)["classes"] == {"farms": ["big", "medium"]}
    (found,) = world.of_kind("DaemonSet")
    assert "readinessGates" not in found["spec"]["template"]["spec"], "the operator may be away when one starts anew"


def test_late_nodes_have_their_turn_when_nodes_may() -> None:
    world = running(BOTH)
    world.offline("n3")
    world.deploy("good-2")
    world.change(strategy={"maxUnavailable": 1})
    world.offline("n4")
    world.settle()
    world.change(paused=True)
    world.online("n3")
    world.online("n4")
    world.settle()
    assert served(world)["n3"] == ["good-1"], "not on a pause"
    assert nodes_with_job(world, "pull") == set()
    world.change(paused=False)
    world.turn()
    assert len(nodes_with_job(world, "pull")) == 1, "maxUnavailable at a time"
    world.settle()
    assert set(map(tuple, served(world).values())) == {("good-2",)}


def test_while_the_spec_asks_for_something_that_failed_a_new_node_gets_what_is_stable() -> None:
    world = running({"n1": "big"})
    world.deploy("slow-1")
    world.settle()
    world.join("n2", "small")
    world.settle()
    assert world.serving("n2") == ["good-1"]


def test_without_a_benchmark_nothing_is_held_back() -> None:
    world = running({"n1": "big"}, benchmark=None, gates=[])
    world.join("n2", "small")
    world.turn()
    assert not stable(world).get("classes")
    assert tracks(world) == {"stable": ("Any", set())}


def test_where_the_status_is_lost_every_node_goes_on_serving() -> None:
    world = running(BOTH)
    world.parent["status"] = {}
    without_a_gap(world)
    assert set(map(tuple, served(world).values())) == {("good-1",)}


def test_a_promotion_that_was_cut_off_remembers_who_failed() -> None:
    world = running(BOTH, **ALONE)
    world.deploy("lame-1")
    until(world, lambda w: "failed" in (w.status.get("candidate") or {}))
    for _ in range(200):
        world.kill_after = 2
        world.turn()
        if decision(world) == "Promote":
            break
    world.kill_after = None
    without_a_gap(world)
    assert served(world) == {"n1": ["lame-1"], "n2": ["lame-1"], "n3": ["good-1"], "n4": ["good-1"]}
    assert "small" in stable(world)["failed"]["farms"]
