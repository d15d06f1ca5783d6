"""The real kopf against a scripted API server, in virtual time: whatever happens to its watches, they come back.

Each fault here ends an operator that uses kopf as it comes, or leaves it deaf.
"""

import asyncio
import gc
import logging

import pytest
from aiohttp import web
from kopf._core.reactor.inventory import ResourceMemory

from slmops import handlers
from slmops.cluster.client import PAGE
from slmops.cluster.objects import FINE_TUNE, JOB, NODE
from tests.unit import virtualnet
from tests.unit.fakeapi import FakeApi, status
from tests.unit.fakeobjects import line
from tests.unit.watching import OURS, OUTAGES, WATCHED, Watching, lists, play

# --- what kopf tells


def test_what_is_there_and_what_happens_is_told() -> None:
    async def scenario(api: FakeApi, watching: Watching) -> None:
        assert watching.events == [(FINE_TUNE, None, "old")]
        api.put(FINE_TUNE, "a", spec={"x": 1})
        api.put(FINE_TUNE, "a", spec={"x": 2})
        api.drop(FINE_TUNE, "a")
        api.put(NODE, "n")
        await asyncio.sleep(1)
        assert [event for event in watching.events if event[0] is FINE_TUNE][1:] == [
            (FINE_TUNE, "ADDED", "a"),
            (FINE_TUNE, "MODIFIED", "a"),
            (FINE_TUNE, "DELETED", "a"),
        ]
        assert watching.names(NODE) == ["n"]
        assert watching.bodies[-2 if watching.events[-1][0] is NODE else -1]["spec"] == {"x": 2}

    play(scenario, begin=lambda api: api.put(FINE_TUNE, "old") and None)


def test_other_peoples_jobs_do_not_enter_the_process() -> None:
    async def scenario(api: FakeApi, watching: Watching) -> None:
        api.put(JOB, "ours", metadata=OURS)
        api.put(JOB, "theirs")
        await asyncio.sleep(1)
        api.put(JOB, "ours", metadata={"labels": {}})
        api.put(JOB, "ours", spec={"x": 1})
        await asyncio.sleep(1)
        assert watching.events == [(JOB, "ADDED", "ours"), (JOB, "DELETED", "ours")]
        assert watching.bodies[-1]["metadata"]["labels"] == OURS["labels"], "the body that still names the parent"

    play(scenario, begin=lambda api: api.put(JOB, "strange") and None)


def test_only_the_namespaces_that_are_served_are_watched() -> None:
    async def scenario(api: FakeApi, watching: Watching) -> None:
        for namespace in ("farm", "mill", "elsewhere"):
            api.put(FINE_TUNE, namespace, namespace=namespace)
        await asyncio.sleep(1)
        assert sorted(watching.names()) == ["farm", "mill"]
        paths = {request.path for request in api.requests if "finetunes" in request.path}
        assert paths == {FINE_TUNE.path("farm"), FINE_TUNE.path("mill")}

    play(scenario, namespaces=("farm", "mill"))


def test_a_long_list_comes_in_pages() -> None:
    def begin(api: FakeApi) -> None:
        for number in range(2 * PAGE + 1):
            api.put(FINE_TUNE, f"f{number}")

    async def scenario(api: FakeApi, watching: Watching) -> None:
        await asyncio.sleep(1)
        assert len(set(watching.names())) == 2 * PAGE + 1
        assert lists(api) == 3

    play(scenario, begin=begin)


def memories() -> list[ResourceMemory]:
    gc.collect()
    return [found for found in gc.get_objects() if type(found) is ResourceMemory]


def test_kopf_keeps_nothing_of_the_objects_it_saw() -> None:
    async def scenario(api: FakeApi, watching: Watching) -> None:
        before = len(asyncio.all_tasks()), len(memories())
        for number in range(50):
            api.put(FINE_TUNE, f"f{number}", metadata={"finalizers": ["theirs"]}, spec={"x": 1})
        await watching.hears("f49", 5)
        await asyncio.sleep(1)
        assert (len(asyncio.all_tasks()), len(memories())) == before

    play(scenario)


def test_an_event_that_cannot_be_taken_in_costs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(api: FakeApi, watching: Watching) -> None:
        watching.fails_at = "bad"
        api.put(FINE_TUNE, "bad")
        api.put(FINE_TUNE, "good")
        await watching.hears("good", 5)
        api.put(FINE_TUNE, "bad", spec={"x": 1})
        watching.fails_at = ""
        api.put(FINE_TUNE, "bad", spec={"x": 2})
        await watching.hears("bad", 5)

    play(scenario)
    assert [record for record in caplog.records if record.exc_info and "odd" in str(record.exc_info[1])], "it is told"


def test_objects_marked_for_deletion_are_left_to_go() -> None:
    """kopf's own finalizer on an object of an earlier installation is not touched either."""

    async def scenario(api: FakeApi, watching: Watching) -> None:
        marks = {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["kopf.zalando.org/KopfFinalizerMarker"]}
        api.put(FINE_TUNE, "a", metadata=marks)
        await watching.hears("a", 5)
        await asyncio.sleep(60)

    play(scenario)


# --- what happens to the API server


@pytest.mark.parametrize("what", OUTAGES)
def test_the_watches_come_back_after_an_outage_that_was_no_storm_of_requests(what: str) -> None:
    """kopf gives up after a minute, and what it does not give up it repeats without a pause."""
    minutes = 10 if what in ("503", "401", "connection broken", "no answer") else 3

    async def scenario(api: FakeApi, watching: Watching) -> None:
        OUTAGES[what](api)
        before = len(api.requests)
        await asyncio.sleep(60 * minutes)
        watching.alive()
        # A dozen tries of each watch before kopf begins anew, twice each time: a refused token is read again, and a
        # connection that broke may have been an old one. A stream that breaks is opened again after a second or two.
        bound = 2 * 12 * (60 * minutes / handlers.INACTIVITY_TIMEOUT + 1) if what != "half an answer" else 60 * minutes
        assert len(api.requests) - before <= len(WATCHED) * bound
        api.put(FINE_TUNE, "during")
        api.served = list(dict.fromkeys([*api.served, FINE_TUNE]))
        api.faults.clear()
        healed = virtualnet.now()
        await watching.hears("during", handlers.INACTIVITY_TIMEOUT + handlers.LONGEST_BACKOFF)
        seconds = virtualnet.now() - healed
        if what != "no answer":  # there the request under way has to run into its timeout first
            assert seconds <= handlers.LONGEST_BACKOFF + 2
        api.put(FINE_TUNE, "after")
        await watching.hears("after", 5)

    play(scenario)


@pytest.mark.parametrize("code", [500, 504, 429, 403, 400])
def test_an_error_event_is_no_end(code: int) -> None:
    async def scenario(api: FakeApi, watching: Watching) -> None:
        before = lists(api)
        for _ in range(5):
            api.send_error(FINE_TUNE, code)
            await asyncio.sleep(3)
            watching.alive()
        api.put(FINE_TUNE, "after")
        await watching.hears("after", 5)
        assert lists(api) == before, "the watch goes on from where it was"

    play(scenario)


def test_events_before_an_error_event_are_not_lost() -> None:
    async def scenario(api: FakeApi, watching: Watching) -> None:
        api.put(FINE_TUNE, "before")
        api.send_error(FINE_TUNE, 500)
        await watching.hears("before", 5)

    play(scenario)


def test_an_error_event_is_followed_by_a_pause() -> None:
    """kopf reconnects at once: a server that answers each watch with an error would be asked without end."""

    async def scenario(api: FakeApi, watching: Watching) -> None:
        body = line({"type": "ERROR", "object": {"kind": "Status", "code": 500}})

        def failing(request: web.Request) -> web.Response | None:
            return web.Response(body=body, content_type="application/json") if "watch" in request.query else None

        api.faults.append(failing)
        api.cut()
        before = len(api.requests)
        await asyncio.sleep(60)
        assert len(api.requests) - before <= len(WATCHED) * 62

    play(scenario)


@pytest.mark.parametrize("how", ["by an error event", "at the next watch"])
def test_after_410_everything_is_listed_again_and_the_resync_is_told(how: str) -> None:
    async def scenario(api: FakeApi, watching: Watching) -> None:
        assert watching.relisted == []
        api.put(FINE_TUNE, "changed", quiet=True, spec={"x": 2})
        api.drop(FINE_TUNE, "gone", quiet=True)
        if how == "by an error event":
            api.send_error(FINE_TUNE, 410)
        else:
            api.compact()
        await asyncio.sleep(5)
        watching.alive()
        assert watching.bodies[[i for i, n in enumerate(watching.names()) if n == "changed"][-1]]["spec"] == {"x": 2}
        assert (FINE_TUNE, None) in watching.relisted, "kopf tells of no deletion, so the resync has to look"
        api.put(FINE_TUNE, "after")
        await watching.hears("after", 5)

    def begin(api: FakeApi) -> None:
        api.put(FINE_TUNE, "changed", spec={"x": 1})
        api.put(FINE_TUNE, "gone")

    play(scenario, begin=begin)


def test_a_list_that_expires_between_two_pages_is_begun_anew() -> None:
    def begin(api: FakeApi) -> None:
        for number in range(PAGE + 1):
            api.put(FINE_TUNE, f"f{number:04}")
        begun = 0

        def expired(request: web.Request) -> web.Response | None:
            nonlocal begun
            if request.path == FINE_TUNE.path() and "continue" not in request.query:
                begun += 1
            return status(410, "Expired") if "continue" in request.query and begun < 3 else None

        api.faults.append(expired)

    async def scenario(api: FakeApi, watching: Watching) -> None:
        await watching.up(30)
        assert f"f{PAGE:04}" in watching.names()

    play(scenario, begin=begin, up=False)


# --- what an outage says


def test_an_outage_is_told_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(api: FakeApi, watching: Watching) -> None:
        OUTAGES["503"](api)
        await asyncio.sleep(600)
        api.faults.clear()
        await asyncio.sleep(60)

    with caplog.at_level(logging.INFO, logger="slmops"):
        play(scenario)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("slmops")]
    assert sorted(said) == sorted(
        [f"watch of {gvk.plural} does not work, tried again until it does: HTTP 503" for gvk in WATCHED]
        + [f"watch of {gvk.plural} works again" for gvk in WATCHED]
    )
