"""An API server in a few hundred lines, over real HTTP: lists, watches, server-side apply, preconditions, and faults.

Real enough for the engine's tests (versions, paging, selectors, UIDs, conflicts, streams that break); not for what
admission, defaulting or garbage collection do. Those are tested on a real cluster.
"""

import asyncio
import contextlib
import copy
import itertools
import json
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

from aiohttp import web

from slmops.cluster.connection import Connection
from slmops.cluster.objects import CHILDREN, EVENT, GVK, KNOWN, LEASE, NODE, PARENTS, Manifest

Fault = Callable[[web.Request], web.StreamResponse | None]
BY_PATH = {(gvk.group, gvk.version, gvk.plural): gvk for gvk in KNOWN.values()}
SERVED = (*PARENTS, *CHILDREN, NODE, LEASE, EVENT)


def status(code: int, reason: str = "", message: str = "", **details: Any) -> web.Response:
    """An answer that is a Status object."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
    body |= {"reason": reason, "message": message or f"{reason or code}", "details": details}
    return web.json_response(body, status=code)


class FakeApi:
    """The server; an asynchronous context manager."""

    def __init__(self) -> None:
        self.objects: dict[GVK, dict[tuple[str, str], Manifest]] = defaultdict(dict)
        self.served = list(SERVED)
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.bodies: list[Any] = []
        self.faults: list[Fault] = []
        self.token: str | None = None
        self.allow_watches = True
        self._history: dict[GVK, list[tuple[int, str, Manifest]]] = defaultdict(list)
        self._streams: dict[GVK, list[asyncio.Queue[bytes | None]]] = defaultdict(list)
        self._version = itertools.count(100)
        self._uid = itertools.count(1)
        self.version = 99
        self.oldest = 0
        """Versions below this are compacted: watching from there is 410 Gone."""
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
        self.url = ""

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        await self._runner.cleanup()

    def connection(self) -> Connection:
        """How to reach it."""

        async def authorization(renew: bool) -> str | None:
            return f"Bearer {self.token}" if self.token else None

        return Connection(self.url, ssl.create_default_context(), authorization, namespace="slmops-system")

    # --- what happens in the cluster without us

    def put(self, gvk: GVK, name: str, namespace: str = "farm", quiet: bool = False, **fields: Any) -> Manifest:
        """Create or change an object; ``quiet`` keeps its event from the watches."""
        key = (namespace if gvk.namespaced else "", name)
        old = self.objects[gvk].get(key)
        fields = copy.deepcopy(fields)
        metadata = {**(old or {}).get("metadata", {}), **fields.pop("metadata", {}), "name": name}
        if gvk.namespaced:
            metadata["namespace"] = namespace
        metadata.setdefault("uid", f"uid-{next(self._uid)}")
        body = {**(old or {}), **fields, "apiVersion": gvk.api_version, "kind": gvk.kind, "metadata": metadata}
        return self._record(gvk, "MODIFIED" if old else "ADDED", key, body, quiet)

    def drop(self, gvk: GVK, name: str, namespace: str = "farm", quiet: bool = False) -> None:
        """Delete an object."""
        key = (namespace if gvk.namespaced else "", name)
        self._record(gvk, "DELETED", key, self.objects[gvk].pop(key), quiet)

    def _record(self, gvk: GVK, type: str, key: tuple[str, str], body: Manifest, quiet: bool = False) -> Manifest:
        self.version = next(self._version)
        body = copy.deepcopy(body)
        body["metadata"]["resourceVersion"] = str(self.version)
        if type != "DELETED":
            self.objects[gvk][key] = body
        if not quiet:
            self._history[gvk].append((self.version, type, body))
            self.send(gvk, {"type": type, "object": body})
        return copy.deepcopy(body)

    # --- what happens to the watches

    def send(self, gvk: GVK, event: Any) -> None:
        """Put an event on the open streams of a kind."""
        for stream in self._streams[gvk]:
            stream.put_nowait(json.dumps(event, separators=(",", ":")).encode() + b"\n")

    def send_error(self, gvk: GVK, code: int) -> None:
        """End the streams of a kind as the API server does when something is wrong."""
        error = {"kind": "Status", "apiVersion": "v1", "code": code, "reason": "x", "message": "x"}
        self.send(gvk, {"type": "ERROR", "object": error})

    def compact(self) -> None:
        """Forget all history and break all streams: whoever watches has to list again."""
        self.version = next(self._version)
        self.oldest = self.version
        self._history.clear()
        self.cut()

    def cut(self) -> None:
        """Break all streams."""
        for streams in self._streams.values():
            for stream in streams:
                stream.put_nowait(None)

    def streams(self, gvk: GVK) -> int:
        """How many watches of a kind are open."""
        return len(self._streams[gvk])

    # --- HTTP

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path, dict(request.query)))
        self.bodies.append(await request.json() if request.can_read_body else None)
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return status(401, "Unauthorized")
        for fault in list(self.faults):
            answer = fault(request)
            if answer is not None:
                return answer
        parts = request.path.strip("/").split("/")
        discovered = self._discover(parts)
        if discovered is not None:
            return web.json_response(discovered)
        group, version, rest = (parts[1], parts[2], parts[3:]) if parts[0] == "apis" else ("", parts[1], parts[2:])
        namespace = rest[1] if rest[0] == "namespaces" and len(rest) > 2 else None
        rest = rest[2:] if namespace else rest
        gvk = BY_PATH.get((group, version, rest[0]))
        if gvk is None or gvk not in self.served:
            return status(404, "NotFound", "the server could not find the requested resource")
        if len(rest) == 1:
            return await self._collection(request, gvk, namespace)
        return self._object(request, gvk, (namespace or "", rest[1]), rest[2] if len(rest) > 2 else "")

    def _discover(self, parts: list[str]) -> Any:
        groups: dict[str, set[str]] = defaultdict(set)
        for gvk in self.served:
            groups[gvk.group].add(gvk.version)
        groups["apiextensions.k8s.io"].add("v1")
        if parts == ["api"]:
            return {"versions": ["v1"]}
        if parts == ["apis"]:
            return {
                "groups": [
                    {"name": group, "versions": [{"version": v} for v in versions], "preferredVersion": {"version": v}}
                    for group, versions in groups.items()
                    for v in sorted(versions)[-1:]
                    if group
                ]
            }
        if len(parts) not in (2, 3) or parts[0] not in ("api", "apis"):
            return None
        group, version = (parts[1], parts[2]) if len(parts) == 3 else ("", parts[1])
        if (parts[0] == "apis") != bool(group) or version not in groups.get(group, ()):
            return None
        verbs = ["list", "watch", "get", "patch", "create", "update", "delete"]
        resources = [
            {"name": gvk.plural, "singularName": "", "kind": gvk.kind, "namespaced": gvk.namespaced, "verbs": verbs}
            for gvk in self.served
            if (gvk.group, gvk.version) == (group, version)
        ]
        if group == "apiextensions.k8s.io":
            name = "customresourcedefinitions"
            resources.append({"name": name, "singularName": "", "kind": "CRD", "namespaced": False, "verbs": verbs})
        elif not group:
            resources.append(
                {"name": "namespaces", "singularName": "", "kind": "Namespace", "namespaced": False, "verbs": verbs}
            )
        return {"kind": "APIResourceList", "resources": resources}

    async def _collection(self, request: web.Request, gvk: GVK, namespace: str | None) -> web.StreamResponse:
        if request.method == "POST":
            body = await request.json()
            key = (namespace or "", body["metadata"]["name"])
            if key in self.objects[gvk]:
                return status(409, "AlreadyExists", f"{gvk.plural} {key[1]} already exists")
            body["metadata"].setdefault("uid", f"uid-{next(self._uid)}")
            return web.json_response(self._record(gvk, "ADDED", key, body), status=201)
        selector = dict(part.split("=") for part in request.query.get("labelSelector", "").split(",") if part)

        def selected(body: Manifest) -> bool:
            labels = body["metadata"].get("labels") or {}
            mine = namespace is None or body["metadata"].get("namespace") == namespace
            return mine and all(labels.get(key) == value for key, value in selector.items())

        if request.query.get("watch"):
            return await self._watch(request, gvk, selected)
        names = [name for name, body in self.objects[gvk].items() if selected(body)]
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
            return web.Response(body=json.dumps({"type": "ERROR", "object": error}, separators=(",", ":")) + "\n")
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        for version, type, body in self._history[gvk]:
            if version > since and selected(body):
                line = json.dumps({"type": type, "object": body}, separators=(",", ":"))
                queue.put_nowait(line.encode() + b"\n")
        self._streams[gvk].append(queue)
        response = web.StreamResponse()
        try:
            await response.prepare(request)
            async for line in self._lines(queue):
                await response.write(line)
        finally:
            self._streams[gvk].remove(queue)
        return response

    @staticmethod
    async def _lines(queue: asyncio.Queue[bytes | None]) -> AsyncIterator[bytes]:
        while (line := await queue.get()) is not None:
            yield line

    def _object(self, request: web.Request, gvk: GVK, key: tuple[str, str], subresource: str) -> web.Response:
        live = self.objects[gvk].get(key)
        body = self.bodies[-1] or {}
        applies = request.content_type == "application/apply-patch+yaml"
        if live is None and not (request.method == "PATCH" and applies and not subresource):
            return status(404, "NotFound", f'{gvk.plural} "{key[1]}" not found')
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
            return web.json_response(self._record(gvk, "MODIFIED", key, body))
        if live is None:
            body["metadata"]["uid"] = f"uid-{next(self._uid)}"
            return web.json_response(self._record(gvk, "ADDED", key, body), status=201)
        merged = _merge(copy.deepcopy(live), {"status": body["status"]} if subresource else body)
        if merged == live:
            return web.json_response(live)
        return web.json_response(self._record(gvk, "MODIFIED", key, merged))


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict) or not isinstance(target, dict):
        return patch
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif key == "conditions" and isinstance(target.get(key), list):
            rest = [item for item in target[key] if item["type"] not in {new["type"] for new in value}]
            target[key] = rest + value
        else:
            target[key] = _merge(target.get(key), value)
    return target


async def eventually(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until something holds; fails with a deadline."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    assert condition()
