"""Nodes that come and go while an EdgeDeployment rolls out."""

from slmops.plan.edgedeployment import plan_edgedeployment
from slmops.state import LABEL_ROLE, Observed
from tests.unit.edgeworld import World
from tests.unit.fleet_builders import NOW, SETTINGS, job, measured, node, pod, servers
from tests.unit.plan.fleets import FOUR, TWO, nodes_with_job, running, tracks, until


def test_an_offline_node_is_skipped_and_caught_up_without_a_gap() -> None:
    world = running(FOUR)
    world.offline("n3")
    world.deploy("good-2")
    world.settle()
    assert world.status["stable"]["images"]["farms"] == world.parent["spec"]["model"]["image"]
    assert [world.serving(name) for name in ("n1", "n2", "n4")] == [["good-2"]] * 3
    assert world.status["pools"][0]["nodes"] == {"total": 4, "updated": 3, "ready": 3, "offline": 1, "behind": 1}
    assert tracks(world) == {"stable": ("Any", set()), "retired": ("In", {"n3.local"})}
    world.online("n3")
    world.kubelet("n3")
    for _ in range(20):
        assert world.serving("n3"), "the old server stays until the new one is ready"
        world.turn()
    assert world.serving("n3") == ["good-2"]
    assert tracks(world) == {"stable": ("Any", set())}


def test_a_node_that_missed_two_promotions_starts_only_what_is_stable_now() -> None:
    world = running(FOUR)
    world.offline("n3")
    for model in ("good-2", "good-3"):
        world.deploy(model)
        world.settle()
    world.online("n3")
    world.settle()
    assert world.serving("n3") == ["good-3"]
    assert tracks(world) == {"stable": ("Any", set())}


def test_a_node_that_goes_away_in_the_middle_of_its_turn_holds_nobody_up() -> None:
    world = running(FOUR)
    world.deploy("good-2")
    until(world, lambda w: nodes_with_job(w, "pull"))
    world.offline("n1")
    world.settle()
    assert world.status["phase"] == "Ready"
    world.online("n1")
    world.settle()
    assert world.serving("n1") == ["good-2"]


def test_a_node_that_serves_the_candidate_alone_is_left_alone_while_it_is_away() -> None:
    """Its connection comes and goes; that is no reason to start the stable server on it."""
    world = running(FOUR)
    world.deploy("good-2")
    until(world, lambda w: w.serving("n1") == ["good-2"])
    world.offline("n1")
    world.operate()
    world.turn()
    assert "n1.local" in tracks(world)["stable"][1]
    assert len(world.pods_on("n1", "serve")) == 1


def test_jobs_that_failed_while_the_node_was_away_are_cleared_and_done_again() -> None:
    resource, back = measured("b"), node("n", since=-1)
    lost = job(resource, "pull", back, state="Failed", created=-40, ended=-10)
    config = {"kind": "ConfigMap", "metadata": {**lost["metadata"], "uid": "c"}}
    stable = servers(measured("a"))
    first = Observed(children=(*stable, lost, config), pods=(pod(stable[1], "n"),), nodes=(back,))
    plan = plan_edgedeployment(resource, first, SETTINGS, NOW)
    assert [child["kind"] for child in plan.remove] == ["Job", "ConfigMap"]
    assert not [child for child in plan.apply if child["kind"] == "Job"]
    again = plan_edgedeployment(resource, Observed(children=tuple(stable), nodes=(back,)), SETTINGS, NOW)
    assert [child["metadata"]["name"] for child in again.apply if child["kind"] == "Job"] == [lost["metadata"]["name"]]


def test_when_all_nodes_are_offline_nothing_is_done_and_nothing_forgotten() -> None:
    world = running(TWO)
    for name in TWO:
        world.offline(name)
    world.deploy("good-2")
    world.settle()
    assert world.condition("Progressing")["reason"] == "NoNodes"
    assert world.of_kind("Job") == [f for f in world.of_kind("Job") if f["metadata"]["labels"][LABEL_ROLE] == "bench"]
    assert world.operate() == 0
    for name in TWO:
        world.online(name)
    world.settle()
    assert [world.serving(name) for name in TWO] == [["good-2"], ["good-2"]]


def test_a_node_moves_to_another_pool() -> None:
    world = running(FOUR, pools=("farms", "barns"))
    world.relabel("n4", "barns")
    world.settle()
    assert world.serving("n4") == ["good-1"]
    (pod_,) = world.pods_on("n4", "serve")
    assert pod_["metadata"]["labels"]["slmops.dev/pool"] == "barns"


def test_a_pool_that_is_not_wanted_any_more_is_cleared() -> None:
    world = World({}, pools=("farms", "barns"))
    world.join("f", "small", "farms")
    world.join("b", "small", "barns")
    world.settle()
    world.change(pools=world.parent["spec"]["pools"][:1])
    world.settle()
    assert world.pods_on("b") == []
    assert {child["metadata"]["labels"].get("slmops.dev/pool") for child in world.objects.values()} == {"farms", None}
    assert world.serving("f") == ["good-1"]
