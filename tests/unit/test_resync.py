"""How the resync finds what no event told of."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from slmops.cluster.client import PAGE, Cluster
from slmops.cluster.objects import CHILDREN, FINE_TUNE, GVK, JOB, NODE, POD, Key
from slmops.intake import RELIST_DELAY, SELECTOR, WATCHED, Resync
from tests.unit import virtualnet
from tests.unit.fakeapi import FakeApi, eventually, status
from tests.unit.intakes import A, B, Desk, node, owned_by

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
