"""What a pod says of its progress: untrusted, bounded in size and in time, and asked for without credentials."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from slmops.cluster.client import Cluster
from slmops.cluster.objects import Manifest
from tests.unit import virtualnet
from tests.unit.cluster.against import play
from tests.unit.fakeapi import FakeApi

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


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses that are asked; none of them is there."""
    urls: list[str] = []

    async def note(self: aiohttp.ClientSession, method: str, url: str, **_: Any) -> None:
        urls.append(url)
        raise aiohttp.ClientConnectionError

    monkeypatch.setattr(aiohttp.ClientSession, "_request", note)
    return urls


def test_a_server_is_asked_on_its_own_port_for_so_long(seen: list[str]) -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        assert await cluster.monitoring({"status": {"podIP": "10.0.0.7"}}, 8123, 600) is None

    play(scenario)
    assert seen == ["http://10.0.0.7:8123/monitoring?seconds=600"]


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
    "deep": answering(b'{"a":' * 2000 + b"1" + b"}" * 2000),
    "no UTF-8": answering(b'{"stage": "\xff\xfe"}'),
    "packed": answering(gzip.compress(b'{"stage": "' + b"x" * 10**6 + b'"}'), "Content-Encoding: gzip"),
    "packed though small": answering(gzip.compress(b"{}"), "Content-Encoding: gzip"),
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


def test_a_pod_may_have_an_address_of_version_six(seen: list[str]) -> None:
    async def scenario(api: FakeApi, cluster: Cluster) -> None:
        assert await cluster.progress({"status": {"podIP": "fd00::7"}}) is None

    play(scenario)
    assert seen == ["http://[fd00::7]:9090/progress"]
