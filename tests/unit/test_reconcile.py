"""Whole passes against a scripted API server: what is read, made and stated, and what each refusal leads to."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web

from slmops.cluster.objects import (
    CONFIG_MAP,
    EDGE_DEPLOYMENT,
    EVENT,
    FINE_TUNE,
    JOB,
    POD,
    QUANTIZED_MODEL,
    Key,
)
from slmops.plan.batch import POLL_SECONDS
from tests.unit import builders
from tests.unit.desk import GOOD, SPEC, A, Desk, end, paths, play
from tests.unit.fakeapi import FakeApi
from tests.unit.fleet_builders import manifest as edge

# --- the way of a resource


def test_a_new_resource_gets_its_job_and_a_status() -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        assert await desk.passes() == POLL_SECONDS
        job = desk.job()
        (config_map,) = api.all(CONFIG_MAP)
        name = job["metadata"]["name"]
        assert config_map["metadata"]["name"] == name
        assert paths(api.writes())[:3] == ["POST configmaps", "POST jobs", "PATCH finetunes/a/status"], (
            "a Job never waits for a ConfigMap that is not made yet"
        )
        uid = api.get(FINE_TUNE, "a")["metadata"]["uid"]
        for child in (job, config_map):
            (owner,) = child["metadata"]["ownerReferences"]
            assert (owner["uid"], owner["name"], owner["controller"]) == (uid, "a", True)
        assert desk.condition("Accepted")["status"] == "True"
        assert desk.condition("Succeeded")["status"] == "Unknown"
        assert desk.status()["observedGeneration"] == 1
        assert desk.phases == [(A, "Pending")]

    play(scenario)


def test_nothing_is_written_when_nothing_changed() -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        await desk.passes()
        await desk.silent(watch=False)  # our own writes are known at once
        await desk.silent()
        end(api, desk.job(), builders.RUNNING)
        await desk.passes()
        await desk.silent()
        end(api, desk.job(), GOOD, builders.COMPLETE)
        await desk.passes()
        await desk.passes()
        for _ in range(3):
            await desk.silent()

    play(scenario)


def test_a_report_becomes_the_status_and_outlives_its_pod() -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        await desk.passes()
        end(api, desk.job(), GOOD, builders.COMPLETE)
        await desk.passes()
        assert desk.condition("Succeeded")["status"] == "True"
        artifact = desk.status()["artifact"]["reference"]
        assert artifact == builders.artifact("model").reference
        assert desk.status()["inputs"] == {"base": "oci://x@sha256:1"}
        for pod in api.all(POD):
            api.drop(POD, pod["metadata"]["name"])
        await desk.silent()
        assert desk.status()["artifact"]["reference"] == artifact

    play(scenario)


def test_pods_that_the_cache_does_not_know_yet_are_read_when_their_job_is_over() -> None:
    """Watches of Jobs and of pods have no common order; without this a good Job would look like one without report."""

    async def scenario(api: FakeApi, desk: Desk) -> None:
        await desk.passes()
        job = desk.job()
        pod = builders.pod(job, state=GOOD)
        pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] = job["metadata"]["name"]
        api.put(JOB, job["metadata"]["name"], status={"conditions": [builders.COMPLETE]})
        desk.watch()
        api.put(POD, pod["metadata"]["name"], metadata=pod["metadata"], status=pod["status"])
        await desk.passes(watch=False)
        assert desk.condition("Succeeded")["status"] == "True"

    play(scenario)


def test_a_changed_spec_is_another_job_and_the_old_one_goes() -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        await desk.passes()
        first = desk.job()["metadata"]["name"]
        api.put(FINE_TUNE, "a", spec={**SPEC, "training": {"epochs": 7}})
        await desk.passes()
        assert desk.job()["metadata"]["name"] != first
        assert [body["metadata"]["name"] for body in api.all(CONFIG_MAP)] == [desk.job()["metadata"]["name"]]
        assert desk.status()["observedGeneration"] == 2
        await desk.silent()

    play(scenario)


def test_a_resource_that_is_gone_or_going_is_left_alone() -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        await desk.passes()
        api.put(FINE_TUNE, "a", metadata={"deletionTimestamp": "2026-03-01T12:00:00Z"}, spec={**SPEC, "merge": False})
        await desk.silent()
        api.drop(FINE_TUNE, "a")
        await desk.silent()
        assert desk.phases[-2:] == [(A, None), (A, None)]

    play(scenario)


# --- a spec that is wrong


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"method": "Magic"}, "spec.method"),
        ({"training": {"epochs": "many"}}, "spec.training.epochs"),
        ({"base": None}, "spec.base"),
        ({"output": {"repository": "https://user:canary@registry"}}, "spec.output.repository"),
        ({"run": {"nodeSelector": {"pool": 5}}}, "spec.run.nodeSelector.pool"),
    ],
)
def test_what_the_schema_let_pass_becomes_a_condition_with_field_and_remedy_and_no_retry(
    spec: dict[str, Any], field: str
) -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        assert await desk.passes() is None, "only another spec can help"
        accepted = desk.condition("Accepted")
        assert (accepted["status"], accepted["reason"]) == ("False", "InvalidSpec")
        assert accepted["message"].startswith(f"{field}: ")
        assert accepted["message"].endswith("Mend the field and apply again.")
        assert accepted["observedGeneration"] == 1
        assert desk.condition("Succeeded")["status"] == "False"
        assert "observedGeneration" not in desk.status()
        assert api.all(JOB) == api.all(CONFIG_MAP) == []
        assert desk.phases == [(A, "Failed")]
        await desk.silent()
        assert await desk.events() == [("Warning", "InvalidSpec", f"Succeeded: {accepted['message']}")]
        assert "canary" not in json.dumps([api.all(FINE_TUNE)[0]["status"], api.all(EVENT)]), (
            "what is written is not told"
        )
        api.put(FINE_TUNE, "a", spec=SPEC)
        await desk.passes()
        assert desk.condition("Accepted")["status"] == "True"
        assert desk.condition("Succeeded")["status"] == "Unknown"
        assert desk.status()["observedGeneration"] == 2
        assert len(api.all(JOB)) == 1

    play(scenario, spec={**SPEC, **spec})


def test_a_slip_in_the_spec_costs_no_running_work_and_no_memory() -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        await desk.passes()
        end(api, desk.job(), GOOD, builders.COMPLETE)
        await desk.passes()
        before, job = desk.status(), desk.job()
        api.put(FINE_TUNE, "a", spec={**SPEC, "method": "Magic"})
        await desk.passes()
        assert desk.job() == job
        assert desk.condition("Succeeded")["reason"] == "InvalidSpec"
        assert desk.status()["observedGeneration"] == 1, "of the spec that was understood last"
        assert desk.status()["artifact"] == before["artifact"]
        api.put(FINE_TUNE, "a", spec=SPEC)
        await desk.passes()
        assert desk.condition("Succeeded")["status"] == "True"

    play(scenario)


def test_an_edge_deployment_does_not_forget_what_failed_over_a_slip_in_its_spec() -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        body = edge()
        ready = {"type": "Ready", "status": "True", "reason": "Serving", "message": "", "observedGeneration": 1,
                 "lastTransitionTime": "2026-03-01T11:00:00Z"}  # fmt: skip
        stated = {"failed": ["0a1b2c3d"], "observedGeneration": 1, "conditions": [ready]}
        spec = {**body["spec"], "pools": "all of them"}
        api.put(EDGE_DEPLOYMENT, "e", spec=spec, status=stated)
        await desk.passes(Key("EdgeDeployment", "farm", "e"))
        found = desk.status(EDGE_DEPLOYMENT, "e")
        assert found["failed"] == ["0a1b2c3d"]
        assert desk.condition("Accepted", EDGE_DEPLOYMENT, "e")["status"] == "False"
        assert desk.condition("Ready", EDGE_DEPLOYMENT, "e") == ready, "what serves, serves on"

    play(scenario)


# --- what happens in the middle of a pass


@contextmanager
def once(api: FakeApi, path: str, action: Callable[[], Any]) -> Iterator[None]:
    """Something happens in the cluster just before the first write to this path is looked at."""
    left = [action]

    def fault(request: web.Request) -> None:
        if request.method != "GET" and path in request.path and left:
            left.pop()()

    api.faults.append(fault)
    yield
    api.faults.remove(fault)
    assert not left, "nothing was written there"


@pytest.mark.parametrize("where", ["/configmaps", "/status"])
def test_a_resource_that_is_deleted_in_the_middle_of_its_pass_ends_it_quietly(where: str) -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        with once(api, where, lambda: api.drop(FINE_TUNE, "a")):
            await desk.passes()
        assert api.all(FINE_TUNE) == []
        assert desk.woken == []
        assert await desk.events() == []
        await desk.silent()

    play(scenario)


def test_the_successor_of_a_resource_gets_nothing_of_its_predecessor() -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        def replace() -> None:
            api.drop(FINE_TUNE, "a")
            api.put(FINE_TUNE, "a", spec={**SPEC, "training": {"epochs": 7}})

        with once(api, "/status", replace):
            await desk.passes()
        assert desk.status() == {}
        assert [job["metadata"]["ownerReferences"][0]["uid"] for job in api.all(JOB)] == ["uid-1"], "to be collected"
        await desk.passes()
        assert len(api.all(JOB)) == 2

    play(scenario)


def test_a_spec_that_changes_in_the_middle_of_a_pass_is_not_called_observed() -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        with once(api, "/status", lambda: api.put(FINE_TUNE, "a", spec={**SPEC, "training": {"epochs": 7}})):
            await desk.passes()
        assert desk.status()["observedGeneration"] == 1
        assert api.get(FINE_TUNE, "a")["metadata"]["generation"] == 2
        await desk.passes()
        assert desk.status()["observedGeneration"] == 2

    play(scenario)


# --- telling others


def test_those_who_refer_to_a_resource_are_woken_when_its_status_was_written_and_not_else() -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        spec = {**builders.SPECS["QuantizedModel"], "model": {"fineTune": {"name": "a"}}}
        api.put(QUANTIZED_MODEL, "q", spec=spec)
        api.put(QUANTIZED_MODEL, "q", namespace="mill", spec=spec)
        await desk.passes()
        assert desk.woken == [Key("QuantizedModel", "farm", "q")]
        desk.woken.clear()
        await desk.passes()
        assert desk.woken == []

    play(scenario)


def test_a_resource_waits_for_the_one_that_it_names_in_its_own_namespace() -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        q = Key("QuantizedModel", "farm", "q")
        api.put(QUANTIZED_MODEL, "q", spec={**builders.SPECS["QuantizedModel"], "model": {"fineTune": {"name": "b"}}})
        good = builders.reference("FineTune", "b")["status"]
        api.put(FINE_TUNE, "b", namespace="mill", spec=SPEC, status=good)
        await desk.passes(q)
        resolved = desk.condition("InputsResolved", QUANTIZED_MODEL, "q")
        assert (resolved["status"], resolved["reason"]) == ("Unknown", "ReferenceNotFound")
        assert api.all(JOB) == []
        api.put(FINE_TUNE, "b", spec=SPEC, status=good)
        await desk.passes(q)
        assert desk.condition("InputsResolved", QUANTIZED_MODEL, "q")["status"] == "True"
        assert len(api.all(JOB)) == 1

    play(scenario)


def test_an_event_is_posted_for_each_flip_and_once() -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        await desk.passes()
        assert await desk.events() == [], "that work begins is no news"
        end(
            api,
            desk.job(),
            builders.ended(3, builders.failure("InvalidData", "record 7 has no answer")),
            builders.FAILED,
        )
        await desk.passes()
        for _ in range(3):
            await desk.passes()
        ((type, reason, note),) = await desk.events()
        assert (type, reason) == ("Warning", "InvalidData")
        assert "record 7 has no answer" in note

    play(scenario)


def test_a_failure_that_comes_again_is_an_event_again() -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        for times in (1, 2):
            refusal = api.refuse(403, method="POST", path="/jobs")
            for _ in range(3):
                await desk.passes()
            assert [reason for _, reason, _ in await desk.events()] == ["ChildRefused"] * times
            api.faults.remove(refusal)
            await desk.passes()
            assert desk.condition("Accepted")["status"] == "True"
            desk.now += timedelta(days=1)
            api.drop(JOB, desk.job()["metadata"]["name"])

    play(scenario)


def test_success_is_an_event_too() -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        await desk.passes()
        end(api, desk.job(), GOOD, builders.COMPLETE)
        for _ in range(3):
            await desk.passes()
        assert [(type, reason) for type, reason, _ in await desk.events()] == [("Normal", "Completed")]

    play(scenario)
