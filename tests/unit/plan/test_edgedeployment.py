"""What is done when: turns, cut-over, promotion, going back, and everything that may come between."""

import json
from typing import Any

import pytest

from slmops.api.edgedeployment import EdgeDeployment
from slmops.contract import CONFIG_KEY
from slmops.plan.edgedeployment import plan_edgedeployment
from slmops.state import LABEL_REVISION, LABEL_ROLE, Observed, Plan
from tests.unit.copies import fresh
from tests.unit.edgeworld import World
from tests.unit.fleet_builders import (
    NOW,
    SETTINGS,
    at,
    benched,
    configuration,
    deployment,
    figures,
    hosts,
    job,
    measured,
    node,
    pod,
    pulled,
    servers,
    target,
    track,
)

TWO = {"n1": "small", "n2": "small"}
FOUR = TWO | {"n3": "small", "n4": "big"}


def _running(nodes: dict[str, str], **spec: Any) -> World:
    world = World(nodes, **spec)
    world.settle()
    assert world.status["phase"] == "Ready"
    return world


def _until(world: World, what: Any, limit: int = 60) -> World:
    """Everybody works until something is so."""
    for _ in range(limit):
        if what(world):
            return world
        world.turn()
    raise AssertionError("it never came to that")


def _serving(*names: str, model: str) -> Any:
    return lambda world: all(model in world.serving(name) for name in names)


def _tracks(world: World) -> dict[str, Any]:
    return {track(found): hosts(found) for found in world.of_kind("DaemonSet")}


def _jobs(world: World, role: str) -> set[str]:
    """Nodes that have a Job of a role."""
    jobs = [found for found in world.of_kind("Job") if found["metadata"]["labels"][LABEL_ROLE] == role]
    return {found["metadata"]["annotations"]["slmops.dev/node"].removesuffix(".local") for found in jobs}


# --- a node's turn


def test_the_turn_of_a_node_step_by_step() -> None:
    world = _running(TWO)
    world.deploy("good-2")
    world.operate()
    assert _jobs(world, "pull") == {"n1"}
    assert set(_tracks(world)) == {"stable"}, "no server before the image is there"
    _until(world, lambda w: "candidate" in _tracks(w))
    assert _tracks(world) == {"stable": ("Any", set()), "candidate": ("In", {"n1.local"})}
    _until(world, lambda w: _jobs(w, "bench"))
    assert world.serving("n1") == ["good-1"], "it is measured without traffic"
    _until(world, _serving("n1", model="good-2"))
    assert "good-1" in world.serving("n1"), "the old one stays until the new one serves"
    _until(world, lambda w: w.serving("n1") == ["good-2"])
    assert _tracks(world)["stable"] == ("NotIn", {"n1.local"})


def test_jobs_are_pinned_by_host_name_and_go_to_cordoned_nodes() -> None:
    toleration = {"key": "edge", "operator": "Exists"}
    pool = {"name": "farms", "selector": {"matchLabels": {"pool": "farms"}}, "tolerations": [toleration] * 16}
    world = _running(TWO, pools=[pool])
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
    world = _running(FOUR)
    world.deploy("good-2")
    world.settle()
    revision = world.status["stable"]["revision"]
    benches = [found for found in world.of_kind("Job") if found["metadata"]["labels"][LABEL_REVISION] == revision]
    assert sorted(found["metadata"]["annotations"]["slmops.dev/node"] for found in benches) == ["n1.local", "n4.local"]


def test_on_a_pause_turns_that_have_begun_go_on_and_no_other_begins() -> None:
    world = _running(FOUR, strategy={"waves": [{"name": "all", "nodes": "100%"}], "maxUnavailable": 2})
    world.deploy("good-2")
    world.operate()
    assert _jobs(world, "pull") == {"n1", "n4"}
    world.change(paused=True)
    world.settle()
    assert [world.serving(name) for name in FOUR] == [["good-2"], ["good-1"], ["good-1"], ["good-2"]]
    assert world.status["phase"] == "Paused"
    world.change(paused=False)
    world.settle()
    assert world.status["phase"] == "Ready"


def test_a_node_that_left_the_pool_is_not_admitted_any_more() -> None:
    """Else it would get the candidate without a turn when it comes back."""
    world = _running(FOUR, strategy={"waves": [{"name": "all", "nodes": "100%"}], "maxUnavailable": 2})
    world.deploy("good-2")
    _until(world, lambda w: _tracks(w).get("candidate") == ("In", {"n1.local", "n4.local"}))
    world.relabel("n1", None)
    world.operate()
    assert _tracks(world)["candidate"] == ("In", {"n4.local"})


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
    world = _running(TWO)
    world.change(benchmark={"data": {"uri": "pvc://Not_a_claim/x"}})
    assert world.operate() == 1, "the status alone"
    assert world.status["phase"] == "Ready", "nothing is to be measured now"
    world.deploy("good-2")
    world.settle()
    assert world.condition("InputsResolved")["status"] == "False"
    assert "Not_a_claim" in world.condition("InputsResolved")["message"]
    assert _jobs(world, "pull") == set()
    assert [world.serving(name) for name in TWO] == [["good-1"], ["good-1"]]


# --- promotion


def test_a_promotion_keeps_the_pods_and_those_made_later_stand_before_no_gate() -> None:
    world = _running(TWO)
    before = {name: [p["metadata"]["uid"] for p in world.pods_on(name, "serve")] for name in TWO}
    world.deploy("good-2")
    _until(world, lambda w: w.status["stable"]["images"]["farms"] == w.parent["spec"]["model"]["image"])
    promoted = {name: [p["metadata"]["uid"] for p in world.pods_on(name, "serve")] for name in TWO}
    world.settle()
    assert promoted == {n: [p["metadata"]["uid"] for p in world.pods_on(n, "serve")] for n in TWO} != before
    assert _tracks(world) == {"stable": ("Any", set())}
    (old,) = world.pods_on("n1", "serve")
    assert old["spec"]["readinessGates"], "it dates from the trial"
    world.evict(old)
    before_eviction = world.status["stable"]
    _until(world, _serving("n1", model="good-2"))
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
    world = _running(TWO)
    world.deploy("good-2")
    _until(world, _serving("n1", model="good-2"))
    world.join("n9", "small")
    _until(world, lambda w: w.serving("n9"))
    assert world.serving("n9") == ["good-1"]
    world.settle()
    assert world.serving("n9") == ["good-2"]
    world.join("n10", "small")
    world.settle()
    assert world.serving("n10") == ["good-2"]
    assert world.status["pools"][0]["nodes"] == {"total": 4, "updated": 4, "ready": 4, "offline": 0}


# --- going back


@pytest.mark.parametrize("model", ["slow-1", "crashing-1", "broken-1"])
def test_a_bad_candidate_reaches_one_node_and_is_taken_back(model: str) -> None:
    world = _running(FOUR)
    spec = fresh(world.parent["spec"]) | {"model": None}
    stable = world.status["stable"]
    touched: set[str] = set()
    world.deploy(model)
    for _ in range(40):
        world.turn()
        for name in FOUR:
            touched |= {name} if len(world.revisions(name)) > 1 else set()
            assert world.serving(name) == ["good-1"]
    assert len(touched) <= 1
    assert world.status["lastOutcome"]["outcome"] == "RolledBack"
    assert world.status["stable"] == stable
    assert world.parent["spec"] | {"model": None} == spec
    assert _tracks(world) == {"stable": ("Any", set())}


def test_a_failure_in_a_later_wave_gives_every_node_back_without_a_gap() -> None:
    """The class that failed came last; on the other nodes the candidate serves alone by then."""
    world = _running({"n1": "big", "n2": "big", "n3": "big"})
    world.deploy("lame-1")
    _until(world, lambda w: w.serving("n1") == w.serving("n2") == ["lame-1"])
    world.join("n4", "small")
    while world.plan.detail.decision != "RollBack":  # type: ignore[attr-defined]
        assert _tracks(world)["stable"][0] == "NotIn"
        world.turn()
    assert _tracks(world)["stable"] == ("Any", set()), "it gets its nodes back at once"
    for _ in range(30):
        assert all(world.serving(name) for name in ("n1", "n2", "n3"))
        world.turn()
    assert [world.serving(name) for name in world.nodes] == [["good-1"]] * 4
    assert [len(world.pods_on(name, "serve")) for name in world.nodes] == [1] * 4


def test_a_failure_is_recorded_before_its_evidence_is_cleared_away() -> None:
    world = _running(TWO)
    world.deploy("crashing-1")
    _until(world, lambda w: w.plan.detail.decision == "RollBack")  # type: ignore[attr-defined]
    assert world.plan.remove == ()
    assert world.plan.deadline is not None, "somebody has to come back"
    assert world.plan.deadline <= 1
    world.operate()
    assert {child["kind"] for child in world.plan.remove} == {"Job", "ConfigMap", "DaemonSet"}


def test_returning_to_the_good_spec_in_the_middle_leaves_no_gap() -> None:
    world = _running(TWO, strategy={"waves": [{"name": "all", "nodes": "100%"}]})
    world.deploy("good-2")
    _until(world, lambda w: w.serving("n1") == ["good-2"])
    world.deploy("good-1")
    for _ in range(20):
        world.turn()
        assert all(world.serving(name) for name in TWO)
    assert [world.serving(name) for name in TWO] == [["good-1"], ["good-1"]]
    assert (world.status["lastOutcome"]["outcome"], world.status["phase"]) == ("Superseded", "Ready")


@pytest.mark.parametrize("stable", [True, False])
def test_a_newer_candidate_takes_over_from_one_that_was_not_done(stable: bool) -> None:
    world = _running(TWO) if stable else World(TWO, model="good-3")
    world.deploy("good-2" if stable else "good-3")
    _until(world, lambda w: w.serving("n1") in (["good-2"], ["good-3"]))
    world.deploy("good-4")
    for _ in range(40):
        world.turn()
        assert world.serving("n1"), "what serves goes only when another serves"
    assert [world.serving(name) for name in TWO] == [["good-4"], ["good-4"]]
    assert set(_tracks(world)) == {"stable"}


def test_a_failed_first_revision_leaves_nothing_behind() -> None:
    world = World({"a": "small", "b": "big"}, model="lame-1", strategy={"waves": [{"name": "all", "nodes": "100%"}]})
    world.settle()
    assert world.status["lastOutcome"]["outcome"] == "RolledBack"
    assert world.pods_on("a", "serve") + world.pods_on("b", "serve") == []
    assert world.of_kind("DaemonSet") == []


def test_a_failed_candidate_leaves_a_new_pool_as_empty_as_it_was() -> None:
    """The stable revision was never there, so nothing would ever take the place of what failed."""
    world = _running({"n1": "big", "n2": "small"})
    world.join("b1", "big", "barns")
    farms = world.parent["spec"]["pools"]
    world.change(pools=[*farms, {"name": "barns", "selector": {"matchLabels": {"pool": "barns"}}}])
    world.deploy("lame-1")
    _until(world, lambda w: w.serving("n1") == w.serving("b1") == ["lame-1"])
    world.settle()
    assert world.status["phase"] == "Degraded"
    assert [world.serving(name) for name in world.nodes] == [["good-1"], ["good-1"], []]
    assert len(world.of_kind("DaemonSet")) == 1
    world.deploy("good-2")
    world.settle()
    assert [world.serving(name) for name in world.nodes] == [["good-2"]] * 3


def test_the_annotation_tries_a_failed_candidate_again_and_only_once() -> None:
    world = _running(TWO)
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
    world = _running(TWO)
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
    _until(world, lambda w: w.serving("n1") == ["good-2"])
    world.deploy("slow-1")
    world.settle()
    assert (world.status["phase"], world.status["stable"]) == ("Ready", stable)
    world.retry("2")
    world.settle()
    assert world.status["stable"]["revision"] != stable["revision"], "to set it again is a wish"


@pytest.mark.parametrize("when", [lambda w: _jobs(w, "pull"), lambda w: "candidate" in _tracks(w)])
def test_a_rollout_goes_on_when_the_annotation_that_began_it_is_taken_away(when: Any) -> None:
    world = _running(TWO)
    world.deploy("slow-1")
    world.settle()
    world.change(gates=[])
    world.retry("1")
    _until(world, when)
    candidate = world.status["candidate"]["revision"]
    world.retry(None)
    world.settle()
    assert (world.status["phase"], world.status["stable"]["revision"]) == ("Ready", candidate)


def test_what_serves_well_and_is_tried_again_for_nothing_stays_when_the_annotation_is_taken_away() -> None:
    world = _running(TWO)
    stable = world.status["stable"]
    world.retry("1")
    _until(world, lambda w: "candidate" in _tracks(w))
    world.retry(None)
    world.settle()
    assert (world.status["phase"], world.status["stable"]) == ("Ready", stable)
    assert len(world.of_kind("DaemonSet")) == 1


# --- nodes that come and go


def test_an_offline_node_is_skipped_and_caught_up_without_a_gap() -> None:
    world = _running(FOUR)
    world.offline("n3")
    world.deploy("good-2")
    world.settle()
    assert world.status["stable"]["images"]["farms"] == world.parent["spec"]["model"]["image"]
    assert [world.serving(name) for name in ("n1", "n2", "n4")] == [["good-2"]] * 3
    assert world.status["pools"][0]["nodes"] == {"total": 4, "updated": 3, "ready": 3, "offline": 1}
    assert _tracks(world) == {"stable": ("Any", set()), "retired": ("In", {"n3.local"})}
    world.online("n3")
    world.kubelet("n3")
    for _ in range(20):
        assert world.serving("n3"), "the old server stays until the new one is ready"
        world.turn()
    assert world.serving("n3") == ["good-2"]
    assert _tracks(world) == {"stable": ("Any", set())}


def test_a_node_that_missed_two_promotions_starts_only_what_is_stable_now() -> None:
    world = _running(FOUR)
    world.offline("n3")
    for model in ("good-2", "good-3"):
        world.deploy(model)
        world.settle()
    world.online("n3")
    world.settle()
    assert world.serving("n3") == ["good-3"]
    assert _tracks(world) == {"stable": ("Any", set())}


def test_a_node_that_goes_away_in_the_middle_of_its_turn_holds_nobody_up() -> None:
    world = _running(FOUR)
    world.deploy("good-2")
    _until(world, lambda w: _jobs(w, "pull"))
    world.offline("n1")
    world.settle()
    assert world.status["phase"] == "Ready"
    world.online("n1")
    world.settle()
    assert world.serving("n1") == ["good-2"]


def test_a_node_that_serves_the_candidate_alone_is_left_alone_while_it_is_away() -> None:
    """Its connection comes and goes; that is no reason to start the stable server on it."""
    world = _running(FOUR)
    world.deploy("good-2")
    _until(world, lambda w: w.serving("n1") == ["good-2"])
    world.offline("n1")
    world.operate()
    world.turn()
    assert "n1.local" in _tracks(world)["stable"][1]
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
    world = _running(TWO)
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
    world = _running(FOUR, pools=("farms", "barns"))
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


# --- passes


def test_two_pools_that_share_a_node_stop_everything_and_touch_nothing() -> None:
    world = _running(TWO)
    both = [*world.parent["spec"]["pools"], {"name": "two", "selector": {"matchLabels": {"pool": "farms"}}}]
    world.change(pools=both)
    world.operate()
    assert (world.plan.apply, world.plan.remove) == ((), ())
    assert world.condition("Accepted")["reason"] == "OverlappingPools"
    assert [world.serving(name) for name in TWO] == [["good-1"], ["good-1"]]


def test_a_report_is_kept_before_its_pod_can_go() -> None:
    world = World(TWO)
    _until(world, lambda w: any(f.get("status", {}).get("conditions") for f in w.of_kind("Job")))
    world.operate()
    (found,) = [f for f in world.of_kind("Job") if "-pull-" in f["metadata"]["name"]]
    assert '"outcome":"Succeeded"' in found["metadata"]["annotations"]["slmops.dev/report"]


def test_a_plan_changes_nothing_of_what_was_observed() -> None:
    world = _running(FOUR)
    world.deploy("good-2")
    _until(world, lambda w: w.serving("n1") == ["good-2"])
    observed = world.observed()
    before = fresh(observed)
    plan_edgedeployment(deployment("other"), observed, SETTINGS, world.now)
    assert observed == before


def test_the_next_look_is_due_when_something_may_pass_silently() -> None:
    def deadline(**spec: Any) -> float | None:
        stable = servers(measured("a"))
        observed = Observed(children=tuple(stable), pods=(pod(stable[1], "n"),), nodes=(node("n"),))
        return plan_edgedeployment(measured("b", **spec), observed, SETTINGS, NOW).deadline

    assert deadline() == 10, "a rollout under way: its deadlines make no event"
    assert deadline(paused=True) is None
    assert deadline(model={"image": measured("a").spec.model.image}) is None, "at rest"


def test_a_soak_that_ends_sooner_is_looked_at_sooner() -> None:
    waves = [{"name": "one", "nodes": 1, "soak": "1m"}, {"name": "rest", "nodes": "100%"}]
    resource = measured("b", strategy={"waves": waves})
    both = [*servers(measured("a")), *servers(resource, track="candidate", only=["n"])]
    status = {"candidate": {"revision": both[3]["metadata"]["labels"][LABEL_REVISION], "since": at(-1)},
              "wave": {"name": "one", "index": 1, "of": 2, "completedAt": at(-55 / 60)}}  # fmt: skip
    pods = (pod(both[1], "m"), pod(both[3], "n", gate=True))
    observed = Observed(children=(*both, pulled(resource, node("n"))), pods=pods, nodes=(node("n"), node("m")))
    soaking = measured("b", strategy={"waves": waves}, status=status)
    assert plan_edgedeployment(soaking, observed, SETTINGS, NOW).deadline == 5


def test_what_is_cleared_away_never_leaves_a_server_without_its_configuration() -> None:
    """Its pods would stay, and no new one could start, if the operator were killed in between."""
    old = [*servers(measured("z")), benched(measured("z"), node("n"), figures(target()))]
    for order in (old, old[::-1]):
        stable = servers(measured("a"))
        observed = Observed(children=(*stable, *order), pods=(pod(stable[1], "n"),), nodes=(node("n"),))
        plan = plan_edgedeployment(measured("a"), observed, SETTINGS, NOW)
        assert [child["kind"] for child in plan.remove][-1] == "ConfigMap"
        assert len(plan.remove) == 3


def test_benchmarks_stay_as_evidence_and_pulls_go_when_they_have_done_their_duty() -> None:
    resource, found = measured("a"), node("n")
    both = [*servers(resource), pulled(resource, found), benched(resource, found, figures(target()))]
    old = benched(measured("z"), found, figures(target()))
    observed = Observed(children=(*both, old), pods=(pod(both[1], "n"),), nodes=(found,))
    plan: Plan = plan_edgedeployment(resource, observed, SETTINGS, NOW)
    gone = {child["metadata"]["name"] for child in plan.remove}
    assert gone == {both[2]["metadata"]["name"], old["metadata"]["name"]}


# --- killed at any write


def _story(begun: World, kill_after: int | None) -> tuple[int, Any]:
    """A rollout to its end; the operator is killed once, after so many writes of it."""
    world = fresh(begun)
    world.kill_after, world.written = kill_after, 0
    world.settle()
    assert world.kill_after is None, "there were not so many writes"
    status = fresh(world.status)
    for part in (status["stable"], status["lastOutcome"], status.get("candidate") or {}, *status["conditions"]):
        for clock in ("since", "at", "lastTransitionTime"):
            part.pop(clock, None)
    children = {key: found["metadata"]["labels"].get("slmops.dev/track") for key, found in world.objects.items()}
    serving = [world.serving(name) for name in world.nodes]
    return world.written, (status, children, serving, world.operate())


@pytest.mark.parametrize("model", ["good-2", "lame-1", "noisy-1", "broken-1"])
def test_killed_after_any_write_it_comes_to_the_same_end(model: str) -> None:
    world = _running({"n1": "small", "n2": "big"})
    world.deploy(model)
    writes, expected = _story(world, None)
    for number in range(writes):
        assert _story(world, number)[1] == expected, f"killed after {number} writes"
