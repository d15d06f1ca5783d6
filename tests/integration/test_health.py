"""/healthz, /readyz and /metrics: restarted for what a restart mends, and for nothing else."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from slmops.__main__ import SILENCE_LIMIT, STALL_LIMIT
from slmops.cluster.objects import FINE_TUNE, Key
from slmops.health import HealthServer
from slmops.loop import PASS_TIMEOUT
from tests.unit import virtualnet
from tests.unit.fakeapi import FakeApi, eventually, hang, status
from tests.unit.replica import Replica, free_port, replica

# --- the server


def serve(
    scenario: Callable[[Callable[..., Awaitable[tuple[int, str, str]]], dict[str, list[str]]], Awaitable[None]],
) -> None:
    """Run a scenario with a way to ask the server, and with what is wrong, which the scenario may change."""

    async def main() -> None:
        wrong: dict[str, list[str]] = {"live": [], "ready": []}
        port = free_port()
        server = HealthServer(
            port, live=lambda: wrong["live"], ready=lambda: iter(wrong["ready"]), metrics=lambda: b"slmops_x 1\n"
        )

        async with server, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

            async def ask(path: str, method: str = "GET") -> tuple[int, str, str]:
                async with session.request(method, path) as answer:
                    return answer.status, await answer.text(), answer.headers["Content-Type"]

            await scenario(ask, wrong)

    virtualnet.run(main())


def test_nothing_wrong_is_ok() -> None:
    async def scenario(ask: Any, wrong: Any) -> None:
        for path in ("/healthz", "/readyz"):
            assert (await ask(path))[:2] == (200, "ok\n")

    serve(scenario)


def test_what_is_wrong_is_told_and_live_is_another_question_than_ready() -> None:
    async def scenario(ask: Any, wrong: Any) -> None:
        wrong["ready"] += ["the caches are not filled", "no CRDs"]
        assert (await ask("/readyz"))[:2] == (503, "the caches are not filled\nno CRDs\n")
        assert (await ask("/healthz"))[0] == 200
        wrong["ready"].clear()
        wrong["live"].append("a pass hangs")
        assert (await ask("/healthz"))[:2] == (503, "a pass hangs\n")
        assert (await ask("/readyz"))[0] == 200

    serve(scenario)


def test_prometheus_gets_its_format() -> None:
    async def scenario(ask: Any, wrong: Any) -> None:
        code, text, content_type = await ask("/metrics")
        assert (code, text) == (200, "slmops_x 1\n")
        assert content_type.startswith("text/plain; version=0.0.4")

    serve(scenario)


@pytest.mark.parametrize(
    ("path", "method", "expected"),
    [("/", "GET", 404), ("/debug/pprof", "GET", 404), ("/healthz", "POST", 405), ("/metrics", "DELETE", 405)],
)
def test_there_is_nothing_else(path: str, method: str, expected: int) -> None:
    async def scenario(ask: Any, wrong: Any) -> None:
        assert (await ask(path, method))[0] == expected

    serve(scenario)


# --- when the operator is live


def operate(scenario: Callable[[FakeApi, Replica], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        async with FakeApi() as api, replica(api, alone=True, **settings) as found:
            assert (await found.get("/healthz"))[0] == 200
            await scenario(api, found)

    virtualnet.run(main())


@pytest.mark.parametrize("fault", [lambda request: status(503), lambda request: status(401), hang])
def test_an_api_server_that_is_away_is_no_reason_for_a_restart(fault: Any) -> None:
    async def scenario(api: FakeApi, found: Replica) -> None:
        api.faults.append(fault)
        api.cut()
        for _ in range(12):
            await asyncio.sleep(30)
            assert await found.get("/healthz") == (200, "ok\n")
        _, metrics = await found.get("/metrics")
        ages = [
            float(line.split()[-1]) for line in metrics.splitlines() if line.startswith("slmops_watch_age_seconds{")
        ]
        assert min(ages) > 350, "which is for an alert, not for the kubelet"

    operate(scenario)


def test_a_watch_whose_task_is_gone_is_a_reason() -> None:
    """kopf#1276: the operator lives on and hears nothing."""

    async def scenario(api: FakeApi, found: Replica) -> None:
        (watcher,) = [task for task in asyncio.all_tasks() if task.get_name().startswith("watcher for finetunes")]
        watcher.cancel()
        await asyncio.sleep(SILENCE_LIMIT - 30)
        assert (await found.get("/healthz"))[0] == 200
        await asyncio.sleep(60)
        code, text = await found.get("/healthz")
        assert code == 503
        assert text.startswith("the watch of finetunes has shown no life for ")
        assert len(text.splitlines()) == 1, "the other watches are well"

    operate(scenario)


def test_a_pass_that_nothing_ends_is_a_reason() -> None:
    async def scenario(api: FakeApi, found: Replica) -> None:

        async def stubborn(key: Key) -> None:
            while True:
                try:
                    await asyncio.sleep(10**6)
                except asyncio.CancelledError:
                    if found.task.cancelling():
                        raise

        found.operator.queue._reconcile = stubborn
        found.operator.queue.wake(Key("FineTune", "farm", "a"))
        await asyncio.sleep(PASS_TIMEOUT)
        assert (await found.get("/healthz"))[0] == 200, "a pass may take its time"
        await asyncio.sleep(STALL_LIMIT + 5)
        assert await found.get("/healthz") == (503, "a pass hangs\n")

    operate(scenario)


def test_workers_that_do_not_take_work_are_a_reason() -> None:
    async def scenario(api: FakeApi, found: Replica) -> None:
        await asyncio.sleep(1)  # until they wait for work
        queue = found.operator.queue
        queue._available.set = lambda: None  # type: ignore[method-assign]  # nobody is told that there is work
        queue.wake(Key("FineTune", "farm", "a"))
        await asyncio.sleep(STALL_LIMIT - 5)
        assert (await found.get("/healthz"))[0] == 200
        await asyncio.sleep(10)
        assert await found.get("/healthz") == (503, "the workers do not take work\n")

    operate(scenario)


def test_work_that_waits_for_a_busy_worker_is_no_reason() -> None:
    async def scenario(api: FakeApi, found: Replica) -> None:

        async def slow(key: Key) -> None:
            await asyncio.sleep(200)

        found.operator.queue._reconcile = slow
        for number in range(5):
            found.operator.queue.wake(Key("FineTune", "farm", f"n{number}"))
        for _ in range(20):
            await asyncio.sleep(30)
            assert (await found.get("/healthz"))[0] == 200

    operate(scenario, workers=1)


# --- when it is ready


def test_a_replica_is_ready_once_it_could_take_over() -> None:
    async def main() -> None:
        async with FakeApi() as api:
            api.served.remove(FINE_TUNE)
            found = Replica(api)
            await asyncio.sleep(30)
            code, text = await found.get("/readyz")
            assert code == 503
            assert text.splitlines()[:2] == ["the API server does not serve our kinds yet", "the caches are not filled"]
            assert (await found.get("/healthz"))[0] == 200, "a chart's CRDs may come after its Deployment"
            api.served.append(FINE_TUNE)
            refusal = api.refuse(403, path="/nodes")
            await asyncio.sleep(30)
            assert await found.get("/readyz") == (
                503,
                "the caches are not filled\nthe watch of nodes has not begun\n",
            )
            assert not found.leads()
            api.faults.remove(refusal)
            await found.leading(60)
            assert await found.get("/readyz") == (200, "ok\n")
            await found.kill()

    virtualnet.run(main())


def test_a_standby_is_ready_too() -> None:
    async def main() -> None:
        async with FakeApi() as api, replica(api):
            standby = Replica(api)
            await asyncio.sleep(30)
            assert await standby.get("/readyz") == (200, "ok\n")
            assert not standby.leads()
            await eventually(lambda: not standby.operator.pulse.not_started())
            await standby.kill()

    virtualnet.run(main())
