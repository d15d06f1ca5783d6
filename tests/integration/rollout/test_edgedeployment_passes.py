"""A pass over an EdgeDeployment: what it leaves alone, what it clears, when the next is due, and one that is killed."""

from collections import Counter
from typing import Any

import pytest

from slmops.api.edgedeployment import EdgeDeployment
from slmops.plan.edgedeployment import plan_edgedeployment
from slmops.rollout.benches import Bench, bench
from slmops.state import LABEL_REVISION, JobState, Manifest, Observed, Plan, job_state
from slmops.status.edgedeployment import edgedeployment_status
from tests.unit.copies import fresh
from tests.unit.edgeworld import World
from tests.unit.fleet_builders import (
    NOW,
    SETTINGS,
    at,
    benched,
    deployment,
    figures,
    measured,
    node,
    pod,
    pulled,
    servers,
    target,
)
from tests.unit.plan.fleets import FOUR, TWO, running, until

# --- passes


def test_two_pools_that_share_a_node_stop_everything_and_touch_nothing() -> None:
    world = running(TWO)
    both = [*world.parent["spec"]["pools"], {"name": "two", "selector": {"matchLabels": {"pool": "farms"}}}]
    world.change(pools=both)
    world.operate()
    assert (world.plan.apply, world.plan.remove) == ((), ())
    assert world.condition("Accepted")["reason"] == "OverlappingPools"
    assert [world.serving(name) for name in TWO] == [["good-1"], ["good-1"]]


def test_a_report_is_kept_before_its_pod_can_go() -> None:
    world = World(TWO)
    until(world, lambda w: any(f.get("status", {}).get("conditions") for f in w.of_kind("Job")))
    world.operate()
    (found,) = [f for f in world.of_kind("Job") if "-pull-" in f["metadata"]["name"]]
    assert '"outcome":"Succeeded"' in found["metadata"]["annotations"]["slmops.dev/report"]


def test_a_plan_changes_nothing_of_what_was_observed() -> None:
    world = running(FOUR)
    world.deploy("good-2")
    until(world, lambda w: w.serving("n1") == ["good-2"])
    observed = world.observed()
    before = fresh(observed)
    plan_edgedeployment(deployment("other"), observed, SETTINGS, world.now)
    assert observed == before


def test_a_pass_reads_each_report_and_judges_each_benchmark_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = running(FOUR)
    world.deploy("good-2")
    until(world, lambda w: w.serving("n1") == ["good-2"])
    jobs, read, judged = world.of_kind("Job"), Counter[str](), Counter[object]()

    def counted(job: Manifest, *more: Any) -> JobState:
        read[job["metadata"]["name"]] += 1
        return job_state(job, *more)

    def counting(resource: EdgeDeployment, observed: Observed, *whose: Any) -> Bench | None:
        judged[whose] += 1
        return bench(resource, observed, *whose)

    monkeypatch.setattr("slmops.state.job_state", counted)
    monkeypatch.setattr("slmops.rollout.benches.bench", counting)
    observed, resource = world.observed(), EdgeDeployment.model_validate(world.parent)
    plan = plan_edgedeployment(resource, observed, SETTINGS, world.now)
    edgedeployment_status(resource, observed, plan, world.now)
    assert read == Counter(job["metadata"]["name"] for job in jobs)
    assert list(judged.values()) == [1] * len(FOUR)


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


def _end(world: World, kill_after: int | None = None) -> Any:
    """A rollout from here to its end; the operator is killed once, after so many writes from now on."""
    world.kill_after = kill_after
    world.settle()
    assert world.kill_after is None, "there were not so many writes"
    status = fresh(world.status)
    for part in (status["stable"], status["lastOutcome"], status.get("candidate") or {}, *status["conditions"]):
        for clock in ("since", "at", "lastTransitionTime"):
            part.pop(clock, None)
    children = {key: found["metadata"]["labels"].get("slmops.dev/track") for key, found in world.objects.items()}
    serving = [world.serving(name) for name in world.nodes]
    return status, children, serving, world.operate()


@pytest.mark.parametrize("model", ["good-2", "lame-1", "noisy-1", "broken-1"])
def test_killed_after_any_write_it_comes_to_the_same_end(model: str) -> None:
    world = running({"n1": "small", "n2": "big"})
    world.deploy(model)
    begun = world.written
    moments = [fresh(world)]
    """Before each turn: who is killed in it has done the same as everybody until then."""
    for _ in world.to_rest():
        moments.append(fresh(world))
    writes, expected = world.written - begun, _end(world)
    assert writes > 3
    for number in range(begun, begun + writes):
        before = next(moment for moment in reversed(moments) if moment.written <= number)
        assert _end(fresh(before), number - before.written) == expected, f"killed after {number - begun} writes"
