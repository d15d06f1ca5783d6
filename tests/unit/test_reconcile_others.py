"""Passes among others: what they forged, what they own, what they refuse, and what running pods say."""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiohttp import web

from slmops.cluster.errors import InternalError, Unavailable
from slmops.cluster.objects import (
    CONFIG_MAP,
    FINE_TUNE,
    GVK,
    JOB,
    POD,
)
from slmops.plan.batch import POLL_SECONDS
from slmops.reconcile import REFUSED_RETRY_SECONDS
from tests.unit import builders
from tests.unit.desk import GOOD, OTHERS, SPEC, Desk, end, play
from tests.unit.fakeapi import FakeApi, status

# --- what others wrote


def forged(**overrides: Any) -> dict[str, Any]:
    """A status as somebody would like it to be."""
    condition = {"type": "Succeeded", "status": "True", "reason": "Completed", "message": "", "observedGeneration": 1,
                 "lastTransitionTime": "2026-03-01T11:00:00Z"}  # fmt: skip
    stated = {
        "phase": "Succeeded",
        "observedGeneration": 1,
        "artifact": {"reference": "registry.evil/model@" + builders.DIGEST, "size": "1Mi"},
        "conditions": [condition, {**condition, "type": "Accepted"}, {**condition, "type": "Blessed"}],
    }
    return {**stated, **overrides}


def test_a_status_that_a_user_wrote_is_recomputed_and_nothing_of_it_stays() -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        await desk.passes()
        assert desk.status()["phase"] == "Pending"
        assert desk.condition("Succeeded")["status"] == "Unknown"
        assert desk.condition("Blessed") == {}
        assert "artifact" not in desk.status(), "a QuantizedModel would take it for ours"
        await desk.silent()

    play(scenario, status=forged())


def test_a_status_that_is_no_status_is_recomputed() -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        await desk.passes()
        assert desk.condition("Accepted")["status"] == "True"
        assert len(api.all(JOB)) == 1
        await desk.silent()

    play(scenario, status={"phase": 5, "conditions": [{"type": "Succeeded"}], "gates": "none"})


def test_a_users_status_in_the_middle_of_the_work_does_not_stay_either() -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        await desk.passes()
        good = desk.status()
        api.put(FINE_TUNE, "a", status={**good, **forged()})
        await desk.passes()
        assert desk.status()["phase"] == "Pending"
        assert desk.condition("Succeeded")["status"] == "Unknown"
        assert "artifact" not in desk.status()

    play(scenario)


REPORT = {"slmops.dev/report": builders.said(builders.report("adapter", "model"))}


@pytest.mark.parametrize(
    "owners",
    [
        [],
        [{"kind": "FineTune", "name": "a", "uid": "forged", "controller": True}],
        [{"kind": "FineTune", "name": "a", "uid": "UID"}],
        [{"kind": "FineTune", "name": "a", "uid": "UID", "controller": False}],
    ],
)
def test_a_strangers_finished_job_with_our_labels_and_name_is_not_believed(owners: list[dict[str, Any]]) -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        await desk.passes()
        job, uid = desk.job(), api.get(FINE_TUNE, "a")["metadata"]["uid"]
        name = job["metadata"]["name"]
        api.drop(JOB, name)
        references = [{**owner, "uid": uid if owner["uid"] == "UID" else owner["uid"]} for owner in owners]
        metadata = {"labels": job["metadata"]["labels"], "ownerReferences": references, "annotations": REPORT}
        stranger = api.put(JOB, name, metadata=metadata, status={"conditions": [builders.COMPLETE]})
        await desk.passes()
        assert desk.condition("Succeeded")["status"] != "True"
        assert "artifact" not in desk.status()
        assert api.get(JOB, name)["metadata"]["uid"] == stranger["metadata"]["uid"]
        assert api.get(JOB, name)["metadata"]["annotations"] == REPORT

    play(scenario)


def test_a_pod_that_no_job_of_ours_made_is_not_believed() -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        await desk.passes()
        job = desk.job()
        for number, owner in enumerate(("somebody else's", None)):
            pod = builders.pod(job, number, GOOD)
            pod["metadata"]["ownerReferences"] = [{"kind": "Job", "uid": owner, "controller": True}] if owner else []
            api.put(POD, pod["metadata"]["name"], metadata=pod["metadata"], status=pod["status"])
        api.put(JOB, job["metadata"]["name"], status={"conditions": [builders.COMPLETE]})
        await desk.passes()
        assert desk.condition("Succeeded")["status"] == "False"
        assert desk.condition("Trained")["reason"] == "ReportMissing"

    play(scenario)


def test_a_strangers_job_with_our_labels_is_not_deleted_as_stale() -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        await desk.passes()
        api.put(JOB, "theirs", metadata={"labels": desk.job()["metadata"]["labels"]})
        api.put(FINE_TUNE, "a", spec={**SPEC, "training": {"epochs": 7}})
        await desk.passes()
        assert "theirs" in [job["metadata"]["name"] for job in api.all(JOB)]

    play(scenario)


@pytest.mark.parametrize("gvk", [JOB, CONFIG_MAP])
@pytest.mark.parametrize("labelled", [False, True])
def test_a_childs_name_that_is_taken_is_said_and_the_stranger_left_alone(gvk: GVK, labelled: bool) -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        await desk.passes()
        job = desk.job()
        name, labels = job["metadata"]["name"], job["metadata"]["labels"]
        api.drop(JOB, name), api.drop(CONFIG_MAP, name)
        api.put(FINE_TUNE, "a", status={})
        stranger = api.put(gvk, name, metadata={"labels": labels} if labelled else {}, **OTHERS)

        assert await desk.passes() == REFUSED_RETRY_SECONDS
        assert api.get(gvk, name) == stranger
        assert desk.condition("Accepted")["status"] == "False"
        assert desk.condition("Accepted")["reason"] == "NameTaken"
        assert name in desk.condition("Accepted")["message"]
        assert "delete or rename it" in desk.condition("Accepted")["message"]
        assert desk.condition("Succeeded")["status"] == "False"
        assert gvk is JOB or api.all(JOB) == [], "no Job without its configuration"
        await desk.passes()
        writes = len(api.writes())
        assert await desk.passes() == REFUSED_RETRY_SECONDS
        assert all(request.method == "POST" for request in api.writes()[writes:]), "only the next try"

        api.drop(gvk, name)
        await desk.passes()
        assert desk.condition("Accepted")["status"] == "True"
        assert desk.condition("Succeeded")["status"] == "Unknown"
        assert desk.job()["metadata"]["ownerReferences"]

    play(scenario)


# --- what the API server refuses


@pytest.mark.parametrize(("code", "text"), [(403, "exceeded quota: pods=0"), (422, "Job is invalid"), (400, "bad")])
def test_a_child_that_is_refused_is_said_in_the_servers_words_and_tried_again_later(code: int, text: str) -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        api.faults.append(lambda r: status(code, "Nope", text) if r.method == "POST" and "/jobs" in r.path else None)
        assert await desk.passes() == REFUSED_RETRY_SECONDS
        accepted = desk.condition("Accepted")
        assert (accepted["status"], accepted["reason"], accepted["message"]) == ("False", "ChildRefused", text)
        assert desk.condition("Succeeded")["status"] == "False"
        assert "observedGeneration" not in desk.status(), "not done with this generation"
        api.faults.clear()
        await desk.passes()
        assert desk.condition("Accepted")["status"] == "True"
        assert desk.status()["observedGeneration"] == 1

    play(scenario)


def test_a_status_is_written_although_a_child_was_refused_and_tells_of_the_old_generation() -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        await desk.passes()
        assert desk.status()["observedGeneration"] == 1
        api.put(FINE_TUNE, "a", spec={**SPEC, "training": {"epochs": 7}})
        fault = api.refuse(403, method="POST", path="/configmaps")
        await desk.passes()
        assert desk.status()["observedGeneration"] == 1
        assert desk.condition("Accepted")["observedGeneration"] == 2
        assert desk.condition("Accepted")["reason"] == "ChildRefused"
        api.faults.remove(fault)
        await desk.passes()
        assert desk.status()["observedGeneration"] == 2

    play(scenario)


def test_a_long_refusal_fits_into_a_condition() -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        api.faults.append(lambda r: status(403, "Forbidden", "x" * 10**6) if "/jobs" in r.path else None)
        await desk.passes()
        assert len(desk.condition("Accepted")["message"]) <= 2048

    play(scenario)


def test_a_refusal_is_in_the_log_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        api.faults.append(lambda r: status(403, "Forbidden", "exceeded quota") if "/jobs" in r.path else None)
        await desk.passes()

    with caplog.at_level(logging.WARNING, logger="slmops"):
        play(scenario)
    assert [record.getMessage() for record in caplog.records] == ["a child was refused (ChildRefused): exceeded quota"]


WEBHOOK = 'Internal error occurred: failed calling webhook "jobs.example": failed to call webhook: connection refused'


@pytest.mark.parametrize("where", ["/configmaps", "/jobs"])
def test_a_webhook_that_cannot_be_called_is_said_with_a_remedy_before_the_pass_fails(where: str) -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        api.faults.append(lambda r: status(500, "InternalError", WEBHOOK) if where in r.path else None)
        for _ in range(2):
            with pytest.raises(InternalError, match="failed calling webhook"):
                await desk.passes()
        accepted = desk.condition("Accepted")
        assert (accepted["status"], accepted["reason"]) == ("Unknown", "ServerFailed"), "nothing is wrong with the spec"
        assert accepted["message"].startswith(f"{WEBHOOK}. ")
        assert "mend that one's server, or its failurePolicy" in accepted["message"]
        assert (desk.condition("Succeeded")["status"], desk.status()["phase"]) == ("Unknown", "Pending")
        assert "observedGeneration" not in desk.status(), "not done with this generation"
        assert len([r for r in api.writes() if r.path.endswith("/status")]) == 1, "said once"
        api.faults.clear()
        await desk.passes()
        assert desk.condition("Accepted")["status"] == "True"
        assert desk.status()["observedGeneration"] == 1

    play(scenario)


@pytest.mark.parametrize("fault", [429, 500, 503, 401])
@pytest.mark.parametrize("where", ["/configmaps", "/jobs", "/status"])
def test_what_may_pass_by_itself_is_no_condition_and_the_pass_can_be_repeated(fault: int, where: str) -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        refusal = api.refuse(fault, path=where)
        with pytest.raises(Unavailable):
            await desk.passes()
        assert desk.status() == {}
        api.faults.remove(refusal)
        await desk.passes()
        assert desk.condition("Accepted")["status"] == "True"
        assert len(api.all(JOB)) == len(api.all(CONFIG_MAP)) == 1
        assert await desk.events() == []

    play(scenario)


@pytest.mark.parametrize("where", ["/configmaps", "/jobs", "/status"])
def test_a_write_that_went_through_although_the_connection_broke_is_not_made_twice(where: str) -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        api.cut_after = lambda request: request.method in ("POST", "PATCH") and where in request.path
        with pytest.raises(Unavailable):
            await desk.passes()
        api.cut_after = lambda request: False
        await desk.passes(watch=False)
        assert len(api.all(JOB)) == len(api.all(CONFIG_MAP)) == 1
        assert desk.condition("Accepted")["status"] == "True"
        await desk.silent()

    play(scenario)


# --- what running pods say


def running(api: FakeApi, desk: Desk) -> None:
    pod = builders.pod(desk.job(), state=builders.RUNNING, podIP="127.0.0.1")
    api.put(POD, pod["metadata"]["name"], metadata=pod["metadata"], status=pod["status"])


@contextmanager
def saying(monkeypatch: pytest.MonkeyPatch, api: FakeApi, body: str) -> Iterator[None]:
    """Pods answer like this: the scripted server stands in for them too."""
    fault = lambda r: web.Response(text=body) if r.path == "/progress" else None  # noqa: E731
    api.faults.append(fault)
    monkeypatch.setattr("slmops.cluster.client.PROGRESS_PORT", int(api.url.rsplit(":", 1)[1]))
    yield
    api.faults.remove(fault)


def test_a_running_pods_progress_is_in_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    said = '{"stage": "Training", "step": 30, "of": 120, "loss": 0.5, "eta_seconds": 90}'

    async def scenario(api: FakeApi, desk: Desk) -> None:
        await desk.passes()
        running(api, desk)
        with saying(monkeypatch, api, said):
            assert await desk.passes() == POLL_SECONDS
            assert desk.status()["progress"]["percent"] == 25
            assert desk.status()["phase"] == "Training"
            await desk.silent()
        await desk.passes()
        assert "progress" not in desk.status(), "a pod that says nothing is not quoted for ever"

    play(scenario)


@pytest.mark.parametrize(
    "said",
    [
        '{"stage": "Training", "step": -1}',
        '{"stage": "Training", "step": 1e999}',
        '{"stage": "Training", "step": ' + "9" * 400 + ', "of": 1}',
        '{"stage": "Training", "loss": 1e999}',
        '{"stage": "Training", "tokens_per_second": -1}',
        '{"stage": "Training", "eta_seconds": 1e308}',
        '{"stage": "' + "x" * 33 + '"}',
        '{"stage": "Training\\n{}"}',
        '{"stage": "\\u001b[2J"}',
        '{"stage": 5}',
        '{"step": 5}',
        "{}",
        '{"stage": null, "step": {"a": []}}',
    ],
)
def test_nonsense_of_a_pod_is_left_out_and_the_pass_goes_on(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        await desk.passes()
        running(api, desk)
        await desk.passes()
        before = desk.status()
        with saying(monkeypatch, api, said):
            assert await desk.passes() == POLL_SECONDS
        assert desk.status() == before

    play(scenario)


def test_a_pod_cannot_say_that_all_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        await desk.passes()
        running(api, desk)
        with saying(monkeypatch, api, '{"stage": "Succeeded", "step": 1, "of": 1}'):
            await desk.passes()
        assert desk.status()["phase"] != "Succeeded"
        assert desk.condition("Succeeded")["status"] == "Unknown"

    play(scenario)


def test_a_pod_that_no_job_of_ours_made_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger could point the operator at any address of the cluster, with a pod's status of his own."""

    async def scenario(api: FakeApi, desk: Desk) -> None:
        await desk.passes()
        pod = builders.pod(desk.job(), state=builders.RUNNING, podIP="127.0.0.1")
        pod["metadata"]["ownerReferences"] = [{"kind": "Job", "uid": "forged", "controller": True}]
        api.put(POD, "theirs", metadata=pod["metadata"] | {"name": "theirs"}, status=pod["status"])
        with saying(monkeypatch, api, '{"stage": "Training"}'):
            await desk.passes()
        assert all(request.path != "/progress" for request in api.requests)

    play(scenario)


# --- secrets


def test_no_secret_is_ever_read() -> None:
    async def scenario(api: FakeApi, desk: Desk) -> None:
        await desk.passes()
        end(api, desk.job(), GOOD, builders.COMPLETE)
        await desk.passes()
        assert all("secrets" not in request.path for request in api.requests)
        volumes = desk.job()["spec"]["template"]["spec"]["volumes"]
        assert {"secretName": "hub-token", "defaultMode": 0o440} in [volume.get("secret") for volume in volumes]

    base = {"uri": "oci://registry.example/slm/base:v1", "credentials": {"secret": "hub-token"}}
    play(scenario, spec={**copy.deepcopy(SPEC), "base": base})
