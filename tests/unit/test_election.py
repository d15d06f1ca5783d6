"""Leader election against a Lease in memory, in virtual time: take-over, release, and never two leaders."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmops.cluster.election import DURATION, RENEW_DEADLINE, Election, LeaseLost
from slmops.cluster.errors import Conflict, Forbidden, Unavailable
from slmops.cluster.objects import GVK, Manifest
from tests.unit.copies import fresh
from tests.unit.virtualtime import run


class Server:
    """One Lease with optimistic concurrency."""

    def __init__(self) -> None:
        self.lease: Manifest | None = None
        self.version = 0
        self.writes = 0
        self.after_answers: Callable[[], None] = lambda: None
        """Called whenever a replica has got an answer, and has made of it what it does."""

    def create(self, lease: Manifest) -> Manifest:
        if self.lease is not None:
            raise Conflict("exists")
        return self._store(lease)

    def update(self, lease: Manifest) -> Manifest:
        if self.lease is None or self.lease["metadata"]["resourceVersion"] != lease["metadata"]["resourceVersion"]:
            raise Conflict("changed")
        return self._store(lease)

    def _store(self, lease: Manifest) -> Manifest:
        self.version += 1
        self.writes += 1
        self.lease = fresh(lease)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return fresh(self.lease)


class Api:
    """A replica's way to the server, with the faults a network has."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.fault = "none"
        self.latency = 0.01

    async def _via(self, action: Any, *arguments: Any) -> Any:
        await asyncio.sleep(self.latency)
        if self.fault == "refused":
            raise Unavailable("connection refused")
        if self.fault == "hangs":
            await asyncio.sleep(3600)
        answer = action(*arguments)
        if self.fault == "answers are lost" and action in (self.server.create, self.server.update):
            await asyncio.sleep(3600)
        await asyncio.sleep(self.latency)
        asyncio.get_running_loop().call_soon(self.server.after_answers)
        return answer

    async def get(self, gvk: GVK, namespace: str | None, name: str) -> Manifest | None:
        return await self._via(lambda: fresh(self.server.lease))

    async def create(self, manifest: Manifest) -> Manifest:
        return await self._via(self.server.create, manifest)

    async def update(self, manifest: Manifest) -> Manifest:
        return await self._via(self.server.update, manifest)


def now() -> float:
    return asyncio.get_running_loop().time()


class Replica:
    """A process that stands by, leads, and starts anew when it lost the Lease."""

    def __init__(self, server: Server, name: str, jitter: float = 1.0) -> None:
        self.api, self.name, self.jitter, self.starts = Api(server), name, jitter, 0
        self.led: list[float] = []
        self.start()

    def start(self) -> None:
        self.starts += 1
        identity = f"{self.name}-{self.starts}"
        self.election = Election(self.api, "ns", "lease", identity, clock=now, jitter=lambda: self.jitter)
        self.task = asyncio.create_task(self._live())

    async def _live(self) -> None:
        await self.election.acquire()
        self.led.append(now())
        await self.election.hold()

    async def kill(self) -> None:
        """As SIGKILL: nothing is said to anybody."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def terminate(self) -> None:
        """As SIGTERM."""
        await self.kill()
        await self.election.release()


async def until_leader(replica: Replica) -> float:
    while not replica.election.leading():  # noqa: ASYNC110  (virtual time)
        await asyncio.sleep(0.05)
    return now()


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("after", [20.0, 20.7, 21.3, 21.99])
def test_a_standby_takes_over_within_fifteen_seconds_of_a_hard_kill(jitter: float, after: float) -> None:
    async def main() -> float:
        server = Server()
        first = Replica(server, "first", jitter)
        await until_leader(first)
        second = Replica(server, "second", 1.0 - jitter)
        await asyncio.sleep(after)
        assert not second.election.leading()
        await first.kill()
        killed = now()
        taken = await until_leader(second)
        await second.kill()
        return taken - killed

    seconds = run(main())
    assert RENEW_DEADLINE < seconds <= 15


@pytest.mark.parametrize("after", [20.0, 20.7, 21.3, 21.99])
def test_a_standby_takes_over_within_three_seconds_of_a_termination(after: float) -> None:
    async def main() -> float:
        server = Server()
        first = Replica(server, "first")
        await until_leader(first)
        second = Replica(server, "second")
        await asyncio.sleep(after)
        killed = now()
        await first.terminate()
        assert not first.election.leading()
        taken = await until_leader(second)
        await second.kill()
        return taken - killed

    assert run(main()) <= 3


def test_a_renewal_that_was_cut_off_does_not_keep_the_lease_from_being_released() -> None:
    async def main() -> None:
        server = Server()
        replica = Replica(server, "first")
        await until_leader(replica)
        replica.api.fault = "answers are lost"
        before = server.writes
        while server.writes == before:
            assert replica.election.leading()
            await asyncio.sleep(0.1)
        replica.api.fault = "none"
        await replica.terminate()
        assert server.lease is not None
        assert server.lease["spec"]["holderIdentity"] == ""

    run(main())


def test_a_leader_stays_leader_for_hours() -> None:
    async def main() -> None:
        server = Server()
        first, second = Replica(server, "first"), Replica(server, "second")
        leader = first if (await asyncio.sleep(5), first.election.leading())[1] else second
        await asyncio.sleep(2 * 3600)
        assert leader.election.leading()
        assert len(first.led) + len(second.led) == 1
        assert server.lease is not None
        assert server.lease["spec"]["leaseTransitions"] == 0
        await first.kill()
        await second.kill()

    run(main())


@pytest.mark.parametrize("fault", ["refused", "hangs", "answers are lost"])
def test_a_leader_without_the_api_server_stops_before_another_may_start(fault: str) -> None:
    async def main() -> None:
        server = Server()
        replica = Replica(server, "first")
        await until_leader(replica)
        await asyncio.sleep(10)
        replica.api.fault = fault
        began = now()
        with pytest.raises(LeaseLost):
            await replica.task
        assert not replica.election.leading()
        assert now() - began <= RENEW_DEADLINE + 0.1

    run(main())


def test_a_short_outage_of_the_api_server_costs_no_leadership() -> None:
    async def main() -> None:
        server = Server()
        replica = Replica(server, "first")
        await until_leader(replica)
        for fault in ("refused", "hangs", "answers are lost"):
            replica.api.fault = fault
            await asyncio.sleep(3)
            replica.api.fault = "none"
            await asyncio.sleep(10)
        assert replica.election.leading()
        assert len(replica.led) == 1
        await replica.kill()

    run(main())


def test_a_leader_stops_at_once_when_somebody_else_writes_himself_into_the_lease() -> None:
    async def main() -> None:
        server = Server()
        replica = Replica(server, "first")
        await until_leader(replica)
        assert server.lease is not None
        stolen = fresh(server.lease)
        stolen["spec"]["holderIdentity"] = "thief"
        server.update(stolen)
        began = now()
        with pytest.raises(LeaseLost):
            await replica.task
        assert now() - began < 3

    run(main())


def test_a_process_that_was_frozen_knows_that_it_is_late() -> None:
    """After SIGSTOP, a suspend or a long pause the first thing it does may be a write; it is asked before that."""
    time = 1000.0

    async def main() -> None:
        nonlocal time
        election = Election(Api(Server()), "ns", "lease", "me", clock=lambda: time)
        await election.acquire()
        assert election.leading()
        time += RENEW_DEADLINE
        assert not election.leading()

    run(main())


def test_missing_rights_are_said_with_the_remedy(caplog: pytest.LogCaptureFixture) -> None:
    class Refusing(Api):
        async def get(self, gvk: GVK, namespace: str | None, name: str) -> Manifest | None:
            raise Forbidden("leases.coordination.k8s.io is forbidden")

    async def main() -> None:
        task = asyncio.create_task(Election(Refusing(Server()), "ns", "lease", "me", clock=now).acquire())
        await asyncio.sleep(60)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(main())
    said = [record.message for record in caplog.records]
    assert len(said) == 1
    assert "ns/lease" in said[0]
    assert "must allow get, create and update" in said[0]


FAULTS = st.lists(
    st.tuples(
        st.floats(0.1, 15),
        st.integers(0, 2),
        st.sampled_from(["none", "none", "refused", "hangs", "answers are lost", "kill", "terminate", "slow"]),
    ),
    max_size=25,
)


@settings(max_examples=100)
@given(FAULTS, st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_there_are_never_two_leaders_and_always_one_in_the_end(
    faults: list[tuple[float, int, str]], jitters: list[float]
) -> None:
    async def main() -> None:
        server = Server()
        replicas = [Replica(server, f"r{number}", jitter) for number, jitter in enumerate(jitters)]

        most = 0

        def count() -> None:
            nonlocal most
            most = max(most, sum(replica.election.leading() for replica in replicas))

        server.after_answers = count  # with an answer alone one becomes the leader

        async def restart() -> None:
            while True:
                for replica in replicas:
                    if replica.task.done() and not replica.task.cancelled():
                        assert isinstance(replica.task.exception(), LeaseLost)
                        replica.start()  # as the kubelet does
                await asyncio.sleep(0.5)

        kubelet = asyncio.create_task(restart())
        for wait, number, fault in faults:
            await asyncio.sleep(wait)
            replica = replicas[number]
            if fault in ("kill", "terminate"):
                await (replica.kill() if fault == "kill" else replica.terminate())
                replica.start()
            elif fault == "slow":
                replica.api.latency = 1.5
            else:
                replica.api.fault, replica.api.latency = fault, 0.01
        for replica in replicas:
            replica.api.fault, replica.api.latency = "none", 0.01
        await asyncio.sleep(DURATION + 10)
        assert sum(replica.election.leading() for replica in replicas) == 1
        assert most == 1
        if kubelet.done():
            kubelet.result()  # raises what it saw
        kubelet.cancel()
        for replica in replicas:
            await replica.kill()

    run(main())
