"""The operator's HTTP port: ``/healthz`` (restart me?), ``/readyz`` (can I take over?) and ``/metrics``.

Liveness fails only for what a restart mends: a watch task that ended or hangs, a worker that hangs. An API server
that is away is nothing of that kind, or else an outage would restart every operator on top of it.
"""

from collections.abc import Callable, Iterable

from aiohttp import web

Problems = Callable[[], Iterable[str]]
"""What is wrong right now; nothing means healthy."""


class HealthServer:
    """Serves the three paths; an asynchronous context manager."""

    def __init__(self, port: int, *, live: Problems, ready: Problems, metrics: Callable[[], bytes]) -> None:
        self._port = port
        self._live, self._ready, self._metrics = live, ready, metrics
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._scrape)
        self._runner = web.AppRunner(app, access_log=None, keepalive_timeout=15)

    async def __aenter__(self) -> "HealthServer":
        await self._runner.setup()
        await web.TCPSite(self._runner, port=self._port).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _healthz(self, request: web.Request) -> web.Response:
        return _answer(self._live())

    async def _readyz(self, request: web.Request) -> web.Response:
        return _answer(self._ready())

    async def _scrape(self, request: web.Request) -> web.Response:
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=self._metrics(), headers=headers)


def _answer(problems: Iterable[str]) -> web.Response:
    found = list(problems)
    return web.Response(status=503, text="\n".join(found) + "\n") if found else web.Response(text="ok\n")
