"""Which resources an event wakes, and how the resync finds what no event told of."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from slmops.__main__ import _references as references
from slmops.cluster.cache import Cache
from slmops.cluster.client import PAGE, Cluster
from slmops.cluster.objects import (
    CHILDREN,
    DISTILLATION,
    EDGE_DEPLOYMENT,
    FINE_TUNE,
    GVK,
    JOB,
    MANAGED_BY,
    MANAGER,
    NODE,
    PARENTS,
    POD,
    QUANTIZED_MODEL,
    Key,
    Manifest,
)
from slmops.intake import CHILD_DELAY, NODE_DELAY, RELIST_DELAY, SELECTOR, WATCHED, Intake, Resync, asked
from tests.unit import virtualnet
from tests.unit.fakeapi import FakeApi, eventually, status

A, B = Key("FineTune", "farm", "a"), Key("FineTune", "farm", "b")


class Desk:
    """An intake, and whom it woke."""

    def __init__(self) -> None:
        self.cache = Cache(refers_to=references)
        self.woken: list[tuple[Key, float]] = []
        self.told: list[tuple[str, str]] = []
        self.intake = Intake(self.cache, lambda key, after: self.woken.append((key, after)), told=self._tell)
        self._versions = iter(range(10, 10**6))

    def _tell(self, kind: str, effect: str) -> None:
        self.told.append((kind, effect))

    def event(self, gvk: GVK, type: str | None, name: str, version: int | None = None, **fields: Any) -> set[Key]:
        """Tell of an event; returns whom it woke."""
        metadata = {"name": name, "resourceVersion": str(version or next(self._versions)), **fields.pop("metadata", {})}
        if gvk.namespaced:
            metadata.setdefault("namespace", "farm")
        before = len(self.woken)
        self.intake.event(gvk, type, {"apiVersion": gvk.api_version, "kind": gvk.kind, "metadata": metadata, **fields})
        return {key for key, _ in self.woken[before:]}


def owned_by(name: str, kind: str = "FineTune", **labels: str) -> Manifest:
    return {"labels": {MANAGED_BY: MANAGER, "slmops.dev/kind": kind, "slmops.dev/name": name, **labels}}


# --- whom an event wakes


@pytest.mark.parametrize("type", [None, "ADDED", "MODIFIED"])
def test_a_resource_wakes_itself(type: str | None) -> None:
    assert Desk().event(FINE_TUNE, type, "a", spec={}) == {A}


def test_a_resource_wakes_those_who_refer_to_it_also_when_it_goes() -> None:
    desk = Desk()
    desk.event(FINE_TUNE, "ADDED", "a", spec={"base": {"distillation": {"name": "student"}}})
    desk.event(FINE_TUNE, "ADDED", "b", spec={"base": {"uri": "hf://x"}})
    desk.event(QUANTIZED_MODEL, "ADDED", "q", spec={"model": {"distillation": {"name": "student"}}})
    student = Key("Distillation", "farm", "student")
    both = {student, A, Key("QuantizedModel", "farm", "q")}
    assert desk.event(DISTILLATION, "ADDED", "student", spec={}) == both
    assert desk.event(DISTILLATION, "MODIFIED", "student", spec={}, status={"phase": "Succeeded"}) == both
    assert desk.event(DISTILLATION, "DELETED", "student") == both
    assert desk.event(DISTILLATION, "ADDED", "student", metadata={"namespace": "mill"}) == {
        Key("Distillation", "mill", "student")
    }, "references stay in their namespace"


@pytest.mark.parametrize("gvk", CHILDREN)
def test_a_child_wakes_the_parent_that_its_labels_name(gvk: GVK) -> None:
    desk = Desk()
    assert desk.event(gvk, "ADDED", "c", metadata=owned_by("a")) == {A}
    assert desk.event(gvk, "MODIFIED", "c", metadata=owned_by("a"), status={"conditions": [{"type": "Failed"}]}) == {A}
    assert desk.event(gvk, "DELETED", "c", metadata=owned_by("a")) == {A}


def test_what_a_child_does_in_a_moment_is_one_pass() -> None:
    desk = Desk()
    desk.event(JOB, "ADDED", "c", metadata=owned_by("a"))
    assert desk.woken == [(A, CHILD_DELAY)]


def test_a_child_that_changes_hands_wakes_both_parents() -> None:
    desk = Desk()
    desk.event(JOB, "ADDED", "c", metadata=owned_by("a"))
    assert desk.event(JOB, "MODIFIED", "c", metadata=owned_by("b")) == {A, B}
    assert desk.event(JOB, "MODIFIED", "c", metadata={"labels": {}}) == {B}, "a child that lost its labels"
    assert desk.event(JOB, "MODIFIED", "c", metadata={"labels": {}}, status={"conditions": []}) == set()


def test_a_watch_that_does_not_see_a_child_any_more_tells_of_a_deletion_and_wakes_the_former_parent() -> None:
    desk = Desk()
    desk.event(JOB, "ADDED", "c", metadata=owned_by("a"))
    assert desk.event(JOB, "DELETED", "c", metadata={"labels": {}}) == {A}


@pytest.mark.parametrize(
    "labels", [{}, {"slmops.dev/kind": "FineTune"}, {"slmops.dev/name": "a"},
               {"slmops.dev/kind": "Node", "slmops.dev/name": "a"},
               {"slmops.dev/kind": "finetune", "slmops.dev/name": "a"}]
)  # fmt: skip
def test_labels_that_name_no_resource_of_ours_wake_nobody(labels: dict[str, str]) -> None:
    assert Desk().event(JOB, "ADDED", "c", metadata={"labels": labels}) == set()


def test_what_is_no_news_wakes_nobody() -> None:
    desk = Desk()
    desk.event(FINE_TUNE, "ADDED", "a", version=5, spec={"x": 1})
    assert desk.event(FINE_TUNE, "MODIFIED", "a", version=5, spec={"x": 1}) == set(), "twice"
    assert desk.event(FINE_TUNE, None, "a", version=4, spec={"x": 0}) == set(), "late"
    assert desk.event(FINE_TUNE, "MODIFIED", "a", version=6, spec={"x": 1}) == set(), "another version, same content"
    assert desk.event(JOB, "DELETED", "unknown", metadata=owned_by("a")) == set()
    assert desk.told == [("FineTune", "changed"), *[("FineTune", "unchanged")] * 3, ("Job", "unchanged")]


def test_our_own_write_wakes_nobody() -> None:
    desk = Desk()
    desk.event(FINE_TUNE, "ADDED", "a", version=5, spec={})
    metadata = {"name": "a", "namespace": "farm", "resourceVersion": "6"}
    desk.cache.wrote(FINE_TUNE, {"metadata": metadata, "spec": {}, "status": {"phase": "Pending"}})
    assert desk.event(FINE_TUNE, "MODIFIED", "a", version=6, spec={}, status={"phase": "Pending"}) == set()


def node(ready: str = "True", beat: str = "1", **labels: str) -> dict[str, Any]:
    condition = {"type": "Ready", "status": ready, "lastHeartbeatTime": beat}
    return {"metadata": {"labels": labels}, "status": {"conditions": [condition]}}


@pytest.mark.parametrize(
    ("change", "another"),
    [
        ({"metadata": {"uid": "u", "generation": 2}}, True),
        ({"metadata": {"uid": "u", "generation": 1, "annotations": {"slmops.dev/retry": "1"}}}, True),
        ({"metadata": {"uid": "v", "generation": 1}}, True),
        ({"metadata": {"uid": "u", "generation": 1, "annotations": {"a": "b"}, "labels": {"c": "d"}}}, False),
        ({"metadata": {"uid": "u", "generation": 1}, "status": {"phase": "Failed"}}, False),
    ],
)
def test_what_people_ask_is_told_from_what_else_changes(change: dict[str, Any], another: bool) -> None:
    desk = Desk()
    assert asked(desk.cache, A) is None
    desk.event(FINE_TUNE, "ADDED", "a", metadata={"uid": "u", "generation": 1})
    before = asked(desk.cache, A)
    assert before is not None
    assert desk.event(FINE_TUNE, "MODIFIED", "a", **change) == {A}
    assert (asked(desk.cache, A) != before) is another
    desk.event(FINE_TUNE, "DELETED", "a", **change)
    assert asked(desk.cache, A) is None


def test_a_node_wakes_every_edge_deployment_and_nobody_else() -> None:
    desk = Desk()
    edge = {Key("EdgeDeployment", "farm", "e"), Key("EdgeDeployment", "mill", "e")}
    desk.event(EDGE_DEPLOYMENT, "ADDED", "e")
    desk.event(EDGE_DEPLOYMENT, "ADDED", "e", metadata={"namespace": "mill"})
    desk.event(FINE_TUNE, "ADDED", "a")
    desk.woken.clear()
    assert desk.event(NODE, "ADDED", "n", **node()) == edge
    assert {after for _, after in desk.woken} == {NODE_DELAY}
    assert desk.event(NODE, "MODIFIED", "n", **node(ready="Unknown")) == edge
    assert desk.event(NODE, "MODIFIED", "n", **node(ready="Unknown", pool="farms")) == edge
    assert desk.event(NODE, "DELETED", "n") == edge


def test_a_nodes_heartbeat_wakes_nobody() -> None:
    desk = Desk()
    desk.event(EDGE_DEPLOYMENT, "ADDED", "e")
    desk.event(NODE, "ADDED", "n", **node(beat="1"))
    assert desk.event(NODE, "MODIFIED", "n", **node(beat="2")) == set()


def test_everybody_can_be_woken_spread_over_time() -> None:
    desk = Desk()
    keys = set()
    for gvk in PARENTS:
        for number in range(50):
            desk.event(gvk, "ADDED", f"n{number}")
            keys.add(Key(gvk.kind, "farm", f"n{number}"))
    desk.event(JOB, "ADDED", "j", metadata=owned_by("n1"))
    desk.woken.clear()
    desk.intake.wake_all(within=300)
    assert {key for key, _ in desk.woken} == keys
    assert len(desk.woken) == len(keys)
    times = sorted(after for _, after in desk.woken)
    assert 0 <= times[0] < 60
    assert 240 < times[-1] <= 300


# --- the resync

EVERY = 600.0


class Office:
    """A resync against an API server."""

    def __init__(self, api: FakeApi, cluster: Cluster, namespaces: tuple[str, ...] = ()) -> None:
        self.api = api
        self.desk = Desk()
        self.told: list[tuple[str, str, int]] = []
        self.resync = Resync(
            cluster, self.desk.cache, self.desk.intake, namespaces, told=lambda *what: self.told.append(what)
        )
        self.task = asyncio.create_task(self.resync.run(EVERY))

    @property
    def woken(self) -> set[Key]:
        return {key for key, _ in self.desk.woken}

    async def filled(self, seconds: float = 5.0) -> None:
        await eventually(lambda: self.resync.done, seconds)
        self.desk.woken.clear()
        self.told.clear()
        self.api.requests.clear()

    def lists(self, gvk: GVK) -> int:
        return sum(request.path.endswith(f"/{gvk.plural}") for request in self.api.requests)


def play(
    scenario: Callable[[FakeApi, Office], Awaitable[None]],
    *,
    begin: Callable[[FakeApi], Any] = lambda api: None,
    namespaces: tuple[str, ...] = (),
) -> None:
    async def main() -> None:
        async with FakeApi() as api, Cluster(api.connection()) as cluster:
            begin(api)
            office = Office(api, cluster, namespaces)
            await scenario(api, office)
            assert not office.task.done(), "the resync goes on for ever"
            office.task.cancel()
            await asyncio.gather(office.task, return_exceptions=True)

    virtualnet.run(main())


def some(api: FakeApi) -> None:
    api.put(FINE_TUNE, "a", spec={})
    api.put(JOB, "job", metadata=owned_by("a"))
    api.put(JOB, "stranger")
    api.put(NODE, "n", **node())


def test_at_first_everything_is_listed_and_other_peoples_jobs_are_not() -> None:
    async def scenario(api: FakeApi, office: Office) -> None:
        assert not office.resync.done
        await eventually(lambda: office.resync.done)
        cache = office.desk.cache
        assert (cache.count(FINE_TUNE), cache.count(JOB), cache.count(NODE)) == (1, 1, 1)
        assert office.woken == {A}
        assert sorted(office.told) == sorted((gvk.kind, "compared", 0) for gvk in WATCHED)
        selector = ",".join(f"{key}={value}" for key, value in SELECTOR.items())
        for gvk in CHILDREN:
            asked = [request for request in api.requests if request.path == gvk.path()]
            assert [request.query["labelSelector"] for request in asked] == [selector]

    play(scenario, begin=some)


def test_the_caches_are_filled_only_once_every_list_has_worked(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(api: FakeApi, office: Office) -> None:
        await asyncio.sleep(300)
        assert not office.resync.done
        assert office.desk.cache.count(FINE_TUNE) == 1, "what can be listed is"
        assert office.lists(FINE_TUNE) == 1, "and not again"
        assert 100 <= office.lists(NODE) <= 300
        assert ("Node", "failed", 0) in office.told
        api.faults.clear()
        await office.filled()

    def begin(api: FakeApi) -> None:
        some(api)
        api.refuse(403, path="/nodes")

    with caplog.at_level(logging.INFO, logger="slmops"):
        play(scenario, begin=begin)
    said = [record.getMessage() for record in caplog.records if record.name == "slmops.intake"]
    assert said == ["nodes cannot be listed: 403", "caches are filled"], "each once"


def test_a_deletion_that_nobody_told_of_is_found_and_the_parent_woken() -> None:
    async def scenario(api: FakeApi, office: Office) -> None:
        await office.filled()
        api.drop(JOB, "job")
        office.resync.request(JOB, None)
        office.resync.request(JOB, None)
        await asyncio.sleep(RELIST_DELAY + 1)
        assert office.desk.cache.count(JOB) == 0
        assert office.woken == {A}
        assert office.told == [("Job", "compared", 1)], "one list for both requests, and nothing else listed"

    play(scenario, begin=some)


def test_everything_is_compared_from_time_to_time_and_everybody_looked_at() -> None:
    async def scenario(api: FakeApi, office: Office) -> None:
        await office.filled()
        api.drop(JOB, "job")
        api.put(FINE_TUNE, "b", spec={})
        await asyncio.sleep(0.85 * EVERY)
        assert office.told == []
        await asyncio.sleep(0.3 * EVERY)
        assert sorted(office.told) == sorted(
            (gvk.kind, "compared", 1 if gvk in (JOB, FINE_TUNE) else 0) for gvk in WATCHED
        )
        assert office.woken == {A, B}
        office.told.clear()
        office.desk.woken.clear()
        await asyncio.sleep(1.1 * EVERY)
        assert len(office.told) == len(WATCHED), "and again"
        assert office.woken == {A, B}, "though nothing changed"
        assert max(after for _, after in office.desk.woken) <= EVERY / 2

    play(scenario, begin=some)


def test_requests_do_not_put_the_regular_comparison_off() -> None:
    async def scenario(api: FakeApi, office: Office) -> None:
        await office.filled()
        for _ in range(int(1.2 * EVERY)):
            office.resync.request(NODE, None)
            await asyncio.sleep(1)
        assert ("FineTune", "compared", 0) in office.told

    play(scenario, begin=some)


def test_a_comparison_that_fails_is_made_up_for() -> None:
    async def scenario(api: FakeApi, office: Office) -> None:
        await office.filled()
        api.drop(JOB, "job")
        fault = api.refuse(503, path="/jobs")
        office.resync.request(JOB, None)
        await asyncio.sleep(60)
        assert office.desk.cache.count(JOB) == 1
        assert set(office.told) == {("Job", "failed", 0)}
        api.faults.remove(fault)
        await eventually(lambda: office.desk.cache.count(JOB) == 0, 10)
        assert office.woken == {A}

    play(scenario, begin=some)


def test_a_list_that_breaks_off_removes_nothing() -> None:
    def begin(api: FakeApi) -> None:
        for number in range(PAGE + 1):
            api.put(FINE_TUNE, f"f{number:04}")

    async def scenario(api: FakeApi, office: Office) -> None:
        await office.filled()

        def expired(request: web.Request) -> web.Response | None:
            return status(410, "Expired") if "continue" in request.query else None

        api.faults.append(expired)
        office.resync.request(FINE_TUNE, None)
        await asyncio.sleep(60)
        assert ("FineTune", "failed", 0) in office.told
        assert office.desk.cache.count(FINE_TUNE) == PAGE + 1

    play(scenario, begin=begin)


def test_only_the_namespaces_that_are_served_are_listed() -> None:
    def begin(api: FakeApi) -> None:
        some(api)
        api.put(FINE_TUNE, "a", namespace="elsewhere")

    async def scenario(api: FakeApi, office: Office) -> None:
        await eventually(lambda: office.resync.done)
        assert {key.namespace for key in office.woken} == {"farm"}
        paths = {request.path for request in api.requests}
        assert POD.path("farm") in paths
        assert POD.path() not in paths
        assert NODE.path() in paths
        assert (NODE, None) in office.resync.watches
        assert (POD, "mill") in office.resync.watches

    play(scenario, begin=begin, namespaces=("farm", "mill"))
