"""The real kopf against a scripted API server, in virtual time: whatever happens to its watches, they come back.

Each fault here ends an operator that uses kopf as it comes, or leaves it deaf.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from tests.unit import virtualnet
from tests.unit.fakeapi import FakeApi, abort, broken, eventually, hang, line, status

from slmops import handlers
from slmops.cluster.client import PAGE
from slmops.cluster.connection import Connection
from slmops.cluster.objects import DISTILLATION, FINE_TUNE, GVK, JOB, MANAGED_BY, MANAGER, NODE, POD, Manifest
from slmops.cluster.pulse import Pulse

WATCHED = (DISTILLATION, FINE_TUNE, JOB, NODE)
OURS = {"labels": {MANAGED_BY: MANAGER}}


class Watching:
    """kopf at work, and what it told."""

    def __init__(self, api: FakeApi, connection: Connection, namespaces: tuple[str, ...] = ()) -> None:
        self.api = api
        self.events: list[tuple[GVK, str | None, str]] = []
        self.bodies: list[Manifest] = []
        self.relisted: list[tuple[GVK, str | None]] = []
        self.namespaces = namespaces
        watches = [(gvk, ns if gvk.namespaced else None) for gvk in WATCHED for ns in namespaces or (None,)]
        watches = list(dict.fromkeys(watches))
        self.pulse = Pulse(watches, lambda gvk, namespace: self.relisted.append((gvk, namespace)), virtualnet.now)
        self.started = asyncio.Event()
        self.pulse.begin()
        self.task = asyncio.create_task(
            handlers.watch(connection, self.pulse, WATCHED, namespaces, self._take, self.started)
        )

    def _take(self, gvk: GVK, type: str | None, body: Manifest) -> None:
        self.events.append((gvk, type, body["metadata"]["name"]))
        self.bodies.append(body)

    def names(self, gvk: GVK = FINE_TUNE) -> list[str]:
        return [name for kind, _, name in self.events if kind is gvk]

    async def up(self, seconds: float = 5.0) -> None:
        await eventually(lambda: self.task.done() or not self.pulse.not_started(), seconds)
        self.alive()

    def alive(self) -> None:
        if self.task.done():
            raise AssertionError("kopf has ended") from self.task.exception()

    async def hears(self, name: str, within: float) -> float:
        """Seconds until kopf tells of this object; fails when that takes longer than allowed."""
        began = virtualnet.now()
        await eventually(lambda: self.task.done() or name in self.names(), within)
        self.alive()
        return virtualnet.now() - began

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


Scenario = Callable[[FakeApi, Watching], Awaitable[None]]


def play(scenario: Scenario, *, namespaces: tuple[str, ...] = (), begin: Callable[[FakeApi], None] | None = None,
         up: bool = True) -> None:  # fmt: skip
    """Run a scenario beside kopf. kopf must live to its end and must not have written anything."""

    async def main() -> None:
        async with FakeApi() as api:
            if begin:
                begin(api)
            watching = Watching(api, api.connection(), namespaces)
            if up:
                await watching.up()
            await scenario(api, watching)
            watching.alive()
            await watching.stop()
            assert api.writes(but=None) == []

    virtualnet.run(main())


def lists(api: FakeApi, gvk: GVK = FINE_TUNE) -> int:
    return sum(request.path == gvk.path() and "watch" not in request.query for request in api.requests)


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


def test_kopf_keeps_nothing_of_the_objects_it_saw() -> None:
    async def scenario(api: FakeApi, watching: Watching) -> None:
        before = len(asyncio.all_tasks())
        for number in range(50):
            api.put(FINE_TUNE, f"f{number}", metadata={"finalizers": ["theirs"]}, spec={"x": 1})
        await watching.hears("f49", 5)
        await asyncio.sleep(5)
        assert len(asyncio.all_tasks()) <= before + 2

    play(scenario)


def test_objects_marked_for_deletion_are_left_to_go() -> None:
    """kopf's own finalizer on an object of an earlier installation is not touched either."""

    async def scenario(api: FakeApi, watching: Watching) -> None:
        marks = {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["kopf.zalando.org/KopfFinalizerMarker"]}
        api.put(FINE_TUNE, "a", metadata=marks)
        await watching.hears("a", 5)
        await asyncio.sleep(60)

    play(scenario)


# --- what happens to the API server

Fault = Callable[[FakeApi], Any]


def every(answer: Any) -> Fault:
    def begin(api: FakeApi) -> None:
        api.cut()
        api.faults.append(answer)

    return begin


def crd_away(api: FakeApi) -> None:
    api.served.remove(FINE_TUNE)
    api.cut()


def html(request: web.Request) -> web.Response:
    return web.Response(text="<html>maintenance</html>", content_type="text/html")


async def half_a_list(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"kind": "FineTuneList", "items": [{"metadata":')
    abort(request)
    return response


OUTAGES: dict[str, Fault] = {
    "503": every(lambda request: status(503)),
    "500": every(lambda request: status(500)),
    "429": every(lambda request: status(429)),
    "429 with a time": every(lambda request: web.json_response({}, status=429, headers={"Retry-After": "2"})),
    "401": every(lambda request: status(401)),
    "403": every(lambda request: status(403)),
    "404": every(lambda request: status(404)),
    "400": every(lambda request: status(400)),
    "409": every(lambda request: status(409)),
    "410": every(lambda request: status(410)),
    "connection broken": every(broken),
    "no answer": every(hang),
    "a proxy's page": every(html),
    "half a list": every(half_a_list),
    "CRD away": crd_away,
}


@pytest.mark.parametrize("what", OUTAGES)
@pytest.mark.parametrize("minutes", [0.1, 10])
def test_the_watches_come_back_after_an_outage(what: str, minutes: float) -> None:
    async def scenario(api: FakeApi, watching: Watching) -> None:
        OUTAGES[what](api)
        await asyncio.sleep(60 * minutes)
        watching.alive()
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


@pytest.mark.parametrize("what", ["503", "401", "connection broken", "no answer", "CRD away", "410", "a proxy's page"])
def test_an_outage_is_no_storm_of_requests(what: str) -> None:
    async def scenario(api: FakeApi, watching: Watching) -> None:
        OUTAGES[what](api)
        before = len(api.requests)
        await asyncio.sleep(600)
        count = len(api.requests) - before
        # Per watch: one a second at first, then one in 15 to 30 seconds. A refused token is tried twice each time.
        assert count <= len(WATCHED) * 2 * (600 / 15 + 10)

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
        left = 3

        def expired(request: web.Request) -> web.Response | None:
            nonlocal left
            if "continue" not in request.query or left == 0:
                return None
            left -= 1
            return status(410, "Expired")

        api.faults.append(expired)

    async def scenario(api: FakeApi, watching: Watching) -> None:
        await watching.up(30)
        assert f"f{PAGE:04}" in watching.names()

    play(scenario, begin=begin, up=False)


# --- what happens to a stream


def test_a_frozen_stream_is_noticed_and_opened_again() -> None:
    """The connection stays, and nothing comes: kopf#585 and others. Bookmarks make silence a sign."""

    async def scenario(api: FakeApi, watching: Watching) -> None:
        api.frozen = True
        api.put(FINE_TUNE, "during")
        await asyncio.sleep(1)
        assert "during" not in watching.names()
        api.frozen = False  # for new watches; what the old ones should have said is lost
        await watching.hears("during", handlers.INACTIVITY_TIMEOUT + 1)

    play(scenario)


def test_a_quiet_stream_with_bookmarks_is_left_open() -> None:
    async def scenario(api: FakeApi, watching: Watching) -> None:
        asked = [request for request in api.requests if request.path == FINE_TUNE.path() and "watch" in request.query]
        assert len(asked) == 1
        assert asked[0].query["allowWatchBookmarks"] == "true"
        assert 270 <= int(asked[0].query["timeoutSeconds"]) <= 330
        before = len(api.requests)
        await asyncio.sleep(265)
        assert len(api.requests) == before
        await asyncio.sleep(70)
        assert len(api.requests) == before + len(WATCHED), "one new watch each, after the server's timeout"
        assert lists(api) == 1
        assert watching.relisted == []

    play(scenario)


def test_a_watch_goes_on_from_the_last_bookmark() -> None:
    """Otherwise a kind on which nothing happens would be listed again after each compaction."""

    async def scenario(api: FakeApi, watching: Watching) -> None:
        for number in range(20):
            api.put(NODE, "busy", spec={"x": number})
        await asyncio.sleep(61)
        api.oldest = api.version
        api.cut()
        await asyncio.sleep(5)
        assert lists(api) == 1

    play(scenario)


GARBAGE = {
    "half a line": [b'{"type":"ADDED","object":{"meta'],
    "half a line after a whole one": [line({"type": "BOOKMARK", "object": {"metadata": {}}}), b'{"type":"AD'],
    "empty lines": [b"\n\n\n"],
    "unknown type": [b'{"type":"SURPRISE","object":{"metadata":{"name":"x"}}}\n'],
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_in_a_stream_is_no_end(what: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(api: FakeApi, watching: Watching) -> None:
        api.send(FINE_TUNE, *GARBAGE[what])
        await asyncio.sleep(0.1)
        api.cut()
        await asyncio.sleep(5)
        watching.alive()
        api.put(FINE_TUNE, "after")
        await watching.hears("after", 5)

    play(scenario)


def test_a_large_event_in_small_pieces_is_one_event() -> None:
    async def scenario(api: FakeApi, watching: Watching) -> None:
        text = "ж" * 500_000 + '{"type":"ERROR"' + '\n{"type":"ERROR"'
        metadata = {"name": "big", "resourceVersion": "500"}
        whole = line({"type": "ADDED", "object": {"kind": "FineTune", "metadata": metadata, "spec": {"t": text}}})
        api.send(FINE_TUNE, *(whole[at : at + 70_001] for at in range(0, len(whole), 70_001)))
        await watching.hears("big", 5)
        assert watching.bodies[-1]["spec"]["t"] == text

    play(scenario)


# --- credentials and discovery


def test_a_token_that_is_renewed_late_is_waited_for() -> None:
    async def scenario(api: FakeApi, watching: Watching) -> None:
        api.token = "canary"
        api.cut()
        await asyncio.sleep(60)
        watching.alive()
        api.token = None
        api.put(FINE_TUNE, "after")
        await watching.hears("after", handlers.LONGEST_BACKOFF + 2)

    async def main() -> None:
        async with FakeApi() as api:

            async def authorization(renew: bool) -> str | None:
                return "Bearer stale"

            watching = Watching(api, Connection(api.url, False, authorization))
            await watching.up()
            await scenario(api, watching)
            await watching.stop()

    virtualnet.run(main())


def test_a_token_file_that_is_away_for_a_moment_is_no_end() -> None:
    async def main() -> None:
        away = False

        async def authorization(renew: bool) -> str | None:
            if away:
                raise FileNotFoundError("token")
            return None

        async with FakeApi() as api:
            watching = Watching(api, Connection(api.url, False, authorization))
            await watching.up()
            away = True
            api.cut()
            await asyncio.sleep(60)
            watching.alive()
            away = False
            api.put(FINE_TUNE, "after")
            await watching.hears("after", handlers.LONGEST_BACKOFF + 2)
            await watching.stop()

    virtualnet.run(main())


@pytest.mark.parametrize("what", ["503", "401", "404", "connection broken", "no answer", "a proxy's page"])
def test_an_api_server_that_comes_up_late_is_waited_for(what: str) -> None:
    async def scenario(api: FakeApi, watching: Watching) -> None:
        await asyncio.sleep(120)
        watching.alive()
        api.faults.clear()
        await watching.up(150)
        api.put(FINE_TUNE, "after")
        await watching.hears("after", 5)

    play(scenario, begin=OUTAGES[what], up=False)


def test_kinds_that_are_not_asked_for_are_not_watched() -> None:
    async def scenario(api: FakeApi, watching: Watching) -> None:
        await asyncio.sleep(60)
        assert api.streams(POD) == 0
        paths = {request.path for request in api.requests if "watch" in request.query}
        assert paths == {gvk.path() for gvk in WATCHED}

    play(scenario)


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
