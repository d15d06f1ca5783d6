"""The operator's requests to the API server, each with a timeout and with errors that a reconcile can tell apart.

Children are written by server-side apply: what we do not set stays as others set it, and a pass that is repeated changes
nothing. Statuses are replaced: they are ours.
Nothing here retries; the loop does, with back-off per resource.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Self
from urllib.parse import quote, urlencode

import aiohttp

from slmops.cluster import pods
from slmops.cluster.connection import Connection
from slmops.cluster.errors import Conflict, Invalid, NotFound, NotLeading, NotOurs, Unavailable, from_status
from slmops.cluster.events import EventRecorder, EventType
from slmops.cluster.objects import (
    GVK,
    MANAGER,
    POD,
    Manifest,
    Manifests,
    gvk_of,
    without_empty,
)
from slmops.state import owners

TIMEOUT = 10.0
WRITE_TIMEOUT = 36.0
"""The API server waits up to 30 s for an admission webhook, as its timeoutSeconds says, and then names the one that hangs;
it gives up every write after 34 s. So its answer, which is about one object, comes before our own, which is about all."""
LIST_TIMEOUT = 60.0
PAGE = 50
"""Objects in one page of a list. Parsed they take some 50 KB each, and memory once taken is seldom given back."""
STATUS_MANAGER = f"{MANAGER}-status"
PROGRESS_PORT = 9090
PROGRESS_LIMIT = 16 * 1024
MONITORING_LIMIT = 32 * 1024
APPLY = "application/apply-patch+yaml"
STRATEGIC_MERGE = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
JSON = "application/json"
Observe = Callable[[str, str, int], None]
"""Told of every request: verb, resource, HTTP status (0 for none)."""


class Cluster:
    """One API server. An asynchronous context manager: leaving it closes the connections."""

    def __init__(
        self,
        connection: Connection,
        *,
        may_write: Callable[[], bool] = lambda: True,
        observe: Observe = lambda verb, resource, code: None,
        instance: str = "slmops",
    ) -> None:
        """``may_write`` is asked before every write of a reconcile: a process that lost the Lease must not act."""
        self._connection = connection
        self._may_write = may_write
        self._observe = observe
        self._events = EventRecorder(self._create_event, instance)
        self._session: aiohttp.ClientSession
        self._pods: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._session = self._connection.session()
        self._pods = pods.session()
        self._events.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._events.stop()
        await self._session.close()
        await self._pods.close()

    # --- reading

    async def get(self, gvk: GVK, namespace: str | None, name: str) -> Manifest | None:
        """The live object, or None."""
        try:
            return await self._request("GET", "get", gvk, gvk.path(namespace, name))
        except NotFound:
            return None

    async def list(self, gvk: GVK, namespace: str | None = None, labels: dict[str, str] | None = None) -> Manifests:
        """All live objects, of one namespace or of all."""
        return [body async for page, _ in self.pages(gvk, namespace, labels) for body in page]

    async def pages(
        self, gvk: GVK, namespace: str | None = None, labels: dict[str, str] | None = None
    ) -> AsyncIterator[tuple[Manifests, str]]:
        """The live objects page by page, each with the version of the whole list. Raises Expired when it took long."""
        query = {"limit": str(PAGE)}
        if labels:
            query["labelSelector"] = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
        while True:
            answer = await self._request("GET", "list", gvk, gvk.path(namespace), query=query, timeout=LIST_TIMEOUT)
            metadata, items = answer.get("metadata", {}), answer.get("items") or []
            token = metadata.get("continue")
            del answer  # one page in memory, not two
            for item in items:  # the items of a list name neither
                item.setdefault("apiVersion", gvk.api_version)
                item.setdefault("kind", gvk.kind)
            yield items, metadata.get("resourceVersion", "")
            if not token:
                return
            query["continue"] = token

    # --- writing

    async def apply(self, manifest: Manifest, known: Manifest | None = None) -> Manifest:
        """Create or change a child. A stranger's object of that name is left alone and raises NotOurs.

        ``known`` is the child as the cache has it, which saves a read; it must be the parent's by UID.
        """
        gvk, metadata = gvk_of(manifest), manifest["metadata"]
        namespace, name = metadata.get("namespace"), metadata["name"]
        mine = owners(manifest)
        if not mine:
            raise ValueError(f"{gvk.kind} {name} has no owner reference with a UID")
        live = known if known is not None else await self.get(gvk, namespace, name)
        if live is not None:
            if not mine & owners(live):
                raise NotOurs(f"{gvk.kind} {name} exists and belongs to somebody else; delete or rename it")
            # With the UID the API server refuses when that very object has been replaced meanwhile.
            manifest = {**manifest, "metadata": {**metadata, "uid": live["metadata"]["uid"]}}
        self._check_leading()
        query, path = {"fieldManager": MANAGER, "force": "true"}, gvk.path(namespace, name)
        return await self._request("PATCH", "apply", gvk, path, query=query, body=manifest, content=APPLY)

    async def make(self, manifest: Manifest) -> tuple[Manifest, bool]:
        """Create a child that is never changed afterwards, in one request instead of apply's two.

        Where there is something of that name, apply decides. The second value tells whether it was created.
        """
        gvk, metadata = gvk_of(manifest), manifest["metadata"]
        self._check_leading()
        path, query = gvk.path(metadata.get("namespace")), {"fieldManager": MANAGER}
        try:
            return await self._request("POST", "create", gvk, path, query=query, body=manifest), True
        except Conflict:
            return await self.apply(manifest), False

    async def set_status(self, manifest: Manifest) -> Manifest:
        """Make this the status of exactly this object, by its UID; NotFound, too, where another one has taken its name.

        It is replaced as a whole: a status is ours alone, others act on it, and what somebody else wrote into it goes. By a
        JSON patch (RFC 6902), which costs the API server less than to apply, and nothing here asks whose a field was.
        """
        gvk, metadata = gvk_of(manifest), manifest["metadata"]
        path = gvk.path(metadata["namespace"], metadata["name"], "status")
        body: Manifests = [
            {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]},
            {"op": "add", "path": "/status", "value": without_empty(manifest["status"])},
        ]
        self._check_leading()
        query = {"fieldManager": STATUS_MANAGER}
        try:
            return await self._request(
                "PATCH", "patch", gvk, path, query=query, body=body, content=JSON_PATCH, subresource="status"
            )
        except Invalid as error:
            if error.causes:
                raise
            # The test failed: a status that breaks the schema comes with its causes.
            raise NotFound(f"{gvk.kind} {metadata['name']} is another object by now", status=error.status) from None

    async def delete(self, gvk: GVK, namespace: str | None, name: str, uid: str) -> None:
        """Delete exactly the object with this UID. One that is gone, or replaced by another, is fine."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        body = {**options, "preconditions": {"uid": uid}}
        self._check_leading()
        try:
            await self._request("DELETE", "delete", gvk, gvk.path(namespace, name), body=body)
        except (NotFound, Conflict):
            return

    async def patch_pod_condition(self, namespace: str, name: str, uid: str, condition: Manifest) -> None:
        """Set one condition of a pod, for a readiness gate."""
        body = {"metadata": {"uid": uid}, "status": {"conditions": [condition]}}
        self._check_leading()
        path = POD.path(namespace, name, "status")
        await self._request("PATCH", "patch", POD, path, body=body, content=STRATEGIC_MERGE, subresource="status")

    async def annotate(self, live: Manifest, annotations: Mapping[str, str]) -> Manifest:
        """Add annotations to exactly this object, and touch nothing else of it."""
        return await self._annotate(live, {"uid": live["metadata"]["uid"], "annotations": dict(annotations)})

    async def annotate_unchanged(self, live: Manifest, annotations: Mapping[str, str], manager: str) -> Manifest:
        """The same of an object that is not ours, under a name of its own; Conflict where somebody has written it since it
        was read: what was decided on it may not hold any more."""
        kept = {key: live["metadata"][key] for key in ("uid", "resourceVersion")}
        return await self._annotate(live, {**kept, "annotations": dict(annotations)}, manager)

    async def _annotate(self, live: Manifest, metadata: Manifest, manager: str | None = None) -> Manifest:
        gvk, meta = gvk_of(live), live["metadata"]
        self._check_leading()
        path, query = gvk.path(meta["namespace"], meta["name"]), {"fieldManager": manager} if manager else None
        return await self._request("PATCH", "patch", gvk, path, query=query, body={"metadata": metadata}, content=MERGE)

    async def create(self, manifest: Manifest) -> Manifest:
        """Create an object; Conflict when it exists. Not for children: those are applied."""
        gvk = gvk_of(manifest)
        path = gvk.path(manifest["metadata"].get("namespace"))
        return await self._request("POST", "create", gvk, path, body=manifest)

    async def update(self, manifest: Manifest) -> Manifest:
        """Replace an object; Conflict unless ``metadata.resourceVersion`` is current. Not for children."""
        gvk, metadata = gvk_of(manifest), manifest["metadata"]
        path = gvk.path(metadata.get("namespace"), metadata["name"])
        return await self._request("PUT", "update", gvk, path, body=manifest)

    async def served(self, gvk: GVK) -> bool:
        """Whether the API server knows the kind."""
        path = f"/apis/{gvk.api_version}" if gvk.group else f"/api/{gvk.version}"
        try:
            answer = await self._request("GET", "discover", gvk, path)
        except NotFound:
            return False
        return any(item.get("name") == gvk.plural for item in answer.get("resources") or ())

    async def record_event(
        self, regarding: Manifest, type: EventType, reason: str, message: str, since: str = ""
    ) -> None:
        """Tell users of something that came about then, once. Never blocks and never fails."""
        self._events.record(regarding, type, reason, message, since)

    @property
    def events_dropped(self) -> int:
        """Events that were given up."""
        return self._events.dropped

    async def _create_event(self, event: Manifest) -> None:
        self._check_leading()
        await self.create(event)

    def _check_leading(self) -> None:
        if not self._may_write():
            raise NotLeading("this process does not hold the Lease (any more)")

    # --- pods

    async def progress(self, pod: Manifest) -> Manifest | None:
        """What a pod says on ``/progress``: a JSON object of bounded size, or None. Its content is untrusted."""
        return await pods.ask(self._pods, pod, PROGRESS_PORT, "/progress", PROGRESS_LIMIT)

    async def monitoring(self, pod: Manifest, port: int, seconds: int) -> Manifest | None:
        """What a server says of the last so many seconds, in the same way."""
        return await pods.ask(self._pods, pod, port, f"/monitoring?seconds={seconds}", MONITORING_LIMIT)

    # --- one request

    async def _request(
        self,
        method: str,
        verb: str,
        gvk: GVK,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: Manifest | Manifests | None = None,
        content: str = JSON,
        timeout: float | None = None,  # noqa: ASYNC109  (aiohttp's own, over the whole request)
        subresource: str = "",
    ) -> Manifest:
        url = self._connection.server + quote(path) + (f"?{urlencode(query)}" if query else "")
        resource = f"{gvk.plural}/{subresource}" if subresource else gvk.plural
        code, timeout = 0, timeout or (TIMEOUT if method == "GET" else WRITE_TIMEOUT)
        try:
            async with self._session.request(
                method,
                url,
                data=json.dumps(body, separators=(",", ":")).encode() if body is not None else None,
                headers={"Content-Type": content, "Accept": JSON},
                timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=5),
                allow_redirects=False,  # an aggregated API server could send us anywhere (CVE-2022-3172)
            ) as response:
                raw = await response.read()
                code = response.status
                answer = _parse(raw, code)
                if code >= 300:
                    raise from_status(code, answer, response.headers.get("Retry-After"), f"{verb} {resource}")
                return answer
        except TimeoutError:
            raise Unavailable(f"{verb} {resource}: no answer within {timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"{verb} {resource}: {type(error).__name__}: {error}") from None
        finally:
            self._observe(verb, resource, code)


def _parse(raw: bytes, code: int) -> Manifest:
    try:
        answer = json.loads(raw)
    except ValueError:
        answer = None
    if isinstance(answer, dict):
        return answer
    if code < 300:
        raise Unavailable("the API server's answer is no JSON object", status=code)
    return {"message": raw[:256].decode(errors="replace").strip()}
