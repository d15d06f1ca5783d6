"""The real kopf at work against a scripted API server, and the ways in which that can be away."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from slmops import handlers
from slmops.cluster.connection import Connection
from slmops.cluster.objects import FINE_TUNE, GVK, JOB, MANAGED_BY, MANAGER, NODE, Manifest
from slmops.cluster.pulse import Pulse
from tests.unit import virtualnet
from tests.unit.fakeapi import FakeApi, abort, broken, eventually, hang, status

WATCHED = (FINE_TUNE, JOB, NODE)
OURS = {"labels": {MANAGED_BY: MANAGER}}


class Watching:
    """kopf at work, and what it told."""

    def __init__(self, api: FakeApi, connection: Connection, namespaces: tuple[str, ...] = ()) -> None:
        self.api = api
        self.events: list[tuple[GVK, str | None, str]] = []
        self.bodies: list[Manifest] = []
        self.fails_at = ""
        """Name of an object whose events cannot be taken in."""
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
        if body["metadata"]["name"] == self.fails_at:
            raise KeyError("odd")
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
            try:
                if up:
                    await watching.up()
                await scenario(api, watching)
                watching.alive()
            finally:
                await watching.stop()
            assert api.writes(but=None) == []

    virtualnet.run(main())


def lists(api: FakeApi, gvk: GVK = FINE_TUNE) -> int:
    return sum(request.path == gvk.path() and "watch" not in request.query for request in api.requests)


# --- outages

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


async def half_an_answer(request: web.Request) -> web.StreamResponse:
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
    "half an answer": every(half_an_answer),
    "CRD away": crd_away,
}
