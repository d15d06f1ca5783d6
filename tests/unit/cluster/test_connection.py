"""Where the API server is and how it is known, and what is said of files that are bad."""

import asyncio
import base64
import ssl
from pathlib import Path
from typing import Any

import pytest

from slmops.cluster.client import Cluster
from slmops.cluster.connection import ConnectionConfigError, from_kubeconfig, load
from slmops.cluster.errors import Unavailable
from slmops.cluster.objects import JOB
from tests.unit import virtualnet
from tests.unit.cluster.credentials import CANARY, header, kubeconfig, service_account
from tests.unit.fakeapi import FakeApi

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


def test_a_pods_service_account_is_enough(tmp_path: Path, authority: Path) -> None:
    found = load({"KUBERNETES_SERVICE_HOST": "fd00::1"}, service_account(tmp_path, authority))
    assert found.server == "https://[fd00::1]:443"
    assert found.namespace == "slmops-system"
    assert asyncio.run(header(found)) == f"Bearer {CANARY}"
    assert isinstance(found.ssl, ssl.SSLContext)
    assert found.ssl.verify_mode is ssl.CERT_REQUIRED
    assert found.ssl.cert_store_stats()["x509_ca"] == 1, "the cluster's authority and no other"


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
                except Unavailable:
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
