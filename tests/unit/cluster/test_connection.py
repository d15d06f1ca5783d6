"""Where the API server is and who we are: kubeconfigs, service accounts, tokens that change, and files that are bad."""

import asyncio
import base64
import logging
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from aiohttp import web
from tests.unit import virtualnet
from tests.unit.fakeapi import FakeApi

from slmops.cluster import connection as module
from slmops.cluster.client import Cluster
from slmops.cluster.connection import TOKEN_MAX_AGE, Connection, ConnectionConfigError, from_kubeconfig, load
from slmops.cluster.errors import Unavailable
from slmops.cluster.objects import JOB

CANARY = "canary-9f3b"
"""A secret. It must not be seen anywhere but in a request."""


def kubeconfig(
    folder: Path,
    user: dict[str, Any] | None = None,
    cluster: dict[str, Any] | None = None,
    context: dict[str, Any] | None = None,
    name: str = "config",
) -> Path:
    content = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", **(context or {})}}],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1", **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {}}],
    }
    path = folder / name
    path.write_text(yaml.safe_dump(content))
    return path


async def header(connection: Connection, renew: bool = False) -> str | None:
    return await connection.authorization(renew)


# --- which API server


def test_a_kubeconfig_names_server_namespace_and_token(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, {"token": CANARY}, {"server": "http://example:8080/"}, {"namespace": "models"})
    found = from_kubeconfig([path])
    assert (found.server, found.namespace) == ("http://example:8080", "models")
    assert asyncio.run(header(found)) == f"Bearer {CANARY}"


def test_a_user_may_have_a_password(tmp_path: Path) -> None:
    found = from_kubeconfig([kubeconfig(tmp_path, {"username": "me", "password": CANARY})])
    assert asyncio.run(header(found)) == "Basic " + base64.b64encode(f"me:{CANARY}".encode()).decode()


def test_no_user_is_no_header(tmp_path: Path) -> None:
    assert asyncio.run(header(from_kubeconfig([kubeconfig(tmp_path, context={"user": ""})]))) is None


def test_of_several_files_the_first_to_name_something_wins_and_paths_are_relative_to_their_file(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, token in ((first, "one"), (second, "two")):
        folder.mkdir()
        (folder / "token").write_text(token)
        kubeconfig(folder, {"tokenFile": "token"}, {"server": f"http://{token}"})
    found = from_kubeconfig([tmp_path / "absent", second / "config", first / "config"])
    assert found.server == "http://two"
    assert asyncio.run(header(found)) == "Bearer two"


def test_kubeconfig_goes_before_service_account_goes_before_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConnectionConfigError, match="set KUBECONFIG to a kubeconfig file, or run in a Pod"):
        load({}, tmp_path / "absent")
    (tmp_path / ".kube").mkdir()
    kubeconfig(tmp_path / ".kube", cluster={"server": "http://home"})
    assert load({}, tmp_path / "absent").server == "http://home"
    account = service_account(tmp_path, authority)
    environ = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}
    assert load(environ, account).server == "https://10.0.0.1:6443"
    environ["KUBECONFIG"] = str(kubeconfig(tmp_path, cluster={"server": "http://named"}))
    assert load(environ, account).server == "http://named"


def service_account(tmp_path: Path, authority: Path) -> Path:
    folder = tmp_path / "account"
    folder.mkdir()
    (folder / "token").write_text(CANARY)
    (folder / "namespace").write_text("slmops-system\n")
    (folder / "ca.crt").write_bytes((authority / "ca.crt").read_bytes())
    return folder


def test_a_pods_service_account_is_enough(tmp_path: Path, authority: Path) -> None:
    found = load({"KUBERNETES_SERVICE_HOST": "fd00::1"}, service_account(tmp_path, authority))
    assert found.server == "https://[fd00::1]:443"
    assert found.namespace == "slmops-system"
    assert asyncio.run(header(found)) == f"Bearer {CANARY}"
    assert isinstance(found.ssl, ssl.SSLContext)
    assert found.ssl.verify_mode is ssl.CERT_REQUIRED
    assert found.ssl.cert_store_stats()["x509_ca"] == 1, "the cluster's authority and no other"


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
            with pytest.raises(Unavailable, match="no credentials: .*token"):
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


def says(plugin: Path, answer: str) -> None:
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


@pytest.mark.parametrize(
    "answer",
    ["", "[]", "{}", "no JSON " + CANARY, '{"status": []}', '{"status": {"token": 5}}', '{"status": {"token": ""}}',
     '{"status": {"token": "' + CANARY + '", "expirationTimestamp": "soon"}}'],
)  # fmt: skip
async def test_a_plugin_that_gives_no_token_is_named_and_tried_again(
    tmp_path: Path, plugin: Path, answer: str
) -> None:
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
    plugin.write_text('#!/bin/sh\necho $$ > "$0.pid"\nexec sleep 1000\n')
    with pytest.raises(ConnectionConfigError, match="TimeoutError"):
        await header(from_kubeconfig([kubeconfig(tmp_path, {"exec": {"command": "./plugin"}})]))
    process = Path(f"/proc/{Path(f'{plugin}.pid').read_text().strip()}")
    async with asyncio.timeout(5):
        while process.exists() and " Z " not in process.joinpath("stat").read_text():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# --- bad files

BAD = {
    "not YAML": ("users: [", "not a kubeconfig"),
    "a text": (CANARY, "not a kubeconfig"),
    "a list": ("- a", "not a kubeconfig"),
    "empty": ("", "no current-context"),
    "a context that is a text": ("contexts: [{name: here, context: x}]", "not a kubeconfig"),
    "a nameless user": (f"users: [{{user: {{token: {CANARY}}}}}]", "not a kubeconfig"),
    "no context": ("current-context: here", "contexts has no entry 'here'"),
    "a strange context": ("current-context: [here]", "contexts has no entry"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_file_that_is_no_kubeconfig_is_named(tmp_path: Path, what: str) -> None:
    path, (content, expected) = tmp_path / "config", BAD[what]
    path.write_text(content)
    with pytest.raises(ConnectionConfigError, match=expected) as caught:
        from_kubeconfig([path])
    assert str(path) in str(caught.value)
    assert CANARY not in str(caught.value)


def test_a_binary_file_is_no_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "config").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConnectionConfigError, match="config: not a kubeconfig"):
        from_kubeconfig([tmp_path / "config"])


def test_an_absent_kubeconfig_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConnectionConfigError, match="absent: no such kubeconfig"):
        load({"KUBECONFIG": str(tmp_path / "absent")})


@pytest.mark.parametrize(
    ("user", "cluster", "expected"),
    [
        ({}, {"server": ""}, "cluster 'c' has no server"),
        ({}, {"certificate-authority-data": "%%%"}, "certificate-authority-data"),
        ({}, {"certificate-authority-data": 7}, "certificate-authority-data"),
        ({}, {"certificate-authority-data": base64.b64encode(b"no PEM").decode()}, "certificate-authority"),
        ({}, {"certificate-authority": "absent.crt"}, "certificate-authority cannot be used .*absent.crt"),
        ({"client-certificate-data": "QQ=="}, {}, "client-certificate and client-key go together"),
        ({"client-certificate-data": "QQ==", "client-key-data": "QQ=="}, {}, "client-certificate with client-key"),
        ({"client-certificate": "absent.crt"}, {}, "client-certificate cannot be used .*absent.crt"),
        ({"auth-provider": {"name": "gcp"}}, {}, "use an exec credential plugin"),
        ({"exec": {"args": [CANARY]}}, {}, "KeyError: 'command'"),
        ({"exec": "text"}, {}, "context 'here' cannot be used"),
        ({"token": f"{CANARY}\nX-Evil: 1"}, {}, "token: holds no token"),
        ({"token": 7}, {}, "context 'here' cannot be used"),
    ],
)
def test_bad_entries_are_named_without_what_is_in_them(
    tmp_path: Path, user: dict[str, Any], cluster: dict[str, Any], expected: str
) -> None:
    path = kubeconfig(tmp_path, user, {"server": "https://127.0.0.1:1", **cluster})
    with pytest.raises(ConnectionConfigError, match=expected) as caught:
        from_kubeconfig([path])
    assert str(path) in str(caught.value)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("missing", ["cluster", "user"])
def test_a_context_that_names_nothing_that_exists_is_refused(tmp_path: Path, missing: str) -> None:
    path = kubeconfig(tmp_path, context={missing: "elsewhere"})
    with pytest.raises(ConnectionConfigError, match=f"{missing}s has no entry 'elsewhere'"):
        from_kubeconfig([path])


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_service_account_without_a_usable_authority_is_named(
    tmp_path: Path, authority: Path, content: str | None
) -> None:
    folder = service_account(tmp_path, authority)
    (folder / "ca.crt").unlink()
    if content is not None:
        (folder / "ca.crt").write_text(content)
    with pytest.raises(ConnectionConfigError, match=r"ca\.crt"):
        load({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, folder)


# --- TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An authority, a server's certificate for the name `kubernetes`, and another authority."""
    folder = tmp_path_factory.mktemp("pki")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    for name in ("ca", "other"):
        openssl("req", "-x509", *new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.crt")
    openssl("req", *new[:-2], "-subj", "/CN=server", "-keyout", "server.key", "-out", "server.csr")
    (folder / "ext").write_text("subjectAltName=DNS:kubernetes\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-extfile", "ext", "-days", "2",
            "-out", "server.crt")  # fmt: skip
    yield folder


def over_tls(tmp_path: Path, authority: Path, **cluster: Any) -> list[Any]:
    """The requests that reach a server whose certificate is for the name `kubernetes`, when it is asked for a list."""

    async def main() -> list[Any]:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(authority / "server.crt", authority / "server.key")
        async with FakeApi(context) as api:
            path = kubeconfig(tmp_path, {"token": CANARY}, {"server": api.url, **cluster})
            async with Cluster(from_kubeconfig([path])) as client:
                try:
                    assert await client.list(JOB) == []
                except Unavailable as error:
                    assert api.requests == [], "the token was told to somebody"
                    raise
                return api.requests

    return virtualnet.run(main())


@pytest.mark.parametrize("form", ["file", "data"])
def test_a_server_is_known_by_its_authority_and_the_name_that_the_kubeconfig_gives(
    tmp_path: Path, authority: Path, form: str
) -> None:
    file = authority / "ca.crt"
    entry = {"certificate-authority": str(file)}
    if form == "data":
        entry = {"certificate-authority-data": base64.encodebytes(file.read_bytes()).decode()}
    assert len(over_tls(tmp_path, authority, **entry, **{"tls-server-name": "kubernetes"})) == 1


@pytest.mark.parametrize(
    ("authority_name", "name", "expected"),
    [
        ("other.crt", "kubernetes", "CERTIFICATE_VERIFY_FAILED"),
        ("ca.crt", "elsewhere", "elsewhere"),
        ("ca.crt", None, "127.0.0.1"),
    ],
)
def test_another_server_gets_no_request(
    tmp_path: Path, authority: Path, authority_name: str, name: str | None, expected: str
) -> None:
    entry = {"certificate-authority": str(authority / authority_name)}
    entry |= {"tls-server-name": name} if name else {}
    with pytest.raises(Unavailable, match=expected):
        over_tls(tmp_path, authority, **entry)


def test_verification_can_be_switched_off_as_in_kubectl(tmp_path: Path, authority: Path) -> None:
    assert len(over_tls(tmp_path, authority, **{"insecure-skip-tls-verify": True})) == 1
