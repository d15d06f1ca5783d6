"""The rollout as a whole: stable, candidate, waves, soak, and how it is decided."""

from datetime import timedelta
from typing import Any

import pytest

from slmops.api.edgedeployment import EdgeDeployment
from slmops.rollout.rollout import Rollout, read
from slmops.state import Manifest, Observed
from tests.unit.builders import UNREADABLE
from tests.unit.fleet_builders import (
    NOW,
    SETTINGS,
    at,
    benched,
    figures,
    job,
    measured,
    node,
    pod,
    pulled,
    revision,
    servers,
    target,
    track,
)

GOOD, BAD = figures(target(), target()), figures(target((10, 10, 10)), target())
THREE = [{"name": "one", "nodes": 1}, {"name": "half", "nodes": "50%"}, {"name": "rest", "nodes": "100%"}]
STABLE = measured("a")


class Fleet:
    """Four nodes that serve a; of b each has as much as a test says."""

    def __init__(self, *nodes: Manifest, status: dict[str, Any] | None = None, **spec: Any) -> None:
        self.nodes = nodes or tuple(node(f"n{i}", hardware="small") for i in range(4))
        spec = {"strategy": {"waves": THREE}} | spec
        self.resource: EdgeDeployment = measured("b", status=status, **spec)
        self.candidate = servers(self.resource, track="candidate", only=["nobody"])
        self.stable = servers(STABLE)
        self.jobs: list[Manifest] = []
        self.pods = [pod(self.stable[1], found["metadata"]["name"]) for found in self.nodes]

    def begin(self, *names: str) -> "Fleet":
        """Nodes that pull."""
        self.jobs += [job(self.resource, "pull", found) for found in self._find(names)]
        return self

    def serve(self, *names: str) -> "Fleet":
        """Nodes that serve the candidate."""
        self.jobs += [pulled(self.resource, found) for found in self._find(names)]
        self.pods += [pod(self.candidate[1], name, gate=True) for name in names]
        return self

    def measure(self, name: str, report: Any) -> "Fleet":
        """A node that was measured."""
        (found,) = self._find((name,))
        self.jobs += [pulled(self.resource, found), benched(self.resource, found, report)]
        self.pods.append(pod(self.candidate[1], name, ready=False, containers=True))
        return self

    def read(self, minutes: float = 0) -> Rollout:
        """What is read from it."""
        children = (*self.stable, *self.candidate, *self.jobs)
        observed = Observed(children=children, pods=tuple(self.pods), nodes=self.nodes)
        return read(self.resource, observed, SETTINGS, NOW + timedelta(minutes=minutes))

    def _find(self, names: tuple[str, ...]) -> list[Manifest]:
        return [found for found in self.nodes if found["metadata"]["name"] in names]


def _active(rollout: Rollout) -> list[str]:
    return [found.name for found in rollout.pools[0].active]


# --- waves


@pytest.mark.parametrize(
    ("serving", "wave", "active", "decision"),
    [
        ((), 0, ["n0"], "Proceed"),
        (("n0",), 1, ["n1"], "Proceed"),
        (("n0", "n1"), 2, ["n2"], "Proceed"),
        (("n2",), 1, ["n0"], "Proceed"),  # whoever was first: what counts is how many
        (("n0", "n1", "n2", "n3"), 2, [], "Promote"),
    ],
)
def test_a_wave_begins_when_the_one_before_serves(
    serving: tuple[str, ...], wave: int, active: list[str], decision: str
) -> None:
    found = Fleet().serve(*serving).read()
    assert (found.wave, _active(found), found.decision) == (wave, active, decision)


@pytest.mark.parametrize(
    ("at_once", "begun", "active"),
    [
        (1, (), ["n0"]),
        (2, (), ["n0", "n1"]),
        (9, (), ["n0", "n1", "n2", "n3"]),
        (1, ("n3",), ["n3"]),
        (2, ("n3",), ["n3", "n0"]),
        (2, ("n1", "n2", "n3"), ["n1", "n2"]),
    ],
)
def test_so_many_nodes_have_their_turn_at_once_and_who_has_begun_comes_first(
    at_once: int, begun: tuple[str, ...], active: list[str]
) -> None:
    strategy = {"maxUnavailable": at_once, "waves": [{"name": "all", "nodes": "100%"}]}
    assert _active(Fleet(strategy=strategy).begin(*begun).read()) == active


def test_the_first_wave_takes_one_node_of_each_class_as_far_as_it_goes() -> None:
    nodes = [node("a1", hardware="a"), node("a2", hardware="a"), node("b1", hardware="b")]
    strategy = {"maxUnavailable": 3, "waves": [{"name": "two", "nodes": 2}, {"name": "rest", "nodes": "100%"}]}
    assert _active(Fleet(*nodes, strategy=strategy).read()) == ["a1", "b1"]


def test_offline_nodes_are_left_out_of_the_waves_and_of_the_promotion() -> None:
    nodes = [node("n0"), node("n1", ready=False), node("n2"), node("n3", ready=False)]
    assert _active(Fleet(*nodes).serve("n0").read()) == ["n2"], "half of two, not of four"
    assert Fleet(*nodes).serve("n0", "n2").read().decision == "Promote"


def test_a_server_that_is_not_ready_any_more_holds_the_wave_up() -> None:
    fleet = Fleet().serve("n0", "n1")
    fleet.pods[-1] = pod(fleet.candidate[1], "n1", ready=False, containers=False, gate=True)
    found = fleet.read()
    assert (found.wave, _active(found), found.decision) == (1, ["n1"], "Proceed")


def test_every_pool_has_its_own_waves_and_all_have_to_pass() -> None:
    nodes = [node("f1"), node("f2"), node("b1", pool="barns"), node("b2", pool="barns")]
    pools = ("farms", "barns")
    fleet = Fleet(*nodes, pools=pools, strategy={})
    first = fleet.read()
    assert [[n.name for n in pool.active] for pool in first.pools] == [["f1"], ["b1"]]
    half = fleet.serve("f1").read()
    assert (half.wave, [[n.name for n in pool.active] for pool in half.pools]) == (0, [[], ["b1"]])


# --- soak


SOAKING = {"waves": [{"name": "one", "nodes": 1, "soak": "10m"}, {"name": "rest", "nodes": "100%", "soak": "5m"}]}


def _soaking(index: int, completed: float | None, candidate: str | None = None, **wave: Any) -> dict[str, Any]:
    name = candidate or revision(measured("b", strategy=SOAKING)).name
    wave |= {"name": "x", "index": index, "of": 2} | ({"completedAt": at(completed)} if completed is not None else {})
    return {"wave": wave, "candidate": {"revision": name, "since": at(-60)}}


@pytest.mark.parametrize(
    ("status", "minutes", "decision", "left"),
    [
        (None, 0, "Soak", 600),  # status has not said yet that the wave is complete
        (_soaking(1, None), 0, "Soak", 600),
        (_soaking(1, -4), 0, "Soak", 360),
        (_soaking(1, -4), 5.9, "Soak", 6),
        (_soaking(1, -4), 6, "Proceed", None),
        (_soaking(2, None), 0, "Proceed", None),  # the next wave has begun
        (_soaking(1, -60, "other"), 0, "Soak", 600),  # the clock of another candidate
        (_soaking(2, -60, "other"), 0, "Soak", 600),
        *((_soaking(1, None, completedAt=time), 0, "Soak", 600) for time in UNREADABLE),
    ],
)
def test_the_soak_is_counted_from_the_time_that_status_names(
    status: dict[str, Any] | None, minutes: float, decision: str, left: float | None
) -> None:
    found = Fleet(status=status, strategy=SOAKING).serve("n0").read(minutes)
    assert (found.decision, found.left) == (decision, left)
    assert found.wave == (0 if decision == "Soak" else 1)


def test_the_last_waves_soak_comes_before_the_promotion() -> None:
    everybody = ("n0", "n1", "n2", "n3")
    assert Fleet(status=_soaking(2, None), strategy=SOAKING).serve(*everybody).read().decision == "Soak"
    assert Fleet(status=_soaking(2, -5), strategy=SOAKING).serve(*everybody).read().decision == "Promote"


def test_a_failure_during_the_soak_is_not_waited_for() -> None:
    fleet = Fleet(status=_soaking(1, -1), strategy=SOAKING).serve("n0")
    fleet.pods[-1] = pod(fleet.candidate[1], "n0", ready=False, gate=True, restarts=3)
    assert fleet.read().decision == "RollBack"


# --- how it is decided


def test_one_failed_node_rolls_back_whatever_the_others_say() -> None:
    found = Fleet().serve("n0").measure("n1", BAD).measure("n2", figures(target((5, 30, 60)), target())).read()
    assert (found.decision, found.reason) == ("RollBack", "GateFailed")
    assert found.message.startswith("node n1 (small): TokensPerSecond is 10, wanted")


def test_a_failure_rolls_back_on_a_pause_too_and_waits_for_a_person_where_that_is_wanted() -> None:
    assert Fleet(paused=True).measure("n0", BAD).read().decision == "RollBack"
    assert Fleet(rollback={"automatic": False}).measure("n0", BAD).read().decision == "Pause"


def test_a_doubt_pauses_even_when_all_the_others_have_passed() -> None:
    doubt = figures(target((5, 30, 60)), target())
    found = Fleet().serve("n0", "n1", "n2").measure("n3", doubt).read()
    assert (found.decision, found.reason) == ("Pause", "GateInconclusive")


def test_on_a_pause_nothing_is_promoted() -> None:
    found = Fleet(paused=True).serve("n0", "n1", "n2", "n3").read()
    assert (found.decision, found.reason) == ("Pause", "Paused")


@pytest.mark.parametrize("nodes", [(node("n0", ready=False), node("n1", ready=False)), (node("x", pool="other"),)])
def test_without_a_node_online_nothing_is_decided(nodes: tuple[Manifest, ...]) -> None:
    fleet = Fleet(*nodes, strategy=SOAKING, status=_soaking(1, -60))
    found = fleet.read()
    assert (found.decision, found.reason, found.wave) == ("Wait", "NoNodes", 0)


def test_a_pool_without_nodes_does_not_hold_the_others_up() -> None:
    nodes = [node("f1"), node("b1", pool="barns", ready=False)]
    pools = ("farms", "barns", "sheds")
    assert Fleet(*nodes, pools=pools, strategy={}).serve("f1").read().decision == "Promote"


def test_what_failed_is_not_tried_again_until_the_user_asks() -> None:
    failed = {"failed": [revision(measured("b", strategy={"waves": THREE})).name]}
    found = Fleet(status=failed).read()
    assert (found.decision, found.reason, found.candidate) == ("Nothing", "CandidateFailed", None)
    again = Fleet(status=failed, annotations={"slmops.dev/retry": "1"}).read()
    assert (again.decision, again.reason) == ("Proceed", "InTurn")


def test_a_node_that_two_pools_select_is_refused() -> None:
    pools = [{"name": name, "selector": {"matchLabels": {"pool": "farms"}}} for name in ("farms", "two")]
    found = Fleet(pools=pools, strategy={}).read()
    assert found.problem is not None
    assert found.problem.reason == "OverlappingPools"
    assert "node n0 is selected by pools farms and two" in found.problem.message


# --- what is stable


def _stable(status: str | None, *sets: tuple[str, str], trial: str = "", asked: str = "b") -> str | None:
    """The stable model where DaemonSets of these models have these tracks, and status says this."""
    names = {revision(measured(model)).name: model for model in "abc"}
    children = []
    for number, (model, of_track) in enumerate(sets):
        daemon_set = servers(measured(model), track=of_track)[1]
        daemon_set["metadata"]["name"] += f"-{number}"
        assert track(daemon_set) == of_track
        children.append(daemon_set)
    said = {"stable": status, "candidate": trial}
    before = {k: {"revision": revision(measured(v)).name, "since": at(-60)} for k, v in said.items() if v}
    resource = measured(asked, status=before)
    orders = [children, children[::-1]]
    found = {read(resource, Observed(children=tuple(order)), SETTINGS, NOW).stable for order in orders}
    assert len(found) == 1, "the order of a list means nothing"
    return names.get(found.pop() or "")


@pytest.mark.parametrize(
    ("status", "sets", "expected"),
    [
        (None, (), None),
        ("a", (), None),  # status may come from a backup; the DaemonSets are what is
        (None, (("a", "stable"), ("b", "candidate")), "a"),
        ("b", (("a", "stable"), ("b", "candidate")), "a"),
        ("b", (("b", "stable"), ("a", "retired")), "b"),
        ("a", (("a", "stable"), ("b", "stable")), "b"),  # a promotion that was cut off: carried on
        ("c", (("a", "stable"), ("c", "stable")), "c"),
        (None, (("c", "candidate"),), None),
    ],
)
def test_the_daemon_sets_say_what_is_stable(
    status: str | None, sets: tuple[tuple[str, str], ...], expected: str | None
) -> None:
    assert _stable(status, *sets) == expected


def test_a_promotion_that_was_cut_off_stands_also_when_the_user_wants_something_else_by_then() -> None:
    """The one before may have lost its parts already."""
    both = (("a", "stable"), ("c", "stable"))
    assert _stable("a", *both, trial="c") == "c"
    assert _stable("c", *both) == "c", "and the one before is forgotten once status has said so"


# --- how many are measured


@pytest.mark.parametrize(
    ("wanted", "measured_nodes", "step"),
    [(1, (), "Measuring"), (1, ("n0",), "Passed"), (2, ("n0",), "Measuring"), (2, ("n0", "n1"), "Passed")],
)
def test_so_many_nodes_of_a_class_are_measured(wanted: int, measured_nodes: tuple[str, ...], step: str) -> None:
    benchmark = {"data": {"uri": "oci://registry.example/slm/data:v1"}, "nodesPerClass": wanted}
    fleet = Fleet(benchmark=benchmark)
    for name in measured_nodes:
        fleet.measure(name, GOOD)
    fleet.jobs.append(pulled(fleet.resource, fleet.nodes[3]))
    fleet.pods.append(pod(fleet.candidate[1], "n3", ready=False, containers=True))
    assert fleet.read().pools[0].turns["n3"].step == step
