"""What an EdgeDeployment says of itself: to people in phase and messages, to machines in conditions and counts."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from slmops.api.conditions import ConditionType, timestamp
from slmops.api.edgedeployment import EdgeDeployment, EdgeDeploymentStatus
from slmops.contract import Statistics
from slmops.plan.edgedeployment import plan_edgedeployment
from slmops.state import Manifest, Observed, Problem
from slmops.status.edgedeployment import edgedeployment_status
from tests.unit.edgeworld import World
from tests.unit.fleet_builders import (
    NOW,
    SETTINGS,
    at,
    benched,
    figures,
    image,
    job,
    measured,
    node,
    paired,
    pod,
    pulled,
    revision,
    servers,
    target,
)

A = servers(measured("a"))
HERE = (node("n1", hardware="small"), node("n2", hardware="small"))
OLD = tuple(pod(A[1], found["metadata"]["name"]) for found in HERE)


def _status(resource: EdgeDeployment, *children: Manifest, pods: tuple[Manifest, ...] = OLD,
            nodes: tuple[Manifest, ...] = HERE, refused: bool = False) -> EdgeDeploymentStatus:  # fmt: skip
    """The status after a pass over a fleet where a is stable."""
    observed = Observed(children=(*A, *children), pods=pods, nodes=nodes)
    plan = plan_edgedeployment(resource, observed, SETTINGS, NOW)
    if refused:
        plan = replace(plan, problem=Problem(ConditionType.ACCEPTED, "ChildRefused", "quota exceeded"))
    return edgedeployment_status(resource, observed, plan, NOW)


def _facts(status: EdgeDeploymentStatus) -> dict[str, tuple[str, str]]:
    return {c.type: (c.status, c.reason) for c in status.conditions}


def _message(status: EdgeDeploymentStatus, type: str) -> str:
    return next(c.message for c in status.conditions if c.type == type)


def _before(**parts: Any) -> dict[str, Any]:
    """A status as it was: a stable, b on trial in the first of two waves."""
    return {
        "stable": {"revision": revision(measured("a")).name, "images": {"farms": image("a")}, "since": at(-600)},
        "candidate": {"revision": revision(measured("b")).name, "images": {"farms": image("b")}, "since": at(-60)},
        "wave": {"name": "canary", "index": 1, "of": 2},
    } | parts


def _on_trial(*serving: str, verdict: Any = None) -> tuple[list[Manifest], tuple[Manifest, ...]]:
    """Children and pods of b, which serves on these nodes alone, or is measured on n1."""
    b = servers(measured("b"), track="candidate", only=["n1", "n2"])
    children = [*b, *(pulled(measured("b"), found) for found in HERE)]
    if verdict is not None:
        children.append(benched(measured("b"), HERE[0], verdict))
    alone = [pod(b[1], name, gate=True) for name in serving]
    rest = [old for old in OLD if old["spec"]["nodeName"] not in serving]
    trial = [pod(b[1], "n1", ready=False, containers=True)] if verdict is not None else []
    return children, (*alone, *rest, *trial)


GOOD, BAD = figures(target(), target()), figures(target((10, 10, 10)), target())


# --- the life of a rollout


def test_at_rest() -> None:
    status = _status(measured("a", status=_before(candidate=None, wave=None)))
    assert status.phase == "Ready"
    assert _facts(status) == {
        "Accepted": ("True", "Valid"), "InputsResolved": ("True", "Resolved"), "Progressing": ("True", "Done"),
        "Benchmarked": ("Unknown", "NotMeasured"), "Promoted": ("True", "Promoted"), "Ready": ("True", "Serving"),
    }  # fmt: skip
    assert (status.candidate, status.wave, status.activity, status.failed) == (None, None, None, [])


def test_under_way() -> None:
    children, pods = _on_trial(verdict=figures(target(), target()))
    status = _status(measured("b", status=_before()), *children[:3], job(measured("b"), "bench", HERE[0]), pods=pods)
    assert status.phase == "Progressing"
    assert _facts(status)["Progressing"] == ("True", "InTurn")
    assert _facts(status)["Promoted"][0] == "Unknown"
    assert _facts(status)["Ready"] == ("True", "Serving"), "the stable revision serves all the time"
    assert status.activity == "n1: Measuring"
    assert status.wave
    assert (status.wave.name, status.wave.index, status.wave.of) == ("canary", 1, 2)
    assert status.candidate
    assert status.candidate.since == at(-60), "it is the one from before"
    assert status.candidate.images == {"farms": image("b")}


def test_promoted() -> None:
    children, pods = _on_trial("n1", "n2")
    status = _status(measured("b", status=_before()), *children, pods=pods)
    assert (status.phase, status.candidate, status.wave) == ("Ready", None, None)
    assert status.stable
    assert (status.stable.images, status.stable.since) == ({"farms": image("b")}, at(0))
    assert status.last_outcome
    assert (status.last_outcome.outcome, status.last_outcome.revision) == ("Promoted", status.stable.revision)
    assert status.pools[0].nodes.updated == 2


def test_a_promotion_that_was_refused_is_not_called_one() -> None:
    children, pods = _on_trial("n1", "n2")
    status = _status(measured("b", status=_before()), *children, pods=pods, refused=True)
    assert status.stable
    assert status.stable.images == {"farms": image("a")}
    assert status.last_outcome is None
    assert status.candidate is not None
    assert _facts(status)["Accepted"] == ("False", "ChildRefused")
    assert _facts(status)["Promoted"] == ("Unknown", "ChildRefused")


def test_a_promotion_that_was_cut_off_before_it_could_say_so_is_said_later() -> None:
    status = _status(measured("a", status=_before(stable=None, candidate={
        "revision": revision(measured("a")).name, "since": at(-60)})))  # fmt: skip
    assert status.last_outcome
    assert (status.last_outcome.outcome, status.last_outcome.reason) == ("Promoted", "AllNodesPassed")
    assert status.candidate is None


def test_rolled_back_names_node_class_figure_and_bound_and_keeps_saying_so() -> None:
    children, pods = _on_trial(verdict=BAD)
    first = _status(measured("b", status=_before()), *children, pods=pods)
    again = _status(measured("b", status=first.dump()), *children, pods=pods)
    for status in (first, again):
        assert status.phase == "Degraded"
        assert status.last_outcome
        assert status.last_outcome.outcome == "RolledBack"
        assert status.failed == [revision(measured("b")).name]
        assert status.stable
        assert status.stable.since == at(-600), "it never stopped being stable"
        assert _facts(status)["Progressing"] == ("False", "GateFailed")
        assert _facts(status)["Promoted"] == ("False", "GateFailed")
        assert _facts(status)["Benchmarked"] == ("False", "Failed")
        assert _facts(status)["Ready"] == ("True", "Serving")
        for text in (_message(status, "Promoted"), status.last_outcome.message):
            assert "node n1 (small): TokensPerSecond is 10, wanted min 20" in text
        assert "slmops.dev/retry" in _message(status, "Promoted")
        assert (status.candidate, status.activity) == (None, None)
        assert status.wave
        assert status.wave.index == 1, "where it failed"


def test_a_doubt_says_how_to_go_on() -> None:
    children, pods = _on_trial(verdict=figures(target((5, 30, 60)), target()))
    status = _status(measured("b", status=_before()), *children, pods=pods)
    assert status.phase == "Paused"
    assert _facts(status)["Progressing"] == ("False", "GateInconclusive")
    assert "rounds from 5 to 60" in _message(status, "Progressing")
    assert "slmops.dev/retry" in _message(status, "Progressing")
    assert _facts(status)["Benchmarked"] == ("False", "Inconclusive")


def test_a_pause_says_who_paused() -> None:
    status = _status(measured("b", paused=True, status=_before()))
    assert (status.phase, _facts(status)["Progressing"]) == ("Paused", ("False", "Paused"))
    assert _message(status, "Progressing") == "spec.paused is set. Unset it to go on."


def test_a_candidate_that_was_overtaken() -> None:
    status = _status(measured("c", status=_before()))
    assert status.last_outcome
    assert (status.last_outcome.outcome, status.last_outcome.reason) == ("Superseded", "SpecChanged")
    assert status.last_outcome.revision == revision(measured("b")).name
    assert status.candidate
    assert status.candidate.since == at(0)


def test_the_same_outcome_keeps_its_time() -> None:
    outcome = {"outcome": "RolledBack", "revision": revision(measured("b")).name, "reason": "GateFailed", "at": at(-9)}
    children, pods = _on_trial(verdict=BAD)
    status = _status(measured("b", status=_before(lastOutcome=outcome)), *children, pods=pods)
    assert status.last_outcome
    assert status.last_outcome.at == at(-9)


def test_what_is_stable_is_known_by_image_even_where_the_status_is_lost() -> None:
    """A backup has none, and the spec may ask for something else by then."""
    for resource in (measured("b"), measured("b", model={"quantizedModel": {"name": "nowhere"}})):
        status = _status(resource)
        assert status.stable
        assert (status.stable.revision, status.stable.images) == (revision(measured("a")).name, {"farms": image("a")})


def test_only_the_last_failures_are_remembered() -> None:
    many = [f"r{i}" for i in range(10)]
    children, pods = _on_trial(verdict=BAD)
    status = _status(measured("b", status=_before(failed=many)), *children, pods=pods)
    assert status.failed == [*many[1:], revision(measured("b")).name]


# --- when the wanted revision cannot be told


def test_while_the_model_is_not_there_the_rollout_stays_where_it_is() -> None:
    """A QuantizedModel that is built anew must not restart a soak, nor forget whom a spec change overtakes."""
    waiting = measured("b", model={"quantizedModel": {"name": "q"}},
                       status=_before(wave={"name": "canary", "index": 1, "of": 2, "completedAt": at(-3)}))  # fmt: skip
    children, pods = _on_trial("n1")
    status = _status(waiting, *children, pods=pods)
    assert status.phase == "Pending"
    assert status.candidate == waiting.status.candidate
    assert status.wave == waiting.status.wave
    assert status.last_outcome is None
    assert _facts(status)["InputsResolved"] == ("Unknown", "ReferenceNotFound")
    assert "QuantizedModel q does not exist" in _message(status, "Progressing")
    assert status.pools[0].nodes.ready == 2, "the node that serves the candidate serves"
    assert status.pools[0].nodes.updated == 1


def test_a_refused_spec_says_what_to_mend() -> None:
    pools = [{"name": name, "selector": {"matchLabels": {"pool": "farms"}}} for name in ("farms", "two")]
    status = _status(measured("b", pools=pools, status=_before()))
    assert _facts(status)["Accepted"] == ("False", "OverlappingPools")
    assert "make the selectors exclusive" in _message(status, "Accepted")


# --- counts


def test_nodes_are_counted_once_whatever_runs_on_them() -> None:
    b = servers(measured("b"), track="candidate", only=["n1"])
    both = (*OLD, pod(b[1], "n1", gate=True))
    status = _status(measured("b", status=_before()), *b, pulled(measured("b"), HERE[0]), pods=both)
    assert status.pools[0].nodes.dump() == {"total": 2, "updated": 1, "ready": 2, "offline": 0, "behind": 1}


def test_offline_nodes_are_counted_apart_and_do_not_make_it_unready() -> None:
    nodes = (HERE[0], node("n2", hardware="small", ready=False))
    status = _status(measured("a"), nodes=nodes)
    assert status.pools[0].nodes.dump() == {"total": 2, "updated": 1, "ready": 1, "offline": 1, "behind": 0}, (
        "n2 has it, as far as is known"
    )
    assert _facts(status)["Ready"] == ("True", "Serving")
    assert _message(status, "Ready") == "1 of 1 nodes serve"


@pytest.mark.parametrize(
    ("pods", "nodes", "phase", "ready"),
    [
        (OLD, HERE, "Ready", ("True", "Serving")),
        (OLD[:1], HERE, "Degraded", ("False", "NodesNotServing")),
        ((OLD[0], pod(A[1], "n2", ready=False)), HERE, "Degraded", ("False", "NodesNotServing")),
        ((OLD[0], pod(A[1], "n2", deleting=True)), HERE, "Degraded", ("False", "NodesNotServing")),
        ((), (), "Pending", ("Unknown", "NoNodes")),
    ],
)
def test_ready_means_that_every_online_node_serves(
    pods: tuple[Manifest, ...], nodes: tuple[Manifest, ...], phase: str, ready: tuple[str, str]
) -> None:
    status = _status(measured("a"), pods=pods, nodes=nodes)
    assert (status.phase, _facts(status)["Ready"]) == (phase, ready)


def test_before_the_first_promotion_nothing_is_called_ready() -> None:
    resource = measured("a")
    observed = Observed(nodes=HERE)
    plan = plan_edgedeployment(resource, observed, SETTINGS, NOW)
    status = edgedeployment_status(resource, observed, plan, NOW)
    assert _facts(status)["Ready"] == ("Unknown", "NothingPromoted")
    assert (status.stable, status.phase) == (None, "Progressing")


def test_each_class_shows_its_worst_verdict_and_what_was_measured() -> None:
    nodes = (*HERE, node("n3", hardware="big"), node("n4", hardware="odd"))
    b = measured("b", rollback={"automatic": False}, status=_before())
    children = [
        benched(b, nodes[0], figures(target(), target())), benched(b, nodes[1], BAD),
        benched(b, nodes[2], figures(target((33, 33, 33)), target())),
    ]  # fmt: skip
    big, odd, small = _status(b, *children, nodes=nodes).pools[0].classes
    assert (big.name, big.nodes, big.verdict, big.node) == ("big", 1, "Passed", "n3")
    assert (big.figures["candidate"]["TokensPerSecond"], big.figures["stable"]["TokensPerSecond"]) == (33, 30)
    assert (small.name, small.nodes, small.verdict, small.node) == ("small", 2, "Failed", "n2")
    assert next((g.metric, g.outcome) for g in small.gates) == ("TokensPerSecond", "Failed")
    assert (odd.name, odd.verdict, odd.figures) == ("odd", "Pending", {})


def test_a_class_shows_how_sure_its_figures_are_and_what_disturbed_its_node() -> None:
    b = measured("b", status=_before())
    heat = "3 thermal throttling events"
    told = Statistics(paired={"TokensPerSecond": paired(0.85, 0.82, 0.88)}, noise={"TokensPerSecond": 0.02},
                      disturbances=(heat,))  # fmt: skip
    candidate = target((25, 26, 27), intervals={"TokensPerSecond": (24.5, 27.5)})
    children, pods = _on_trial(verdict=figures(candidate, target(), told))
    status = _status(b, *children, pods=pods)
    (found,) = status.pools[0].classes
    assert (found.verdict, found.noise, found.disturbances) == ("Inconclusive", {"TokensPerSecond": 0.02}, [heat])
    speed, compared, _ = found.gates
    assert (speed.outcome, speed.value, speed.interval, speed.doubt) == ("Passed", "26", "24.5 to 27.5", None)
    assert (compared.outcome, compared.interval) == ("Inconclusive", "0.82 to 0.88 of stable")
    assert f"(0.82 to 0.88 of stable; the node was disturbed: {heat})" in _message(status, "Progressing")


def test_a_fleet_of_many_classes_fits_and_shows_what_matters() -> None:
    nodes = tuple(node(f"n{i:03}", hardware=f"class-{i:03}") for i in range(100))
    b = measured("b", rollback={"automatic": False}, status=_before())
    status = _status(b, benched(b, nodes[99], BAD), *(benched(b, n, GOOD) for n in nodes[:90]), nodes=nodes, pods=())
    classes = status.pools[0].classes
    assert len(classes) == 64
    assert [c.name for c in classes] == sorted(c.name for c in classes)
    assert [c.name for c in classes if c.verdict == "Failed"] == ["class-099"]


@pytest.mark.parametrize(("count", "told"), [(5, "node-0: Waiting; node-1: Waiting; node-2"), (6, "farms: Waiting")])
def test_what_is_done_on_many_nodes_is_told_in_short(count: int, told: str) -> None:
    nodes = tuple(node(f"node-{i}") for i in range(count))
    strategy = {"maxUnavailable": count, "waves": [{"name": "all", "nodes": "100%"}]}
    activity = _status(measured("b", strategy=strategy), nodes=nodes).activity
    assert activity is not None
    assert activity.startswith(told)


def test_messages_of_pods_never_make_the_status_too_long() -> None:
    gates = [{"metric": "TokensPerSecond", "min": 20 + i} for i in range(32)]
    children, pods = _on_trial()
    b = measured("b", gates=gates, status=_before())
    trial = pod(children[1], "n1", ready=False, containers=True)
    status = _status(b, *children, benched(b, HERE[0], BAD), pods=(*pods, trial))
    assert status.last_outcome
    assert len(status.last_outcome.message) <= 2048
    assert all(len(c.message) <= 2048 for c in status.conditions)


# --- clocks


def test_a_wave_that_is_done_starts_the_soak_once() -> None:
    world = World({"n1": "small", "n2": "small"})
    world.settle()
    waves = [{"name": "one", "nodes": 1, "soak": "10m"}, {"name": "rest", "nodes": "100%"}]
    world.change(strategy={"waves": waves})
    world.deploy("good-2")
    for _ in range(30):
        world.turn()
    done = world.status["wave"]["completedAt"]
    begun = world.now - timedelta(seconds=30)
    assert timestamp(begun) < done < timestamp(world.now)
    assert world.condition("Progressing")["reason"] == "Soaking"
    assert world.serving("n2") == ["good-1"]
    version = world.version
    world.advance(60)
    world.operate()
    assert (world.status["wave"]["completedAt"], world.version) == (done, version)
    world.status["wave"]["completedAt"] = "never"
    world.operate()
    assert world.status["wave"]["completedAt"] == timestamp(world.now), "a soak that nobody can count begins anew"
    world.advance(600)
    world.turn()
    assert (world.status["wave"]["index"], "completedAt" in world.status["wave"]) == (2, False)


def test_times_move_only_when_something_changes() -> None:
    first = _status(measured("a", status=_before(candidate=None, wave=None)))
    resource = measured("a", status=first.dump())
    observed = Observed(children=tuple(A), pods=OLD, nodes=HERE)
    later = NOW + timedelta(hours=5)
    plan = plan_edgedeployment(resource, observed, SETTINGS, later)
    assert edgedeployment_status(resource, observed, plan, later) == first


# --- fleets of many nodes


def test_a_large_fleet_is_told_in_steps_and_its_counts_in_twentieths() -> None:
    world = World(dict.fromkeys((f"n{number:03}" for number in range(200)), "small"), strategy={"maxUnavailable": 6})
    world.settle()
    world.deploy("good-2")
    seen, activities, passes = set(), set(), 0
    while world.plan.detail.decision != "Promote":  # type: ignore[attr-defined]
        world.turn()
        passes += 1
        if world.status.get("candidate"):
            seen.add(world.status["pools"][0]["nodes"]["updated"])
            activities.add(world.status.get("activity"))
    assert passes > 30
    assert len(seen) <= 23, seen
    many = {text for text in activities if text and ";" not in text and not text.startswith("n")}
    assert many
    assert all(set(text.removeprefix("farms: ").split(", ")) <= {"Waiting", "Starting", "Passed"} for text in many)
    assert len(activities) <= 12, activities
    assert world.status["pools"][0]["nodes"]["updated"] == 200, "in the end it is exact"
