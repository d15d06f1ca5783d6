"""Requests to the API server: what is sent, whose objects are left alone, and which failure is which."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tests.unit import virtualnet
from tests.unit.fakeapi import FakeApi, Request, abort, broken, hang, status

from slmops.cluster.client import PAGE, Cluster
from slmops.cluster.errors import (
    ClusterError,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    NotFound,
    NotLeading,
    NotOurs,
    Unavailable,
)
from slmops.cluster.objects import CONFIG_MAP, EVENT, FINE_TUNE, JOB, LEASE, NODE, POD, Manifest

Scenario = Callable[[FakeApi, Cluster], Awaitable[Any]]


def play(scenario: Scenario, **options: Any) -> Any:
    async def main() -> Any:
        async with FakeApi() as api, Cluster(api.connection(), **options) as cluster:
            return await scenario(api, cluster)

    return virtualnet.run(main())


def child(name: str = "job", owner: str = "mine", **fields: Any) -> Manifest:
    owners = [{"apiVersion": "slmops.dev/v1alpha1", "kind": "FineTune", "name": "a", "uid": owner, "controller": True}]
    metadata = {"name": name, "namespace": "farm", "ownerReferences": owners}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"suspend": False}, **fields}


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
        assert (request.method, request.path) == ("PATCH", "/apis/batch/v1/namespaces/farm/jobs/job")
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


def test_an_object_without_owner_is_a_strangers() -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        api.put(JOB, "job", spec={"suspend": True}, metadata={"labels": {"app.kubernetes.io/managed-by": "slmops"}})
        with pytest.raises(NotOurs):
            await cluster.apply(child())
        assert api.writes() == []

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


def test_a_status_is_applied_to_the_subresource_alone() -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        live = api.put(FINE_TUNE, "a", spec={"x": 1}, metadata={"labels": {"team": "blue"}})
        await cluster.apply_status({**live, "spec": {"x": 2}, "status": {"phase": "Ready", "inputs": {}, "gates": []}})
        request = only_write(api)
        assert request.path == "/apis/slmops.dev/v1alpha1/namespaces/farm/finetunes/a/status"
        assert request.query == {"fieldManager": "slmops-status", "force": "true"}
        assert request.body == {
            "apiVersion": "slmops.dev/v1alpha1",
            "kind": "FineTune",
            "metadata": {"name": "a", "namespace": "farm", "uid": live["metadata"]["uid"]},
            "status": {"phase": "Ready"},
        }
        assert api.get(FINE_TUNE, "a")["spec"] == {"x": 1}

    play(scenario)


def test_a_status_never_hits_the_successor_of_its_object() -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        live = api.put(FINE_TUNE, "a", spec={})
        api.drop(FINE_TUNE, "a")
        with pytest.raises(NotFound):
            await cluster.apply_status({**live, "status": {"phase": "Ready"}})
        api.put(FINE_TUNE, "a", spec={})
        with pytest.raises(Conflict):
            await cluster.apply_status({**live, "status": {"phase": "Ready"}})
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


# --- who may write

WRITES: dict[str, Callable[[Cluster, Manifest], Awaitable[Any]]] = {
    "apply": lambda cluster, live: cluster.apply(child(), known=live),
    "apply_status": lambda cluster, live: cluster.apply_status({**live, "status": {"active": 1}}),
    "delete": lambda cluster, live: cluster.delete(JOB, "farm", "job", live["metadata"]["uid"]),
    "patch_pod_condition": lambda cluster, live: cluster.patch_pod_condition("farm", "p", "u", {"type": "x"}),
    "annotate": lambda cluster, live: cluster.annotate(live, {"a": "b"}),
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


# --- failures, told apart


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (400, Invalid),
        (401, Unavailable),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (410, Expired),
        (415, Invalid),
        (422, Invalid),
        (429, Unavailable),
        (500, Unavailable),
        (503, Unavailable),
        (504, Unavailable),
    ],
)
def test_each_answer_has_its_error(code: int, expected: type[ClusterError]) -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        api.faults.append(lambda request: status(code, "Why", "in words"))
        with pytest.raises(expected) as caught:
            await cluster.create(child())
        error = caught.value
        assert type(error) is expected
        assert (error.status, error.reason, error.message) == (code, "Why", "in words")

    play(scenario)


@pytest.mark.parametrize("fault", [hang, broken])
def test_no_answer_is_no_statement_about_the_object(fault: Any) -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> float:
        api.faults.append(fault)
        began = virtualnet.now()
        with pytest.raises(Unavailable) as caught:
            await cluster.get(JOB, "farm", "job")
        assert caught.value.status == 0
        assert caught.value.message.startswith("get jobs: ")
        return virtualnet.now() - began

    seconds = play(scenario)
    assert seconds == (pytest.approx(10, abs=0.1) if fault is hang else pytest.approx(0, abs=0.1))


def test_a_long_list_has_a_minute() -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        async def slow(request: web.Request) -> None:
            await asyncio.sleep(50)

        api.faults.append(slow)
        assert await cluster.list(JOB) == []

    play(scenario)


def test_a_server_that_is_not_there_is_unavailable() -> None:
    async def main() -> None:
        async with FakeApi() as api:
            connection = api.connection()
        async with Cluster(connection) as cluster:
            with pytest.raises(Unavailable, match="get jobs: ClientConnectorError"):
                await cluster.get(JOB, "farm", "job")

    virtualnet.run(main())


def test_a_write_that_went_through_although_the_connection_broke_can_be_repeated() -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        api.cut_after = lambda request: request.method == "PATCH"
        with pytest.raises(Unavailable):
            await cluster.apply(child())
        first = api.get(JOB, "job")
        api.cut_after = lambda request: False
        await cluster.apply(child())
        assert api.get(JOB, "job") == first

    play(scenario)


def test_an_answer_that_breaks_off_is_no_answer() -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        async def half(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Length": "1000"})
            await response.prepare(request)
            await response.write(b'{"metadata": {')
            abort(request)
            return response

        api.faults.append(half)
        with pytest.raises(Unavailable):
            await cluster.get(JOB, "farm", "job")

    play(scenario)


@pytest.mark.parametrize("code", [200, 502])
def test_a_proxys_page_is_no_answer_of_the_api_server(code: int) -> None:
    page = "<html>" + "x" * 100_000

    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        api.faults.append(lambda request: web.Response(status=code, text=page))
        with pytest.raises(Unavailable) as caught:
            await cluster.get(JOB, "farm", "job")
        assert caught.value.status == code
        assert len(caught.value.message) <= 256

    play(scenario)


@pytest.mark.parametrize("body", [[], "text", {"message": {"a": 1}, "reason": 5, "details": ["x"]}, {"details": {}}])
def test_an_error_of_another_shape_is_still_the_error_of_its_status(body: Any) -> None:
    """Proxies and aggregated servers have their own ideas of an error's body."""

    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        api.faults.append(lambda request: web.json_response(body, status=422))
        with pytest.raises(Invalid) as caught:
            await cluster.create(child())
        assert isinstance(caught.value.message, str)
        assert caught.value.causes == ()

    play(scenario)


def test_a_refused_manifest_names_the_fields() -> None:
    causes = [{"field": "spec.backoffLimit", "message": "must be positive"}, {"reason": "no field"}]

    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        api.faults.append(lambda request: status(422, "Invalid", "Job is invalid", causes=causes))
        with pytest.raises(Invalid) as caught:
            await cluster.create(child())
        assert caught.value.causes == (("spec.backoffLimit", "must be positive"), ("", ""))

    play(scenario)


@pytest.mark.parametrize(
    ("header", "details", "expected"),
    [
        ("7", {}, 7.0),
        (None, {"retryAfterSeconds": 3}, 3.0),
        ("7", {"retryAfterSeconds": 3}, 7.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", {}, None),
        ("999999", {}, 300.0),
        ("inf", {}, 300.0),
        ("nan", {}, None),
        ("-5", {}, None),
        ("0", {}, None),
        (None, {}, None),
    ],
)
@pytest.mark.parametrize("code", [429, 503])
def test_the_server_says_how_long_to_wait(code: int, header: str | None, details: Any, expected: float | None) -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        def busy(request: web.Request) -> web.Response:
            answer = status(code, "TooManyRequests", **details)
            if header:
                answer.headers["Retry-After"] = header
            return answer

        api.faults.append(busy)
        with pytest.raises(Unavailable) as caught:
            await cluster.get(JOB, "farm", "job")
        assert caught.value.retry_after == expected

    play(scenario)


def test_every_request_is_counted_with_its_code() -> None:
    seen: list[tuple[str, str, int]] = []

    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        await cluster.apply(child())
        await cluster.list(JOB)
        await cluster.apply_status({**api.put(FINE_TUNE, "a"), "status": {"phase": "x"}})
        api.faults.append(broken)
        with pytest.raises(Unavailable):
            await cluster.create(child())

    play(scenario, observe=lambda *seen_: seen.append(seen_))
    assert seen == [
        ("get", "jobs", 404),
        ("apply", "jobs", 201),
        ("list", "jobs", 200),
        ("apply", "finetunes/status", 200),
        ("create", "jobs", 0),
    ]


def test_credentials_do_not_follow_a_redirect() -> None:
    """An aggregated API server may answer with a redirect to anywhere (CVE-2022-3172)."""

    async def main() -> None:
        async with FakeApi() as elsewhere, FakeApi() as api:
            api.token = "canary"
            elsewhere.put(JOB, "job")

            def away(request: web.Request) -> web.Response:
                return web.Response(status=307, headers={"Location": elsewhere.url + request.path})

            api.faults.append(away)
            async with Cluster(api.connection()) as cluster:
                with pytest.raises(Unavailable):
                    await cluster.get(JOB, "farm", "job")
            async with api.connection().session() as session, session.get(f"{api.url}/api") as answer:
                assert answer.status == 200  # kopf's requests do follow
            assert all("canary" not in str(request.headers) for request in elsewhere.requests)

    virtualnet.run(main())


# --- lists


def test_a_long_list_comes_in_pages() -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        labels = {"app.kubernetes.io/managed-by": "slmops"}
        for number in range(2 * PAGE + 1):
            api.put(JOB, f"j{number:04}", metadata={"labels": labels})
        api.put(JOB, "stranger")
        pages = [(page, version) async for page, version in cluster.pages(JOB, labels=labels)]
        assert [len(page) for page, _ in pages] == [PAGE, PAGE, 1]
        assert {version for _, version in pages} == {str(api.version)}
        names = [body["metadata"]["name"] for page, _ in pages for body in page]
        assert names == [f"j{number:04}" for number in range(2 * PAGE + 1)]
        assert {(body["apiVersion"], body["kind"]) for page, _ in pages for body in page} == {("batch/v1", "Job")}
        assert {request.query["limit"] for request in api.requests} == {str(PAGE)}
        assert len(await cluster.list(JOB)) == 2 * PAGE + 2

    play(scenario)


def test_a_list_of_one_namespace_has_only_its_objects() -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        api.put(JOB, "a", namespace="one")
        api.put(JOB, "b", namespace="two")
        assert [body["metadata"]["name"] for body in await cluster.list(JOB, "two")] == ["b"]
        api.put(NODE, "n")
        assert [body["metadata"]["name"] for body in await cluster.list(NODE)] == ["n"]

    play(scenario)


def test_an_empty_list_may_have_null_items() -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        body = {"metadata": {"resourceVersion": "7", "continue": ""}, "items": None}
        api.faults.append(lambda request: web.json_response(body))
        assert [page async for page in cluster.pages(JOB)] == [([], "7")]

    play(scenario)


def test_a_list_that_took_too_long_is_expired_and_not_short() -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        for number in range(PAGE + 1):
            api.put(JOB, f"j{number}")
        api.faults.append(lambda request: status(410, "Expired") if "continue" in request.query else None)
        with pytest.raises(Expired):
            await cluster.list(JOB)

    play(scenario)


@pytest.mark.parametrize(("gvk", "expected"), [(FINE_TUNE, True), (CONFIG_MAP, True), (POD, False), (LEASE, False)])
def test_a_kind_is_served_or_not(gvk: Any, expected: bool) -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        for missing in (POD, LEASE):  # a kind of a group that is served, and a whole group
            api.served.remove(missing)
        assert await cluster.served(gvk) is expected
        api.refuse(503)
        with pytest.raises(Unavailable):
            await cluster.served(gvk)

    play(scenario)


# --- what pods say

Serve = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


def ask(monkeypatch: pytest.MonkeyPatch, serve: Serve, times: int = 1) -> tuple[Manifest | None, float]:
    """What the client makes of a pod that answers like this, and how long it took."""

    async def main() -> tuple[Manifest | None, float]:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await serve(await reader.readuntil(b"\r\n\r\n"), writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        monkeypatch.setattr("slmops.cluster.client.PROGRESS_PORT", server.sockets[0].getsockname()[1])
        async with FakeApi() as api, Cluster(api.connection()) as cluster:
            began = virtualnet.now()
            for _ in range(times):
                answer = await cluster.progress({"status": {"podIP": "127.0.0.1"}})
            taken = virtualnet.now() - began
        server.close()
        return answer, taken

    return virtualnet.run(main())


def answering(body: bytes, *headers: str, code: str = "200 OK") -> Serve:
    async def serve(request: bytes, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {code}", f"Content-Length: {len(body)}", *headers, "", ""]
        writer.write("\r\n".join(lines).encode() + body)
        await writer.drain()

    return serve


async def endless(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"[" * 65536)
        await writer.drain()


async def dripping(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    while True:
        await asyncio.sleep(0.3)
        writer.write(b" ")
        await writer.drain()


async def silent(request: bytes, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


async def endless_headers(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(100_000):
        writer.write(b"X-%d: y\r\n" % number)
        await writer.drain()


def test_a_pods_progress_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    answer, _ = ask(monkeypatch, answering(b'{"stage": "Training", "step": 3}'))
    assert answer == {"stage": "Training", "step": 3}


HOSTILE = {
    "an error": answering(b"{}", code="500 Oops"),
    "a redirect": answering(b"{}", "Location: http://169.254.169.254/", code="302 Found"),
    "too long": answering(b'{"a": "' + b"x" * 20_000 + b'"}'),
    "endless": endless,
    "dripping": dripping,
    "silent": silent,
    "endless headers": endless_headers,
    "a list": answering(b"[1]"),
    "a text": answering(b'"stage"'),
    "no JSON": answering(b"stage: Training"),
    "nothing": answering(b""),
    "not a number": answering(b'{"loss": NaN}'),
    "an endless number": answering(b'{"step": ' + b"9" * 5000 + b"}"),
    "deep": answering(b'{"a":' * 3000 + b"1" + b"}" * 3000),
    "no UTF-8": answering(b'{"stage": "\xff\xfe"}'),
    "packed": answering(b"\x1f\x8b\x08\x00", "Content-Encoding: gzip"),
    "half": answering(b'{"stage": "Tra'),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_pod_says_nothing_and_holds_nobody_up(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, seconds = ask(monkeypatch, HOSTILE[what])
    assert answer is None
    assert seconds <= 1.1


def test_a_pod_gets_no_credentials_and_its_cookies_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[bytes] = []

    async def curious(request: bytes, writer: asyncio.StreamWriter) -> None:
        requests.append(request.lower())
        await answering(b"{}", "Set-Cookie: a=b", 'WWW-Authenticate: Basic realm="x"')(request, writer)

    monkeypatch.setattr(FakeApi, "token", "canary", raising=False)
    ask(monkeypatch, curious, times=2)
    assert len(requests) == 2
    for request in requests:
        assert request.startswith(b"get /progress http/1.1\r\n")
        assert b"canary" not in request
        assert b"authorization" not in request
        assert b"cookie" not in request


@pytest.mark.parametrize("address", [None, "", "metadata.internal", "127.0.0.1/x", "127.0.0.1:80", "a@127.0.0.1"])
def test_only_an_address_is_asked(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    async def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("a request was made")

    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        monkeypatch.setattr(aiohttp.ClientSession, "_request", forbidden)
        assert await cluster.progress({"status": {"podIP": address}}) is None
        assert await cluster.progress({}) is None

    play(scenario)


def test_a_pod_may_have_an_address_of_version_six(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    async def note(self: aiohttp.ClientSession, method: str, url: str, **_: Any) -> None:
        seen.append(url)
        raise aiohttp.ClientConnectionError

    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        monkeypatch.setattr(aiohttp.ClientSession, "_request", note)
        assert await cluster.progress({"status": {"podIP": "fd00::7"}}) is None

    play(scenario)
    assert seen == ["http://[fd00::7]:9090/progress"]
