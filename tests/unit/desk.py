"""A reconciler, the scripted API server that it works against, and a cache as fresh as a test wants it."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from slmops.__main__ import _references as references
from slmops.cluster.cache import Cache
from slmops.cluster.client import Cluster
from slmops.cluster.objects import (
    EVENT,
    FINE_TUNE,
    GVK,
    JOB,
    POD,
    Key,
    Manifest,
)
from slmops.intake import WATCHED
from slmops.reconcile import Reconciler
from slmops.settings import Settings
from tests.unit import builders, virtualnet
from tests.unit.fakeapi import FakeApi, Request

A = Key("FineTune", "farm", "a")
SPEC = builders.SPECS["FineTune"]
OTHERS: Manifest = {"data": {"theirs": "1"}}


class Desk:
    """A reconciler whose cache is as fresh as a test wants it."""

    def __init__(self, api: FakeApi, cluster: Cluster) -> None:
        self.api = api
        self.cache = Cache(refers_to=references)
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)
        self.woken: list[Key] = []
        self.phases: list[tuple[Key, str | None]] = []
        self.reconciler = Reconciler(
            cluster,
            self.cache,
            Settings(),
            clock=lambda: self.now,
            phase_seen=lambda key, phase: self.phases.append((key, phase)),
            wake=self.woken.append,
        )

    def watch(self) -> None:
        """Let the cache see everything."""
        for gvk in WATCHED:
            self.cache.replace(gvk, self.api.all(gvk), version=str(self.api.version))

    async def passes(self, key: Key = A, watch: bool = True) -> float | None:
        """One pass, by default after the watches have told of everything."""
        if watch:
            self.watch()
        self.now += timedelta(seconds=10)
        return await self.reconciler.reconcile(key)

    async def silent(self, key: Key = A, watch: bool = True) -> None:
        """A pass that must not write anything."""
        before = len(self.api.writes())
        await self.passes(key, watch)
        assert self.api.writes()[before:] == []

    def status(self, gvk: GVK = FINE_TUNE, name: str = "a") -> dict[str, Any]:
        return dict(self.api.get(gvk, name).get("status") or {})

    def condition(self, type: str, gvk: GVK = FINE_TUNE, name: str = "a") -> dict[str, Any]:
        found = [c for c in self.status(gvk, name).get("conditions", []) if c["type"] == type]
        return dict(found[0]) if found else {}

    def job(self) -> Manifest:
        (job,) = self.api.all(JOB)
        return job

    async def events(self) -> list[tuple[str, str, str]]:
        """(type, reason, note) of the events posted, oldest first."""
        await asyncio.sleep(1)
        return [(event["type"], event["reason"], event["note"]) for event in self.api.all(EVENT)]


Scenario = Callable[[FakeApi, Desk], Awaitable[None]]


def play(scenario: Scenario, **fields: Any) -> None:
    """Run a scenario that begins with a FineTune, which nobody has looked at yet."""

    async def main() -> None:
        async with FakeApi() as api, Cluster(api.connection()) as cluster:
            api.put(FINE_TUNE, "a", **{"spec": SPEC, **fields})
            await scenario(api, Desk(api, cluster))

    virtualnet.run(main())


def paths(requests: list[Request]) -> list[str]:
    return [f"{request.method} {request.path.split(f'/namespaces/{builders.NAMESPACE}/')[-1]}" for request in requests]


def end(api: FakeApi, job: Manifest, state: Manifest, *conditions: Manifest) -> None:
    """The Job's pod ends like this, and the Job with it."""
    pod = builders.pod(job, state=state)
    api.put(POD, pod["metadata"]["name"], metadata=pod["metadata"], status=pod["status"])
    api.put(JOB, job["metadata"]["name"], status={"conditions": list(conditions)})


GOOD = builders.ended(0, builders.said(builders.report("adapter", "model", inputs={"base": "oci://x@sha256:1"})))
