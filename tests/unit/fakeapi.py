"""An API server in a few hundred lines, over real HTTP: lists, watches, server-side apply, preconditions, and faults.

Real enough for the engine's tests (versions, paging, selectors, UIDs, conflicts, streams that break); not for what
admission, defaulting or garbage collection do. Those are tested on a real cluster.
"""

import asyncio
import contextlib
import inspect
import itertools
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
from aiohttp import web

from slmops.cluster.connection import Connection
from slmops.cluster.objects import CHILDREN, EVENT, GVK, KNOWN, LEASE, NODE, PARENTS, Manifest
from tests.unit.copies import fresh
from tests.unit.fakeobjects import Objects, Stream, line
from tests.unit.serverside import applied, discovery, merged

Answer = web.StreamResponse | None
Fault = Callable[[web.Request], Answer | Awaitable[Answer]]
"""Looks at a request before the server does; answers it, hangs, or returns None to let it through."""
BY_PATH = {(gvk.group, gvk.version, gvk.plural): gvk for gvk in KNOWN.values()}
SERVED = (*PARENTS, *CHILDREN, NODE, LEASE, EVENT)
APPLY = "application/apply-patch+yaml"
MERGES = ("application/merge-patch+json", "application/strategic-merge-patch+json")
WRITES = ("POST", "PUT", "PATCH", "DELETE")
BOOKMARK_SECONDS = 60.0


def status(code: int, reason: str = "", message: str = "", **details: Any) -> web.Response:
    """An answer that is a Status object."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
    body |= {"reason": reason, "message": message or f"{reason or code}", "details": details}
    return web.json_response(body, status=code)


@dataclass(frozen=True)
class Request:
    """A request that was made."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


class FakeApi(Objects):
    """The server; an asynchronous context manager. Leaving it fails when the server itself made a mistake."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self.served = list(SERVED)
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.cut_after: Callable[[web.Request], bool] = lambda request: False
        """Requests that are carried out, but the connection breaks before the answer."""
        self.token: str | None = None
        self._mistakes: list[Exception] = []
        self._tls = tls
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05, handler_cancellation=True)
        self.url = ""

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, error: object, *_: object) -> None:
        self.cut()
        await self._runner.cleanup()
        if self._mistakes and error is None:
            raise ExceptionGroup("the scripted API server failed", self._mistakes)

    def connection(self) -> Connection:
        """How to reach it, with the token that it wants."""

        async def authorization(renew: bool) -> str | None:
            return f"Bearer {self.token}" if self.token else None

        return Connection(self.url, False, authorization, namespace="slmops-system")

    # --- what happens to requests

    def refuse(self, code: int, *, method: str = "", path: str = "", times: int = 10**9, **headers: str) -> Fault:
        """Answer requests of this method, with this in their path, with an error, so many times."""
        left = itertools.count(times, -1)

        def fault(request: web.Request) -> Answer:
            if method not in ("", request.method) or path not in request.path or next(left) <= 0:
                return None
            answer = status(code)
            answer.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
            return answer

        self.faults.append(fault)
        return fault

    def writes(self, *, but: GVK | None = LEASE) -> list[Request]:
        """The requests that write, leader election apart."""
        return [r for r in self.requests if r.method in WRITES and not (but and f"/{but.plural}" in r.path)]

    # --- HTTP

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        self.requests.append(Request(request.method, request.path, dict(request.query), dict(request.headers), body))
        try:
            answer = await self._faulty(request) or await self._route(request, fresh(body))
        except Exception as error:
            self._mistakes.append(error)
            raise
        if self.cut_after(request):
            abort(request)
        return answer

    async def _faulty(self, request: web.Request) -> Answer:
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return status(401, "Unauthorized")
        for fault in list(self.faults):
            answer = fault(request)
            if inspect.isawaitable(answer):
                answer = await answer
            if answer is not None:
                return answer
        return None

    async def _route(self, request: web.Request, body: Any) -> web.StreamResponse:
        parts = request.path.strip("/").split("/")
        if parts[0] not in ("api", "apis"):
            return status(404, "NotFound")
        discovered = discovery(self.served, parts)
        if discovered is not None:
            return web.json_response(discovered)
        group, version, rest = (parts[1], parts[2], parts[3:]) if parts[0] == "apis" else ("", parts[1], parts[2:])
        namespace = rest[1] if rest and rest[0] == "namespaces" and len(rest) > 2 else None
        rest = rest[2:] if namespace else rest
        gvk = BY_PATH.get((group, version, rest[0])) if rest else None
        if gvk is None or gvk not in self.served:
            return status(404, "NotFound", "the server could not find the requested resource")
        if len(rest) == 1:
            return await self._collection(request, gvk, namespace, body)
        return self._object(request, gvk, (namespace or "", rest[1]), rest[2] if len(rest) > 2 else "", body or {})

    async def _collection(self, request: web.Request, gvk: GVK, namespace: str | None, body: Any) -> web.StreamResponse:
        if request.method == "POST":
            key = (namespace or "", body["metadata"]["name"])
            if key in self.objects[gvk]:
                return status(409, "AlreadyExists", f"{gvk.plural} {key[1]} already exists")
            return web.json_response(self.record(gvk, "ADDED", key, body), status=201)
        selector = dict(part.split("=") for part in request.query.get("labelSelector", "").split(",") if part)

        def selected(body: Manifest) -> bool:
            labels = body["metadata"].get("labels") or {}
            mine = namespace is None or body["metadata"].get("namespace") == namespace
            return mine and all(labels.get(key) == value for key, value in selector.items())

        if request.query.get("watch"):
            return await self._watch(request, gvk, selected)
        names = sorted(name for name, body in self.objects[gvk].items() if selected(body))
        limit, start = int(request.query.get("limit") or 10**9), int(request.query.get("continue") or 0)
        items = [dict(self.objects[gvk][name]) for name in names[start : start + limit]]
        for item in items:  # the items of a list name neither
            item.pop("apiVersion", None), item.pop("kind", None)
        metadata = {"resourceVersion": str(self.version)}
        if start + limit < len(names):
            metadata["continue"] = str(start + limit)
        kind = {"apiVersion": gvk.api_version, "kind": f"{gvk.kind}List"}
        return web.json_response({**kind, "metadata": metadata, "items": items})

    async def _watch(self, request: web.Request, gvk: GVK, selected: Callable[[Manifest], bool]) -> web.StreamResponse:
        since = int(request.query.get("resourceVersion") or 0)
        if since < self.oldest:
            error = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            return web.Response(body=line({"type": "ERROR", "object": error}), content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        gone = contextlib.suppress(TimeoutError, aiohttp.ClientConnectionResetError)
        with gone, self.watched(gvk, selected, since) as stream:
            await response.prepare(request)
            async with asyncio.timeout(float(request.query.get("timeoutSeconds") or 300)):
                await self._stream(response, gvk, stream)
        return response

    async def _stream(self, response: web.StreamResponse, gvk: GVK, stream: Stream) -> None:
        while True:
            try:
                async with asyncio.timeout(BOOKMARK_SECONDS):
                    part = await stream.lines.get()
            except TimeoutError:
                metadata = {"resourceVersion": str(self.version)}
                bookmark = {"apiVersion": gvk.api_version, "kind": gvk.kind, "metadata": metadata}
                part = line({"type": "BOOKMARK", "object": bookmark})
            if part is None:
                return
            if not stream.frozen:
                await response.write(part)

    def _object(
        self, request: web.Request, gvk: GVK, key: tuple[str, str], subresource: str, body: Manifest
    ) -> web.Response:
        live = self.objects[gvk].get(key)
        applies = request.content_type == APPLY
        if live is None and not (request.method == "PATCH" and applies and not subresource):
            return status(404, "NotFound", f'{gvk.plural} "{key[1]}" not found')
        if isinstance(body, list):
            return self._json_patch(gvk, key, body)
        uid = body.get("metadata", {}).get("uid") or body.get("preconditions", {}).get("uid")
        if uid and (live is None or live["metadata"]["uid"] != uid):
            return status(409, "Conflict", "Precondition failed: UID")
        if request.method == "GET":
            return web.json_response(live)
        if request.method == "DELETE":
            self.drop(gvk, key[1], key[0])
            return web.json_response({"kind": "Status", "status": "Success"})
        if request.method == "PUT":
            assert live is not None
            if body["metadata"].get("resourceVersion") != live["metadata"]["resourceVersion"]:
                return status(409, "Conflict", "the object has been modified")
            body["metadata"]["uid"] = live["metadata"]["uid"]
            return web.json_response(self.record(gvk, "MODIFIED", key, body))
        assert request.method == "PATCH", request.method
        if not applies and request.content_type not in MERGES:
            return status(415, "UnsupportedMediaType")
        part = {"status": body.get("status")} if subresource else {k: v for k, v in body.items() if k != "status"}
        if not applies:
            assert live is not None
            version = body.get("metadata", {}).get("resourceVersion")
            if version not in (None, live["metadata"]["resourceVersion"]):
                return status(409, "Conflict", "the object has been modified")
            wanted = merged(fresh(live), part)
        else:
            manager = request.query.get("fieldManager")
            if not manager or (body.get("apiVersion"), body.get("kind")) != (gvk.api_version, gvk.kind):
                return status(400, "BadRequest", "apply needs a fieldManager, apiVersion and kind")
            known = (gvk, key, manager, subresource)
            wanted = applied(live or {}, part, self.applied.get(known, {}))
            self.applied[known] = part
        if wanted == live:
            return web.json_response(live)
        if live is None:
            return web.json_response(self.record(gvk, "ADDED", key, wanted), status=201)
        return web.json_response(self.record(gvk, "MODIFIED", key, wanted))

    def _json_patch(self, gvk: GVK, key: tuple[str, str], operations: list[Any]) -> web.Response:
        """As far as it is used: a test of the UID, then another status."""
        changed = fresh(self.objects[gvk][key])
        for operation in operations:
            kind, path, value = operation["op"], operation["path"], operation["value"]
            if (kind, path) == ("test", "/metadata/uid"):
                if changed["metadata"]["uid"] != value:
                    return status(422, "Invalid", "the server rejected our request due to an error in our request")
            else:
                assert (kind, path) == ("add", "/status"), operation
                changed["status"] = value
        return web.json_response(self.record(gvk, "MODIFIED", key, changed))


def abort(request: web.Request) -> None:
    """Break the connection."""
    if request.transport is not None:
        request.transport.abort()


async def hang(request: web.Request) -> Answer:
    """A fault: the server takes the request and never answers."""
    await asyncio.sleep(10**6)
    return None


def broken(request: web.Request) -> Answer:
    """A fault: the connection breaks before anything is done."""
    abort(request)
    return web.Response()


async def eventually(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until something holds; fails with a deadline."""
    pause = 0.005
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(pause)
                pause = min(2 * pause, 0.5)
    assert condition()
