"""What the API server answers, or does not: each failure told from the others, and lists whole or not at all."""

import asyncio
from typing import Any

import pytest
from aiohttp import web

from slmops.cluster.client import PAGE, Cluster
from slmops.cluster.errors import (
    ClusterError,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    NotFound,
    Unavailable,
)
from slmops.cluster.objects import CONFIG_MAP, FINE_TUNE, JOB, LEASE, NODE, POD
from tests.unit import virtualnet
from tests.unit.cluster.against import child, play
from tests.unit.fakeapi import FakeApi, abort, broken, hang, status

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
        await cluster.set_status({**api.put(FINE_TUNE, "a"), "status": {"phase": "x"}})
        api.faults.append(broken)
        with pytest.raises(Unavailable):
            await cluster.create(child())

    play(scenario, observe=lambda *seen_: seen.append(seen_))
    assert seen == [
        ("get", "jobs", 404),
        ("apply", "jobs", 201),
        ("list", "jobs", 200),
        ("patch", "finetunes/status", 200),
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
