"""The whole operator against a scripted API server: it works, it leads, and it ends when it leads no more."""

import asyncio
from typing import Any

import pytest
from aiohttp import web

from slmops.cluster.election import DURATION
from slmops.cluster.objects import CONFIG_MAP, EVENT, FINE_TUNE, JOB, LEASE, POD, QUANTIZED_MODEL
from tests.unit import builders, virtualnet
from tests.unit.fakeapi import FakeApi, eventually, hang, status
from tests.unit.replica import SPEC, Replica, condition, end, holder, operate, works

# --- the work


def test_a_resource_becomes_a_job_and_a_status_and_then_nothing_is_written() -> None:
    async def scenario(api: FakeApi, found: Replica) -> None:
        api.put(FINE_TUNE, "a", spec=SPEC)
        job = await works(api)
        assert [body["metadata"]["name"] for body in api.all(CONFIG_MAP)] == [job["metadata"]["name"]]
        assert condition(api, type="Accepted") == "True"
        assert condition(api) == "Unknown"
        writes = len(api.writes())
        await asyncio.sleep(700)  # over a resync and many polls
        assert api.writes()[writes:] == []
        assert found.operator.queue.pending == 0

    operate(scenario, alone=True)


def test_a_resource_is_taken_to_its_end_and_told_of_once() -> None:
    async def scenario(api: FakeApi, found: Replica) -> None:
        api.put(FINE_TUNE, "a", spec=SPEC)
        end(api, await works(api))
        await eventually(lambda: condition(api) == "True")
        await asyncio.sleep(5)
        writes = len(api.writes())
        for pod in api.all(POD):
            api.drop(POD, pod["metadata"]["name"])
        await asyncio.sleep(700)
        assert api.writes()[writes:] == []
        assert condition(api) == "True"
        assert [event["reason"] for event in api.all(EVENT)] == ["Completed"]
        _, metrics = await found.get("/metrics")
        assert 'slmops_objects{kind="FineTune",phase="Succeeded"} 1.0' in metrics
        assert "slmops_leader 1.0" in metrics

    operate(scenario, alone=True)


def test_what_refers_to_a_resource_goes_on_by_itself() -> None:
    async def scenario(api: FakeApi, found: Replica) -> None:
        api.put(QUANTIZED_MODEL, "q", spec={**builders.SPECS["QuantizedModel"], "model": {"fineTune": {"name": "a"}}})
        await eventually(lambda: condition(api, "q", "InputsResolved", QUANTIZED_MODEL) == "Unknown")
        api.put(FINE_TUNE, "a", spec=SPEC)
        end(api, await works(api))
        await eventually(lambda: condition(api, "q", "InputsResolved", QUANTIZED_MODEL) == "True")
        await eventually(lambda: [job for job in api.all(JOB) if job["metadata"]["name"].startswith("q-")])

    operate(scenario)


def test_an_operator_that_starts_anew_changes_nothing() -> None:
    async def run() -> None:
        async with FakeApi() as api:
            first = await Replica(api).leading()
            for name in ("a", "b"):
                api.put(FINE_TUNE, name, spec=SPEC)
                job = await works(api, name)
            end(api, job)
            await eventually(lambda: condition(api, "b") == "True")
            await asyncio.sleep(30)
            assert await first.terminate() == 0
            writes = len(api.writes())
            second = await Replica(api, alone=True).leading()
            await asyncio.sleep(700)
            assert api.writes()[writes:] == []
            await second.kill()

    virtualnet.run(run())


def test_a_spec_that_no_model_takes_is_looked_at_once() -> None:
    async def scenario(api: FakeApi, found: Replica) -> None:
        api.put(FINE_TUNE, "a", spec={**SPEC, "method": "Magic"})
        await eventually(lambda: condition(api, type="Accepted") == "False")
        await asyncio.sleep(200)
        _, metrics = await found.get("/metrics")
        assert 'slmops_reconcile_total{kind="FineTune",outcome="success"} 1.0' in metrics
        assert 'outcome="error"' not in metrics

    operate(scenario, alone=True)


def test_what_happened_while_a_watch_was_broken_is_made_good() -> None:
    """kopf lists again, and tells nothing of what went meanwhile."""

    async def scenario(api: FakeApi, found: Replica) -> None:
        api.put(FINE_TUNE, "a", spec=SPEC)
        job = await works(api)
        await asyncio.sleep(5)
        api.drop(JOB, job["metadata"]["name"], quiet=True)
        api.compact()
        await works(api)
        await eventually(lambda: len(api.all(JOB)) == 1, 20)
        assert api.all(JOB)[0]["metadata"]["uid"] != job["metadata"]["uid"]

    operate(scenario)


def test_a_deletion_that_no_watch_ever_tells_of_is_found_by_the_resync() -> None:
    async def scenario(api: FakeApi, found: Replica) -> None:
        api.put(FINE_TUNE, "a", spec=SPEC)
        job = await works(api)
        await asyncio.sleep(5)
        api.drop(JOB, job["metadata"]["name"], quiet=True)
        await asyncio.sleep(30)
        assert api.all(JOB) == []
        await asyncio.sleep(70)
        assert len(api.all(JOB)) == 1
        _, metrics = await found.get("/metrics")
        assert 'slmops_resync_drift_total{kind="Job"} 1.0' in metrics

    operate(scenario, alone=True, resync_seconds=60)


def test_a_resource_that_goes_is_forgotten() -> None:
    async def scenario(api: FakeApi, found: Replica) -> None:
        api.put(FINE_TUNE, "a", spec=SPEC)
        await works(api)
        api.drop(FINE_TUNE, "a")
        await asyncio.sleep(5)
        writes = len(api.writes())
        await asyncio.sleep(120)
        assert api.writes()[writes:] == []
        _, metrics = await found.get("/metrics")
        assert 'slmops_objects{kind="FineTune",phase="Pending"} 0.0' in metrics

    operate(scenario, alone=True)


def test_only_the_namespaces_that_it_serves_are_touched() -> None:
    async def scenario(api: FakeApi, found: Replica) -> None:
        api.put(FINE_TUNE, "theirs", namespace="elsewhere", spec=SPEC)
        api.put(FINE_TUNE, "a", spec=SPEC)
        await works(api)
        await asyncio.sleep(120)
        assert "status" not in api.get(FINE_TUNE, "theirs", "elsewhere")
        asked = {request.path for request in api.requests if "/namespaces/" in request.path}
        assert {path.split("/namespaces/")[1].split("/")[0] for path in asked} == {"farm", "mill", "slmops-system"}

    operate(scenario, watch_namespaces=("farm", "mill"))


def test_no_finalizer_no_annotation_and_no_secret() -> None:
    """All that is written to a resource of ours is its status."""

    async def scenario(api: FakeApi, found: Replica) -> None:
        before = api.put(FINE_TUNE, "a", spec=SPEC, metadata={"annotations": {"theirs": "1"}})
        end(api, await works(api))
        await eventually(lambda: condition(api) == "True")
        await asyncio.sleep(60)
        after = api.get(FINE_TUNE, "a")
        for body in (before, after):
            body["metadata"].pop("resourceVersion"), body.pop("status", None)
        assert after == before
        written = {request.path.rsplit("/", 2)[-1] for request in api.writes() if "/finetunes/" in request.path}
        assert written == {"status"}
        assert all("secrets" not in request.path for request in api.requests)

    operate(scenario)


# --- leading


@pytest.mark.usefixtures("side_by_side")
def test_of_two_replicas_one_works() -> None:
    async def run() -> None:
        async with FakeApi() as api:
            first = await Replica(api).leading()
            second = Replica(api)
            await asyncio.sleep(10)
            api.put(FINE_TUNE, "a", spec=SPEC)
            await works(api)
            await asyncio.sleep(60)
            assert not second.leads()
            api.put(FINE_TUNE, "gone", spec={**SPEC, "base": None})
            await asyncio.sleep(1)
            api.drop(FINE_TUNE, "gone")
            await asyncio.sleep(60)
            page = (await second.get("/metrics"))[1]
            assert "slmops_queue_depth 0.0" in page
            assert "slmops_queue_oldest_seconds 0.0" in page, "nobody waits for a standby"
            assert second.operator.queue._states == {}
            assert sum(request.path.endswith("/jobs") for request in api.writes()) == 1
            assert holder(api) == first.operator.election.identity
            assert (await second.get("/metrics"))[1].count("slmops_leader 0.0") == 1

            assert await first.terminate() == 0
            await second.leading(3)
            writes = len(api.writes())
            await asyncio.sleep(120)
            assert api.writes()[writes:] == [], "what was done is not done again"
            api.put(FINE_TUNE, "b", spec=SPEC)
            await works(api, "b")
            await second.kill()

    virtualnet.run(run())


@pytest.mark.usefixtures("side_by_side")
def test_a_standby_takes_over_from_a_leader_that_was_killed() -> None:
    async def run() -> None:
        async with FakeApi() as api:
            first = await Replica(api).leading()
            second = Replica(api)
            await asyncio.sleep(10)
            await first.kill()
            api.put(FINE_TUNE, "a", spec=SPEC)
            await second.leading(DURATION + 3)
            await works(api)
            await second.kill()

    virtualnet.run(run())


def test_a_leader_that_loses_its_lease_to_somebody_ends_with_one_and_writes_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(api: FakeApi, found: Replica) -> None:
        api.put(FINE_TUNE, "a", spec=SPEC)
        await works(api)
        lease = api.get(LEASE, "slmops-operator", "slmops-system")
        api.put(LEASE, "slmops-operator", "slmops-system", spec={**lease["spec"], "holderIdentity": "thief"})
        async with asyncio.timeout(5):
            assert await found.task == 1
        writes = len(api.writes(but=None))
        api.put(FINE_TUNE, "b", spec=SPEC)
        await asyncio.sleep(60)
        assert api.writes(but=None)[writes:] == []
        assert holder(api) == "thief", "not released: it is not ours"

    operate(scenario)
    assert "stopping at once: another process holds the Lease" in caplog.messages
    assert all(record.exc_info is None for record in caplog.records if record.name == "slmops"), "no defect, no trace"


@pytest.mark.parametrize("seconds", [0, 10, 30])
def test_a_webhook_that_fails_for_some_holds_up_nobody_else(seconds: float) -> None:
    """It answers at once that nobody is there, or the API server waits for it: as long as it does by itself, or as it can
    be told to at most."""

    async def scenario(api: FakeApi, found: Replica) -> None:
        async def webhook(request: web.Request) -> web.Response | None:
            if request.method != "POST" or request.path.split("/")[-2:] != ["farm", "jobs"]:
                return None
            await asyncio.sleep(seconds)
            return status(500, "InternalError", 'Internal error occurred: failed calling webhook "x"')

        api.faults.append(webhook)
        for number in range(10):
            api.put(FINE_TUNE, f"a{number}", spec=SPEC)
        await asyncio.sleep(180)
        assert {condition(api, f"a{number}", "Accepted") for number in range(10)} == {"Unknown"}
        api.put(FINE_TUNE, "b", namespace="barn", spec=SPEC)
        await asyncio.sleep(1 + seconds * 2)
        assert len([job for job in api.all(JOB) if job["metadata"]["namespace"] == "barn"]) == 1

    operate(scenario)


def test_a_resource_that_fails_for_long_is_looked_at_again_soon_after_an_edit() -> None:
    async def scenario(api: FakeApi, found: Replica) -> None:
        fault = api.refuse(409, method="PATCH", path="/status")
        api.put(FINE_TUNE, "a", spec=SPEC)
        await asyncio.sleep(100)  # the next try is up to a minute away
        api.faults.remove(fault)
        await asyncio.sleep(0.5)
        assert "status" not in api.get(FINE_TUNE, "a")
        api.put(FINE_TUNE, "a", spec={**SPEC, "training": {"epochs": 7}})
        await asyncio.sleep(1)
        assert condition(api, type="Accepted") == "True"

    operate(scenario)


@pytest.mark.parametrize("fault", [lambda request: status(503), hang])
def test_a_leader_without_the_api_server_ends_before_another_may_begin(fault: Any) -> None:
    async def scenario(api: FakeApi, found: Replica) -> None:
        await asyncio.sleep(10)
        api.faults.append(fault)
        began = virtualnet.now()
        assert await found.task == 1
        assert virtualnet.now() - began < DURATION

    operate(scenario)


def test_a_pass_that_began_as_leader_does_not_write_after_the_lease_is_lost() -> None:
    async def scenario(api: FakeApi, found: Replica) -> None:
        async def slow(request: web.Request) -> None:
            if request.method == "POST" and "/configmaps" in request.path:
                found.operator.election._leads_until = 0.0
                await asyncio.sleep(0.1)

        api.faults.append(slow)
        api.put(FINE_TUNE, "a", spec=SPEC)
        await asyncio.sleep(60)
        assert api.all(JOB) == []
        assert "status" not in api.get(FINE_TUNE, "a")
        assert await found.task == 1

    operate(scenario)
