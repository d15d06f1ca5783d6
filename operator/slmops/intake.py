"""From watch events to the work queue: keep the cache, wake the resources that an event matters to.

An event carries no work and no order that matters; it only says where to look. What it wakes:

    a resource of ours      itself, and the resources that refer to it
    a child                 the parent in its labels; a child that changed its labels, the former parent too. Not a pod that
                            ended well and whose Job has yet to say so
    a node                  the resources that read nodes, when something changed that they can see
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Sequence

from slmops.api.base import API_VERSION, GROUP
from slmops.cluster.cache import Cache, Relist
from slmops.cluster.client import Cluster
from slmops.cluster.errors import ClusterError
from slmops.cluster.objects import (
    CHILDREN,
    EDGE_DEPLOYMENT,
    GVK,
    JOB,
    KNOWN,
    MANAGED_BY,
    MANAGER,
    NODE,
    PARENTS,
    POD,
    Key,
    Manifest,
    parent_key,
)
from slmops.state import JOB_NAME_LABEL, ended, owners

WATCHED = (*PARENTS, *CHILDREN, NODE)
SELECTOR = {MANAGED_BY: MANAGER}
"""Labels of the children: other people's Jobs and Pods never enter this process."""
NODE_DELAY = 0.5
"""Nodes change in crowds (a switch fails, a pool is labelled): one pass for all of it."""
CHILD_DELAY = 0.25
"""A Job that starts or ends changes itself and its pod several times in a moment: one pass for all of it."""
RELIST_DELAY = 2.0
Wake = Callable[[Key, float], None]
log = logging.getLogger(__name__)


def asked(cache: Cache, key: Key) -> object:
    """What people ask of a resource: its spec, by its generation, and our annotations; None when it is not there."""
    body = cache.get(KNOWN[API_VERSION, key.kind], key.namespace, key.name)
    if body is None:
        return None
    metadata = body["metadata"]
    said = {key: text for key, text in (metadata.get("annotations") or {}).items() if key.startswith(f"{GROUP}/")}
    return metadata.get("uid"), metadata.get("generation"), said, metadata.get("deletionTimestamp")


class Intake:
    """Takes events in."""

    def __init__(
        self, cache: Cache, wake: Wake, *, told: Callable[[str, str], None] = lambda kind, effect: None
    ) -> None:
        """``told`` counts events by kind and by whether they mattered."""
        self._cache, self._wake, self._told = cache, wake, told

    def event(self, gvk: GVK, type: str | None, body: Manifest) -> None:
        """One watch event; the type is None where it comes from a list."""
        metadata = body["metadata"]
        former = self._cache.parent(gvk, metadata.get("namespace"), metadata["name"])
        changed = self._cache.remove(gvk, body) if type == "DELETED" else self._cache.put(gvk, body)
        self._told(gvk.kind, "changed" if changed else "unchanged")
        if changed:
            self.changed(gvk, body, former)

    def changed(self, gvk: GVK, body: Manifest, former: Key | None = None) -> None:
        """Wake what a change of this object matters to."""
        metadata = body["metadata"]
        if gvk is NODE:
            for namespace, name in self._cache.names(EDGE_DEPLOYMENT):
                self._wake(Key(EDGE_DEPLOYMENT.kind, namespace, name), NODE_DELAY)
        elif gvk in PARENTS:
            key = Key(gvk.kind, metadata["namespace"], metadata["name"])
            for woken in (key, *self._cache.referrers(key)):
                self._wake(woken, 0.0)
        elif gvk is not POD or not self._job_will_tell(body):
            for parent in {parent_key(body), former}:
                if parent is not None and parent.kind in _PARENT_KINDS:
                    self._wake(parent, CHILD_DELAY)

    def _job_will_tell(self, pod: Manifest) -> bool:
        """Whether there is nothing to do yet about a pod that has ended: all that comes of it its Job says in a moment."""
        meta = pod["metadata"]
        there = self._cache.parent(POD, meta["namespace"], meta["name"]) and not meta.get("deletionTimestamp")
        if not there or (pod.get("status") or {}).get("phase") != "Succeeded":
            return False
        job = self._cache.get(JOB, meta["namespace"], meta["labels"].get(JOB_NAME_LABEL, ""))
        return job is not None and job["metadata"]["uid"] in owners(pod) and not ended(job)

    def wake_all(self, within: float = 0.0) -> None:
        """Wake every resource, spread at random over so many seconds."""
        for gvk in PARENTS:
            for namespace, name in self._cache.names(gvk):
                self._wake(Key(gvk.kind, namespace, name), random.uniform(0, within))  # noqa: S311


_PARENT_KINDS = frozenset(gvk.kind for gvk in PARENTS)


class Resync:
    """Compares the cache with fresh lists: at the start, from time to time, and when a watch had to start over.

    kopf tells of no deletion that happened while a watch was broken; this finds them.
    """

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        intake: Intake,
        namespaces: Sequence[str] = (),
        *,
        told: Callable[[str, str, int], None] = lambda kind, outcome, drift: None,
    ) -> None:
        self._cluster, self._cache, self._intake = cluster, cache, intake
        self._namespaces = tuple(namespaces)
        self._told = told
        self._requested: set[tuple[GVK, str | None]] = set()
        self._told_errors: dict[GVK, str] = {}
        self._request = asyncio.Event()
        self.done = False
        """Whether everything was listed once."""

    @property
    def watches(self) -> list[tuple[GVK, str | None]]:
        """Everything that is watched: kinds, each in the namespaces served."""
        return [
            (gvk, namespace)
            for gvk in WATCHED
            for namespace in ((self._namespaces or (None,)) if gvk.namespaced else (None,))
        ]

    def request(self, gvk: GVK, namespace: str | None) -> None:
        """Compare one list soon."""
        self._requested.add((gvk, namespace))
        self._request.set()

    async def run(self, every: float) -> None:
        """List everything until that has worked once, then compare from time to time, for ever."""

        def next_time() -> float:
            return asyncio.get_running_loop().time() + every * random.uniform(0.9, 1.1)  # noqa: S311

        failed, todo = [], list(self.watches)
        while failed := [watch for watch in todo if not await self._compare(*watch)]:
            await asyncio.sleep(1 + random.random())  # noqa: S311
            todo = failed
        self.done = True
        log.info("caches are filled")
        due = next_time()  # requests, and lists that fail, must not put it off
        while True:
            todo = await self._wait(failed, due)
            if not todo:
                todo, due = list(self.watches), next_time()
                self._intake.wake_all(within=every / 2)
            failed = [watch for watch in todo if not await self._compare(*watch)]

    async def _wait(self, failed: Iterable[tuple[GVK, str | None]], until: float) -> list[tuple[GVK, str | None]]:
        """Wait for requests; an empty list when the time has come to compare everything."""
        self._requested.update(failed)
        try:
            async with asyncio.timeout_at(until):
                if not self._requested:
                    self._request.clear()
                    await self._request.wait()
                await asyncio.sleep(RELIST_DELAY)
        except TimeoutError:
            self._requested.clear()
            return []
        requested, self._requested = self._requested, set()
        return list(requested)

    async def _compare(self, gvk: GVK, namespace: str | None) -> bool:
        """List one kind, page by page; whether that worked."""
        labels = SELECTOR if gvk in CHILDREN else None
        relist = Relist(self._cache, gvk, namespace)
        version, drift = "", 0
        try:
            async for page, version in self._cluster.pages(gvk, namespace, labels):  # noqa: B007
                drift += self._tell(gvk, relist.add(page))
                await asyncio.sleep(0)  # a page takes tens of milliseconds of CPU; let the Lease be renewed
        except ClusterError as error:
            if self._told_errors.get(gvk) != error.message:
                self._told_errors[gvk] = error.message
                log.warning("%s cannot be listed: %s", gvk.plural, error.message)
            self._told(gvk.kind, "failed", 0)
            return False
        drift += self._tell(gvk, relist.finish(version))
        self._told_errors.pop(gvk, None)
        self._told(gvk.kind, "compared", drift if self.done else 0)
        return True

    def _tell(self, gvk: GVK, changed: Sequence[Manifest]) -> int:
        for body in changed:
            self._intake.changed(gvk, body)
        return len(changed)
