"""One operator process, as far as it fits into a test: everything but the process, in virtual time."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from slmops.__main__ import Operator
from slmops.cluster.connection import Connection
from slmops.cluster.objects import FINE_TUNE, JOB, LEASE, POD, Manifest
from slmops.settings import Settings
from tests.unit import builders, virtualnet
from tests.unit.fakeapi import FakeApi, eventually


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Replica:
    """An operator that runs, and what can be seen of it from outside."""

    def __init__(
        self, api: FakeApi, connection: Connection | None = None, alone: bool = False, **settings: Any
    ) -> None:
        """``alone`` makes it the leader for ever, without a Lease to renew every two seconds: for tests of what it does for
        long, or while the API server is away."""
        self.api = api
        self._port = free_port()
        self.operator = Operator(Settings(http_port=self._port, **settings), connection or api.connection())
        # These two look at clocks that no event loop knows of.
        self.operator.election._clock = virtualnet.now
        self.operator.pulse._clock = virtualnet.now
        if alone:
            election: Any = self.operator.election
            election.acquire, election.hold = _at_once, asyncio.Event().wait
            election._clock, election._leads_until = lambda: 0.0, 1.0
        self.task = asyncio.create_task(self.operator.run())

    async def get(self, path: str) -> tuple[int, str]:
        """What the kubelet or Prometheus gets."""
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self._port}{path}") as answer:
            return answer.status, await answer.text()

    def leads(self) -> bool:
        """Whether it works: the leader, with all that it has to know."""
        return self.operator.election.leading() and not list(self.operator.not_ready())

    async def leading(self, seconds: float = 15.0) -> "Replica":
        """Wait until it leads."""
        await eventually(lambda: self.task.done() or self.leads(), seconds)
        assert not self.task.done(), f"ended with {self.task.result()}"
        return self

    async def terminate(self) -> int:
        """As SIGTERM, without a signal: several replicas share this process."""
        self.operator._stop.set()
        return await self.task

    async def kill(self) -> None:
        """As SIGKILL: it does not do anything any more, nor does it give its Lease back."""
        self.operator.election._leads_until = 0.0
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def _at_once() -> None:
    pass


@asynccontextmanager
async def replica(api: FakeApi, alone: bool = False, **settings: Any) -> AsyncIterator[Replica]:
    """A replica that leads, and is ended afterwards if the test did not."""
    found = await Replica(api, alone=alone, **settings).leading()
    try:
        yield found
    finally:
        if not found.task.done():
            await found.kill()


def holder(api: FakeApi) -> str | None:
    """Who holds the Lease."""
    leases = api.all(LEASE)
    return leases[0]["spec"]["holderIdentity"] if leases else None


# --- scenarios


SPEC = builders.SPECS["FineTune"]
GOOD = builders.ended(0, builders.said(builders.report("adapter", "model")))


def operate(scenario: Callable[[FakeApi, Replica], Awaitable[None]], **settings: Any) -> None:
    """Run a scenario beside an operator that leads."""

    async def run() -> None:
        async with FakeApi() as api, replica(api, **settings) as found:
            await scenario(api, found)

    virtualnet.run(run())


def condition(api: FakeApi, name: str = "a", type: str = "Succeeded", gvk: Any = FINE_TUNE) -> str | None:
    found = (api.get(gvk, name).get("status") or {}).get("conditions", [])
    return next((c["status"] for c in found if c["type"] == type), None)


async def works(api: FakeApi, name: str = "a") -> Manifest:
    """Wait for the Job of a FineTune."""
    await eventually(lambda: [job for job in api.all(JOB) if job["metadata"]["name"].startswith(f"{name}-")])
    await eventually(lambda: condition(api, name, "Accepted") is not None)
    return next(job for job in api.all(JOB) if job["metadata"]["name"].startswith(f"{name}-"))


def end(api: FakeApi, job: Manifest, state: Manifest = GOOD, outcome: Manifest = builders.COMPLETE) -> None:
    pod = builders.pod(job, state=state)
    api.put(POD, pod["metadata"]["name"], metadata=pod["metadata"], status=pod["status"])
    api.put(JOB, job["metadata"]["name"], status={"conditions": [outcome]})
