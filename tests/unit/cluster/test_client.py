"""Writing: what is sent, whose objects are left alone, and who may write at all."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from slmops.cluster.client import Cluster
from slmops.cluster.errors import (
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    NotLeading,
    NotOurs,
)
from slmops.cluster.objects import EVENT, FINE_TUNE, JOB, LEASE, POD, Manifest
from tests.unit.builders import NAMESPACE
from tests.unit.cluster.against import child, play
from tests.unit.fakeapi import FakeApi, Request, status


def put(api: FakeApi, manifest: Manifest) -> Manifest:
    metadata = manifest["metadata"]
    rest = {key: value for key, value in manifest.items() if key not in ("apiVersion", "kind", "metadata")}
    return api.put(JOB, metadata["name"], metadata=metadata, **rest)


def only_write(api: FakeApi) -> Request:
    (request,) = api.writes()
    return request


# --- applying children


def test_a_child_is_applied_with_our_field_manager() -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        answer = await cluster.apply(child())
        request = only_write(api)
        assert (request.method, request.path) == ("PATCH", f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/job")
        assert request.query == {"fieldManager": "slmops", "force": "true"}
        assert request.headers["Content-Type"] == "application/apply-patch+yaml"
        assert answer["metadata"]["uid"] == api.get(JOB, "job")["metadata"]["uid"]

    play(scenario)


def test_applying_again_keeps_what_others_set_and_drops_what_we_do_not_set_any_more() -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        await cluster.apply(child(spec={"suspend": False, "backoffLimit": 2}))
        api.put(JOB, "job", metadata={"labels": {"team": "blue"}}, status={"active": 1})
        await cluster.apply(child(spec={"suspend": False}))
        live = api.get(JOB, "job")
        assert live["metadata"]["labels"] == {"team": "blue"}
        assert live["status"] == {"active": 1}
        assert live["spec"] == {"suspend": False}

    play(scenario)


@pytest.mark.parametrize("cached", [False, True])
def test_a_strangers_object_of_the_childs_name_is_left_alone(cached: bool) -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        stranger = put(api, child(owner="somebody else's"))
        with pytest.raises(NotOurs, match="Job job exists and belongs to somebody else; delete or rename it"):
            await cluster.apply(child(), known=stranger if cached else None)
        assert api.writes() == []
        assert api.get(JOB, "job") == stranger

    play(scenario)


@pytest.mark.parametrize(
    "owners", [[], [{"uid": "mine"}], [{"uid": "mine", "controller": False}, {"uid": "other", "controller": True}]]
)
def test_labels_and_owners_that_anybody_can_write_make_no_child(owners: list[Manifest]) -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        metadata = {"labels": {"app.kubernetes.io/managed-by": "slmops"}, "ownerReferences": owners}
        api.put(JOB, "job", spec={"suspend": True}, metadata=metadata)
        for attempt in (cluster.apply, cluster.make):
            with pytest.raises(NotOurs):
                await attempt(child())
        assert api.get(JOB, "job")["spec"] == {"suspend": True}

    play(scenario)


def test_a_child_that_was_replaced_behind_our_back_is_not_overwritten() -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        known = put(api, child())
        api.drop(JOB, "job")
        stranger = put(api, child(owner="somebody else's"))
        with pytest.raises(Conflict):
            await cluster.apply(child(spec={"suspend": True}), known=known)
        assert api.get(JOB, "job") == stranger

    play(scenario)


def test_a_stranger_that_comes_between_our_read_and_our_write_is_not_overwritten() -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        put(api, child())

        def swap(request: web.Request) -> None:
            if request.method == "PATCH":
                api.drop(JOB, "job")
                put(api, child(owner="somebody else's", spec={"theirs": True}))

        api.faults.append(swap)
        with pytest.raises(Conflict):
            await cluster.apply(child(spec={"suspend": True}))
        assert api.get(JOB, "job")["spec"] == {"theirs": True}

    play(scenario)


def test_a_known_child_is_not_read_again() -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        await cluster.apply(child(spec={"suspend": True}), known=put(api, child()))
        assert [request.method for request in api.requests] == ["PATCH"]

    play(scenario)


def test_a_child_that_is_never_changed_is_made_with_one_request() -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        made, created = await cluster.make(child())
        assert created
        assert made == api.get(JOB, "job")
        (request,) = api.requests
        assert (request.method, request.path) == ("POST", f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs")
        assert request.query == {"fieldManager": "slmops"}
        again, created = await cluster.make(child())
        assert not created
        assert again == made

    play(scenario)


def test_a_child_without_owner_is_never_sent() -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        manifest = child()
        manifest["metadata"]["ownerReferences"] = [{"kind": "FineTune", "name": "a"}]
        with pytest.raises(ValueError, match="Job job has no owner reference with a UID"):
            await cluster.apply(manifest)
        assert api.requests == []

    play(scenario)


# --- deleting, status, conditions, annotations


def test_exactly_the_object_that_was_meant_is_deleted() -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        uid = put(api, child())["metadata"]["uid"]
        await cluster.delete(JOB, "farm", "job", uid)
        assert api.all(JOB) == []
        assert only_write(api).body["preconditions"] == {"uid": uid}
        assert only_write(api).body["propagationPolicy"] == "Background"
        await cluster.delete(JOB, "farm", "job", uid)  # gone already
        put(api, child())
        await cluster.delete(JOB, "farm", "job", uid)  # created again since: another object
        assert len(api.all(JOB)) == 1

    play(scenario)


def test_a_deletion_that_is_refused_is_told() -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        uid = put(api, child())["metadata"]["uid"]
        api.refuse(403, method="DELETE")
        with pytest.raises(Forbidden):
            await cluster.delete(JOB, "farm", "job", uid)

    play(scenario)


def test_a_status_is_set_on_the_subresource_alone() -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        live = api.put(FINE_TUNE, "a", spec={"x": 1}, metadata={"labels": {"team": "blue"}})
        await cluster.set_status({**live, "spec": {"x": 2}, "status": {"phase": "Ready", "inputs": {}, "gates": []}})
        request = only_write(api)
        assert request.path == f"/apis/slmops.dev/v1alpha1/namespaces/{NAMESPACE}/finetunes/a/status"
        assert request.query == {"fieldManager": "slmops-status"}
        assert [(part["path"], part["value"]) for part in request.body] == [
            ("/metadata/uid", live["metadata"]["uid"]), ("/status", {"phase": "Ready"}),
        ]  # fmt: skip
        assert api.get(FINE_TUNE, "a")["spec"] == {"x": 1}

    play(scenario)


def test_what_somebody_else_wrote_into_a_status_is_taken_out() -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        live = api.put(FINE_TUNE, "a", status={"phase": "Succeeded", "artifact": {"reference": "evil"}})
        answer = await cluster.set_status({**live, "status": {"phase": "Pending", "inputs": {}}})
        assert answer["status"] == api.get(FINE_TUNE, "a")["status"] == {"phase": "Pending"}
        assert only_write(api)

    play(scenario)


def test_a_status_that_breaks_the_schema_is_told_as_such() -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        live = api.put(FINE_TUNE, "a")
        cause = {"field": "status.phase", "message": "must be of type string"}
        api.faults.append(lambda _: status(422, "Invalid", "the status is wrong", causes=[cause]))
        with pytest.raises(Invalid) as caught:
            await cluster.set_status({**live, "status": {"phase": 1}})
        assert caught.value.causes == (("status.phase", "must be of type string"),)

    play(scenario)


def test_a_status_never_hits_the_successor_of_its_object() -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        live = api.put(FINE_TUNE, "a", spec={})
        api.drop(FINE_TUNE, "a")
        with pytest.raises(NotFound):
            await cluster.set_status({**live, "status": {"phase": "Ready"}})
        api.put(FINE_TUNE, "a", spec={})
        with pytest.raises(NotFound):
            await cluster.set_status({**live, "status": {"phase": "Ready"}})
        assert "status" not in api.get(FINE_TUNE, "a")

    play(scenario)


def test_a_pod_condition_is_set_beside_the_others() -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        ready = {"type": "Ready", "status": "True"}
        uid = api.put(POD, "p", status={"phase": "Running", "conditions": [ready]})["metadata"]["uid"]
        ours = {"type": "slmops.dev/serving", "status": "True"}
        await cluster.patch_pod_condition("farm", "p", uid, ours)
        assert api.get(POD, "p")["status"] == {"phase": "Running", "conditions": [ready, ours]}
        assert only_write(api).path.endswith("/pods/p/status")
        with pytest.raises(Conflict):
            await cluster.patch_pod_condition("farm", "p", "another", {**ours, "status": "False"})

    play(scenario)


def test_annotating_touches_nothing_else() -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        stale = put(api, child())
        api.put(JOB, "job", metadata={"annotations": {"theirs": "1"}}, spec={"suspend": True})
        await cluster.annotate(stale, {"slmops.dev/report": "{}"})
        live = api.get(JOB, "job")
        assert live["metadata"]["annotations"] == {"theirs": "1", "slmops.dev/report": "{}"}
        assert live["spec"] == {"suspend": True}

    play(scenario)


def test_what_is_not_ours_is_annotated_only_as_it_was_read_and_under_a_name_of_its_own() -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        read = put(api, child())
        await cluster.annotate_unchanged(read, {"slmops.dev/retrain": "now"}, "slmops-monitoring")
        request = only_write(api)
        assert request.query == {"fieldManager": "slmops-monitoring"}
        assert set(request.body) == {"metadata"}
        assert api.get(JOB, "job")["metadata"]["annotations"] == {"slmops.dev/retrain": "now"}
        with pytest.raises(Conflict):
            await cluster.annotate_unchanged(read, {"slmops.dev/retrain": "again"}, "slmops-monitoring")
        assert api.get(JOB, "job")["metadata"]["annotations"] == {"slmops.dev/retrain": "now"}

    play(scenario)


# --- who may write

WRITES: dict[str, Callable[[Cluster, Manifest], Awaitable[Any]]] = {
    "apply": lambda cluster, live: cluster.apply(child(), known=live),
    "make": lambda cluster, live: cluster.make(child()),
    "set_status": lambda cluster, live: cluster.set_status({**live, "status": {"active": 1}}),
    "delete": lambda cluster, live: cluster.delete(JOB, "farm", "job", live["metadata"]["uid"]),
    "patch_pod_condition": lambda cluster, live: cluster.patch_pod_condition("farm", "p", "u", {"type": "x"}),
    "annotate": lambda cluster, live: cluster.annotate(live, {"a": "b"}),
    "annotate_unchanged": lambda cluster, live: cluster.annotate_unchanged(live, {"a": "b"}, "x"),
}


@pytest.mark.parametrize("write", WRITES)
def test_nothing_is_written_once_the_lease_is_lost(write: str) -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        live = put(api, child())
        with pytest.raises(NotLeading):
            await WRITES[write](cluster, live)
        assert api.requests == []
        assert await cluster.get(JOB, "farm", "job") == live, "reading goes on"

    play(scenario, may_write=lambda: False)


def test_a_lease_that_is_lost_between_read_and_write_is_noticed() -> None:
    leading = True

    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        def lose(request: web.Request) -> None:
            nonlocal leading
            leading = False

        api.faults.append(lose)
        with pytest.raises(NotLeading):
            await cluster.apply(child())
        assert [request.method for request in api.requests] == ["GET"]

    play(scenario, may_write=lambda: leading)


def test_the_election_itself_writes_without_the_lease() -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        lease = {"apiVersion": LEASE.api_version, "kind": "Lease", "metadata": {"name": "l", "namespace": "farm"}}
        live = await cluster.create(lease)
        await cluster.update({**live, "spec": {"holderIdentity": "me"}})
        with pytest.raises(Conflict):
            await cluster.update({**live, "spec": {"holderIdentity": "late"}})
        with pytest.raises(Conflict):
            await cluster.create(lease)
        assert api.get(LEASE, "l")["spec"] == {"holderIdentity": "me"}

    play(scenario, may_write=lambda: False)


def test_no_event_is_posted_once_the_lease_is_lost() -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        await cluster.record_event(api.put(FINE_TUNE, "a"), "Normal", "Trained", "well")
        await asyncio.sleep(60)
        assert api.all(EVENT) == []
        assert cluster.events_dropped == 1

    play(scenario, may_write=lambda: False)
