"""Who we are: tokens that change, token files and plugins that fail, and nothing of it in any text."""

import asyncio
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from slmops.cluster import connection as module
from slmops.cluster.client import Cluster
from slmops.cluster.connection import TOKEN_MAX_AGE, Connection, ConnectionConfigError, from_kubeconfig
from slmops.cluster.errors import Unavailable
from slmops.cluster.objects import JOB
from tests.unit import virtualnet
from tests.unit.cluster.credentials import CANARY, header, kubeconfig
from tests.unit.fakeapi import FakeApi, eventually

# --- tokens


def test_a_token_file_is_read_again_once_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock))
    (tmp_path / "token").write_text("old\n")
    found = from_kubeconfig([kubeconfig(tmp_path, {"tokenFile": "token"})])

    async def main() -> None:
        nonlocal clock
        assert await header(found) == "Bearer old"
        (tmp_path / "token").write_text("new\n")
        clock += TOKEN_MAX_AGE
        assert await header(found) == "Bearer old"
        clock += 1
        assert await header(found) == "Bearer new"

    asyncio.run(main())


def against(tmp_path: Path, token: str) -> Any:
    """A server that wants a token, and a connection that has it in a file."""
    (tmp_path / "token").write_text(token)
    api = FakeApi()
    api.token = token
    return api, tmp_path / "token"


def connect(api: FakeApi, token: Path) -> Connection:
    return from_kubeconfig([kubeconfig(token.parent, {"tokenFile": token.name}, {"server": api.url})])


def test_a_rotated_token_is_taken_up_at_the_first_refusal(tmp_path: Path) -> None:
    async def main() -> None:
        api, token = against(tmp_path, "old")
        async with api, Cluster(connect(api, token)) as cluster:
            api.put(JOB, "job")
            assert await cluster.get(JOB, "farm", "job") is not None
            api.token = "new"
            token.write_text("new")
            assert await cluster.get(JOB, "farm", "job") is not None
            assert [request.headers["Authorization"] for request in api.requests] == [
                "Bearer old",
                "Bearer old",
                "Bearer new",
            ]

    virtualnet.run(main())


def test_the_body_of_a_refused_write_is_sent_again(tmp_path: Path) -> None:
    async def main() -> None:
        api, token = against(tmp_path, "old")
        async with api, Cluster(connect(api, token)) as cluster:
            await cluster.get(JOB, "farm", "job")
            api.token = "new"
            token.write_text("new")
            body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job", "namespace": "farm"}}
            await cluster.create(body)
            assert api.get(JOB, "job")["metadata"]["name"] == "job"

    virtualnet.run(main())


def test_a_token_that_stays_refused_is_tried_twice_and_no_more(tmp_path: Path) -> None:
    async def main() -> None:
        api, token = against(tmp_path, "right")
        async with api, Cluster(connect(api, token)) as cluster:
            token.write_text("wrong")
            with pytest.raises(Unavailable) as caught:
                await cluster.get(JOB, "farm", "job")
            assert caught.value.status == 401
            assert len(api.requests) == 2

    virtualnet.run(main())


@pytest.mark.parametrize("content", [None, b"", b"\n", b"two words", b"two\nlines", b"\xff\xfe", "tökèn".encode()])
def test_a_bad_token_file_is_an_outage_that_ends_with_the_next_good_one(tmp_path: Path, content: bytes | None) -> None:
    async def main() -> None:
        api, token = against(tmp_path, CANARY)
        async with api, Cluster(connect(api, token)) as cluster:
            token.unlink()
            if content is not None:
                token.write_bytes(content)
            with pytest.raises(Unavailable, match=r"no credentials: .*token"):
                await cluster.list(JOB)
            token.write_text(CANARY)
            assert await cluster.list(JOB) == []

    virtualnet.run(main())


def test_a_token_is_in_no_text_about_the_connection(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> list[str]:
        api, token = against(tmp_path, CANARY)
        async with api:
            connection = connect(api, token)
            texts = [repr(connection), str(connection), repr(connection.authorization)]
            async with Cluster(connection) as cluster:
                for code in (200, 401, 403, 500, 307):
                    api.faults = [lambda request, code=code: web.Response(status=code, text="x")]
                    with pytest.raises(Exception) as caught:  # noqa: PT011
                        await cluster.list(JOB)
                    texts += [str(caught.value), repr(caught.value)]
                texts.append(repr(cluster))
        async with Cluster(connection) as cluster:
            with pytest.raises(Unavailable) as lost:
                await cluster.list(JOB)
            texts.append(repr(lost.value))
        return texts

    with caplog.at_level(logging.DEBUG):
        texts = virtualnet.run(main())
    assert len(texts) == 15
    assert all(CANARY not in text for text in [*texts, caplog.text])


# --- credential plugins

PLUGIN = """#!/bin/sh
echo run >> "$0.runs"
cat "$0.answer"
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "plugin"
    path.write_text(PLUGIN)
    path.chmod(0o700)
    return path


def says(plugin: Path, answer: str, script: str = PLUGIN) -> None:
    plugin.write_text(script)
    Path(f"{plugin}.answer").write_text(answer)


def runs(plugin: Path) -> int:
    return len(Path(f"{plugin}.runs").read_text().splitlines())


async def test_a_plugins_token_is_used_until_it_ends_or_is_refused(tmp_path: Path, plugin: Path) -> None:
    found = from_kubeconfig([kubeconfig(tmp_path, {"exec": {"command": "./plugin"}})])
    says(plugin, '{"status": {"token": "one", "expirationTimestamp": "2099-01-01T00:00:00Z"}}')
    assert [await header(found), await header(found)] == ["Bearer one", "Bearer one"]
    assert runs(plugin) == 1
    says(plugin, '{"status": {"token": "two", "expirationTimestamp": "2001-01-01T00:00:00Z"}}')
    assert await header(found, renew=True) == "Bearer two"
    says(plugin, '{"status": {"token": "three"}}')
    assert await header(found) == "Bearer three", "the second was over"
    assert runs(plugin) == 3


def runs_still(plugin: Path) -> bool:
    try:
        pid = Path(f"{plugin}.pid").read_text().strip()
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    "answer",
    ["", "[]", "{}", "no JSON " + CANARY, '{"status": []}', '{"status": {"token": 5}}', '{"status": {"token": ""}}',
     '{"status": {"token": "' + CANARY + '", "expirationTimestamp": "soon"}}'],
)  # fmt: skip
async def test_a_plugin_that_gives_no_token_is_named_and_tried_again(tmp_path: Path, plugin: Path, answer: str) -> None:
    found = from_kubeconfig([kubeconfig(tmp_path, {"exec": {"command": "./plugin", "installHint": "get it"}})])
    says(plugin, answer)
    with pytest.raises(ConnectionConfigError, match="plugin") as caught:
        await header(found)
    assert CANARY not in str(caught.value)
    says(plugin, '{"status": {"token": "one"}}')
    assert await header(found) == "Bearer one"


async def test_a_plugin_that_is_not_there_comes_with_its_hint(tmp_path: Path) -> None:
    user = {"exec": {"command": "./absent", "installHint": "install it from the platform's page"}}
    with pytest.raises(ConnectionConfigError, match="install it from the platform's page"):
        await header(from_kubeconfig([kubeconfig(tmp_path, user)]))


async def test_a_plugin_that_hangs_is_given_up_and_ended(
    tmp_path: Path, plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXEC_TIMEOUT", 0.05)
    says(plugin, "", script='#!/bin/sh\necho $$ > "$0.pid"\nexec sleep 1000\n')
    with pytest.raises(ConnectionConfigError, match="TimeoutError"):
        await header(from_kubeconfig([kubeconfig(tmp_path, {"exec": {"command": "./plugin"}})]))
    await eventually(lambda: not runs_still(plugin))
