"""What is done when: a node's turn, what is measured in it, and the promotion."""

import json
from typing import Any

import pytest

from slmops.api.edgedeployment import EdgeDeployment
from slmops.contract import CONFIG_KEY
from slmops.plan.edgedeployment import plan_edgedeployment
from slmops.state import LABEL_REVISION, Observed
from tests.unit.edgeworld import World
from tests.unit.fleet_builders import NOW, SETTINGS, configuration, measured, node, pod, pulled, servers
from tests.unit.plan.fleets import FOUR, TWO, nodes_with_job, running, serving, tracks, until

# --- a node's turn


def test_the_turn_of_a_node_step_by_step() -> None:
    world = running(TWO)
    world.deploy("good-2")
    world.operate()
    assert nodes_with_job(world, "pull") == {"n1"}
    assert set(tracks(world)) == {"stable"}, "no server before the image is there"
    until(world, lambda w: "candidate" in tracks(w))
    assert tracks(world) == {"stable": ("Any", set()), "candidate": ("In", {"n1.local"})}
    until(world, lambda w: nodes_with_job(w, "bench"))
    assert world.serving("n1") == ["good-1"], "it is measured without traffic"
    until(world, serving("n1", model="good-2"))
    assert "good-1" in world.serving("n1"), "the old one stays until the new one serves"
    until(world, lambda w: w.serving("n1") == ["good-2"])
    assert tracks(world)["stable"] == ("NotIn", {"n1.local"})


def test_jobs_are_pinned_by_host_name_and_go_to_cordoned_nodes() -> None:
    toleration = {"key": "edge", "operator": "Exists"}
    pool = {"name": "farms", "selector": {"matchLabels": {"pool": "farms"}}, "tolerations": [toleration] * 16}
    world = running(TWO, pools=[pool])
    assert world.of_kind("Job")
    for found in world.of_kind("Job"):
        spec = found["spec"]["template"]["spec"]
        assert spec["nodeSelector"] == {"kubernetes.io/hostname": "n1.local"}
        unschedulable = {"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"}
        assert spec["tolerations"] == [*[toleration] * 16, unschedulable]


def test_the_pull_reads_the_very_image_that_will_serve() -> None:
    world = World(TWO)
    world.operate()
    (pull,) = world.of_kind("Job")
    (volume,) = [v for v in pull["spec"]["template"]["spec"]["volumes"] if v["name"] == "model"]
    assert volume["image"]["reference"] == world.parent["spec"]["model"]["image"]


def test_one_node_of_each_class_is_measured_and_the_others_trust_it() -> None:
    world = running(FOUR)
    world.deploy("good-2")
    world.settle()
    revision = world.status["stable"]["revision"]
    benches = [found for found in world.of_kind("Job") if found["metadata"]["labels"][LABEL_REVISION] == revision]
    assert sorted(found["metadata"]["annotations"]["slmops.dev/node"] for found in benches) == ["n1.local", "n4.local"]


def test_on_a_pause_turns_that_have_begun_go_on_and_no_other_begins() -> None:
    world = running(FOUR, strategy={"waves": [{"name": "all", "nodes": "100%"}], "maxUnavailable": 2})
    world.deploy("good-2")
    world.operate()
    assert nodes_with_job(world, "pull") == {"n1", "n4"}
    world.change(paused=True)
    world.settle()
    assert [world.serving(name) for name in FOUR] == [["good-2"], ["good-1"], ["good-1"], ["good-2"]]
    assert world.status["phase"] == "Paused"
    world.change(paused=False)
    world.settle()
    assert world.status["phase"] == "Ready"


def test_a_node_that_left_the_pool_is_not_admitted_any_more() -> None:
    """Else it would get the candidate without a turn when it comes back."""
    world = running(FOUR, strategy={"waves": [{"name": "all", "nodes": "100%"}], "maxUnavailable": 2})
    world.deploy("good-2")
    until(world, lambda w: tracks(w).get("candidate") == ("In", {"n1.local", "n4.local"}))
    world.relabel("n1", None)
    world.operate()
    assert tracks(world)["candidate"] == ("In", {"n4.local"})


# --- what is measured


def _measured(
    candidate: EdgeDeployment, *, named: str = "chat", address: str = "10.0.0.2", data: Any = None
) -> dict[str, Any]:
    """Addresses and models that the benchmark of a node is told, where the stable model has this name, or its ConfigMap
    this content."""
    found, (config, a), (_, b) = node("n"), servers(measured("a")), servers(candidate, track="candidate", only=["n"])
    config["data"] = {CONFIG_KEY: json.dumps(configuration(config) | {"model_name": named})} if data is None else data
    pods = (pod(a, "n", ip="10.0.0.1"), pod(b, "n", ready=False, containers=True, ip=address))
    observed = Observed(children=(config, a, b, pulled(candidate, found)), pods=pods, nodes=(found,))
    plan = plan_edgedeployment(candidate, observed, SETTINGS, NOW)
    (made,) = [c for c in plan.apply if c["kind"] == "ConfigMap" and "-bench-" in c["metadata"]["name"]]
    return {target["name"]: (target["url"], target["model"]) for target in configuration(made)["targets"]}


def test_both_servers_are_measured_as_each_was_configured() -> None:
    """The candidate may have another port and another name of the model; the stable one still has its own."""
    assert _measured(measured("b", runtime={"port": 9090}), named="before") == {
        "stable": ("http://10.0.0.1:8080", "before"), "candidate": ("http://10.0.0.2:9090", "chat"),
    }  # fmt: skip


@pytest.mark.parametrize("data", [{}, {CONFIG_KEY: "rubbish"}, {CONFIG_KEY: "{}"}])
def test_a_candidate_is_compared_also_where_somebody_spoiled_the_configuration_of_the_stable_server(data: Any) -> None:
    assert _measured(measured("b"), data=data)["stable"] == ("http://10.0.0.1:8080", "chat")


def test_an_address_with_colons_is_written_in_brackets() -> None:
    assert _measured(measured("b"), address="fd00::2")["candidate"] == ("http://[fd00::2]:8080", "chat")


def test_data_that_cannot_be_read_is_said_before_a_node_is_touched() -> None:
    world = running(TWO)
    world.change(benchmark={"data": {"uri": "pvc://Not_a_claim/x"}})
    assert world.operate() == 1, "the status alone"
    assert world.status["phase"] == "Ready", "nothing is to be measured now"
    world.deploy("good-2")
    world.settle()
    assert world.condition("InputsResolved")["status"] == "False"
    assert "Not_a_claim" in world.condition("InputsResolved")["message"]
    assert nodes_with_job(world, "pull") == set()
    assert [world.serving(name) for name in TWO] == [["good-1"], ["good-1"]]


# --- promotion


def test_a_promotion_keeps_the_pods_and_those_made_later_stand_before_no_gate() -> None:
    world = running(TWO)
    before = {name: [p["metadata"]["uid"] for p in world.pods_on(name, "serve")] for name in TWO}
    world.deploy("good-2")
    until(world, lambda w: w.status["stable"]["images"]["farms"] == w.parent["spec"]["model"]["image"])
    promoted = {name: [p["metadata"]["uid"] for p in world.pods_on(name, "serve")] for name in TWO}
    world.settle()
    assert promoted == {n: [p["metadata"]["uid"] for p in world.pods_on(n, "serve")] for n in TWO} != before
    assert tracks(world) == {"stable": ("Any", set())}
    (old,) = world.pods_on("n1", "serve")
    assert old["spec"]["readinessGates"], "it dates from the trial"
    world.evict(old)
    before_eviction = world.status["stable"]
    until(world, serving("n1", model="good-2"))
    (new,) = world.pods_on("n1", "serve")
    assert not new["spec"].get("readinessGates")
    assert world.status["stable"] == before_eviction


def test_a_server_of_the_promoted_revision_never_stays_before_a_closed_gate() -> None:
    """A pod made anew at the moment of the promotion has the candidate's gate, and there is no turn any more."""
    resource, found = measured("a"), node("n")
    _, as_candidate = servers(resource, track="candidate", only=["n"])
    closed = pod(as_candidate, "n", ready=False, containers=True)
    observed = Observed(children=tuple(servers(resource)), pods=(closed,), nodes=(found,))
    plan = plan_edgedeployment(resource, observed, SETTINGS, NOW)
    assert [(p["metadata"]["name"], c["status"]) for p, c in plan.pod_conditions] == [
        (closed["metadata"]["name"], "True")
    ]


def test_a_node_that_joins_gets_the_stable_revision_before_and_the_new_one_after_the_promotion() -> None:
    world = running(TWO)
    world.deploy("good-2")
    until(world, serving("n1", model="good-2"))
    world.join("n9", "small")
    until(world, lambda w: w.serving("n9"))
    assert world.serving("n9") == ["good-1"]
    world.settle()
    assert world.serving("n9") == ["good-2"]
    world.join("n10", "small")
    world.settle()
    assert world.serving("n10") == ["good-2"]
    assert world.status["pools"][0]["nodes"] == {"total": 4, "updated": 4, "ready": 4, "offline": 0, "behind": 0}
