"""The bench's own requests to the API server: many at once, under a name of their own in the audit log."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Iterable
from pathlib import Path
from typing import Any, Self

import aiohttp

from slmops.cluster.connection import from_kubeconfig

AGENT = "slmops-bench"
MERGE = "application/merge-patch+json"
AT_ONCE = 24
"""Requests in flight: enough to keep two cores of API server busy."""
Manifest = dict[str, Any]


class Refused(RuntimeError):  # noqa: N818  (the server's answer, not a defect)
    """The API server says no; the text is its own."""


class Api:
    """An API server. An asynchronous context manager."""

    def __init__(self, kubeconfig: Path) -> None:
        self._connection = from_kubeconfig([kubeconfig])

    async def __aenter__(self) -> Self:
        self._session = self._connection.session()
        self._session.headers["User-Agent"] = AGENT
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def get(self, path: str) -> Manifest:
        """Read."""
        return await self._request("GET", path)

    async def create(self, path: str, body: Manifest) -> Manifest:
        """Create an object in a collection."""
        return await self._request("POST", path, body)

    async def merge(self, path: str, body: Manifest) -> Manifest:
        """Merge into an object or its status."""
        return await self._request("PATCH", path, body, MERGE)

    async def delete(self, path: str) -> Manifest:
        """Delete an object, and what it owns."""
        return await self._request("DELETE", path, {"propagationPolicy": "Background"})

    async def gone(self, path: str) -> bool:
        """Whether there is no such object."""
        try:
            await self.get(path)
        except Refused as error:
            return str(error).startswith("404")
        return False

    async def watch(self, path: str, version: str) -> AsyncIterator[tuple[str, Manifest]]:
        """Events after a version, for ever: (type, object), bookmarks left out."""
        while True:
            query = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "1", "timeoutSeconds": "3000"}
            async with self._session.get(
                self._connection.server + path, params=query, timeout=aiohttp.ClientTimeout(total=None), read_bufsize=2**20
            ) as answer:  # fmt: skip
                answer.raise_for_status()
                async for line in answer.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise Refused(f"the watch of {path} ended: {event['object'].get('message')}")
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        yield event["type"], event["object"]

    async def _request(
        self, method: str, path: str, body: Manifest | None = None, content: str = "application/json"
    ) -> Manifest:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": content}
        url = self._connection.server + path
        async with self._session.request(method, url, data=data, headers=headers) as answer:
            said = json.loads(await answer.read())
            if answer.status >= 400:
                raise Refused(f"{answer.status} {method} {path}: {said.get('message')}")
            return dict(said)


async def all_of(work: Iterable[Coroutine[Any, Any, Any]], at_once: int = AT_ONCE) -> None:
    """Do all of it, so many at once, in order."""
    todo = iter(work)

    async def worker() -> None:
        for item in todo:
            await item

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())
