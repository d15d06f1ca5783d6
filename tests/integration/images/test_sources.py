"""Downloads: what a server may not do to us."""

import fnmatch
import gzip
import hashlib
import ipaddress
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from slmkit import net, sources
from slmkit.run import RunFailed
from slmkit.sources import fetch, hub
from slmops.contract import Credentials, Reason, Source
from tests.unit.images.fakeregistry import CUT, Answer, FakeRegistry

DATA = b'{"prompt": "q"}\n' * 10
SHA = hashlib.sha256(DATA).hexdigest()
CANARY = "canary-t0ken"


PUBLIC = "93.184.215.14"


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names resolve to. Connections to the public address end at the test's servers; to any other they are made as
    they are, so a test sees it when one is."""
    known = {"data.example": [PUBLIC], "other.example": [PUBLIC]}

    def resolve(host: str, port: int) -> list[tuple[object, ...]]:
        try:
            return [(0, 0, 0, "", (address, port)) for address in known.get(host) or [str(ipaddress.ip_address(host))]]
        except ValueError:
            raise httpx.ConnectError(f"{host}: unknown name") from None

    connect = httpx.HTTPTransport.handle_request

    def handle(transport: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        if request.url.host == PUBLIC:
            request.url = request.url.copy_with(host="127.0.0.1")
        return connect(transport, request)

    monkeypatch.setattr(net, "_resolve", resolve)
    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", handle)
    return known


@pytest.fixture
def web(registry: FakeRegistry, names: dict[str, list[str]]) -> FakeRegistry:
    """A web server called data.example; its answers are the faults of a registry."""
    return registry


def port(server: FakeRegistry) -> str:
    return server.host.partition(":")[2]


def download(
    web: FakeRegistry, into: Path, path: str = "/d.jsonl", credentials: Credentials | None = None, digest: str = SHA
) -> str:
    """A digest vouches for what comes without TLS."""
    uri = f"http://data.example:{port(web)}{path}" + (f"#sha256={digest}" if digest else "")
    with FakeRegistry() as unused:
        return fetch(Source(uri=uri, credentials=credentials), into, unused.client(), "dataset")


def refused(act: Callable[[], object]) -> RunFailed:
    with pytest.raises(RunFailed) as failed:
        act()
    return failed.value


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/deep/d.jsonl?x=/../y", "d.jsonl"), ("/", "data.jsonl"), ("", "data.jsonl"), ("/..", "data.jsonl"),
        ("/a%2f..%2f..%2fx.jsonl", "x.jsonl"), ("/%2e%2e", "data.jsonl"), ("/%00", "data.jsonl"), ("/a/", "a"),
        ("/" + "x" * 300, "data.jsonl"), ("/%0a", "data.jsonl"), ("/d%20e.jsonl", "d e.jsonl"),
    ],
)  # fmt: skip
def test_a_file_is_downloaded_into_the_folder_whatever_it_is_called(
    web: FakeRegistry, tmp_path: Path, path: str, name: str
) -> None:
    web.always("GET ", Answer(body=DATA))
    download(web, tmp_path / "a" / "b", path)
    assert [p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file()] == [Path("a/b") / name]
    assert (tmp_path / "a" / "b" / name).read_bytes() == DATA


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(404), Reason.SOURCE_NOT_FOUND),
        (Answer(401), Reason.SOURCE_UNAUTHORIZED),
        (Answer(403), Reason.SOURCE_UNAUTHORIZED),
        (Answer(500), Reason.SOURCE_UNREACHABLE),
        (Answer(304), Reason.SOURCE_UNREACHABLE),
        (Answer(301), Reason.SOURCE_UNREACHABLE),
        (CUT, Reason.SOURCE_UNREACHABLE),
        (Answer(body=DATA, cut=5), Reason.SOURCE_UNREACHABLE),
        (Answer(body=gzip.compress(bytes(1 << 20)), headers={"Content-Encoding": "gzip"}), Reason.UNSAFE_SOURCE),
        (Answer(body=b"x", headers={"Content-Encoding": "zstd, gzip"}), Reason.UNSAFE_SOURCE),
        (Answer(body=b"other data"), Reason.UNSAFE_SOURCE),
        (Answer(302, headers={"Location": "/d.jsonl"}), Reason.SOURCE_UNREACHABLE),
        (Answer(302, headers={"Location": "http://h:port/"}), Reason.SOURCE_UNREACHABLE),
        (Answer(302, headers={"Location": "file:///etc/passwd"}), Reason.SOURCE_UNREACHABLE),
    ],
)
def test_a_download_that_fails_says_how(web: FakeRegistry, tmp_path: Path, answer: Answer, reason: Reason) -> None:
    web.always("GET ", answer)
    failed = refused(lambda: download(web, tmp_path))
    assert failed.reason is reason
    assert failed.message.startswith(f"http://data.example:{port(web)}/d.jsonl")
    assert list(tmp_path.iterdir()) == [], "no part of it is left"


INTERNAL = ["10.96.0.1", "127.0.0.1", "169.254.169.254", "::1", "fe80::1%eth0", "fd00::1", "::ffff:10.0.0.1", "0.0.0.0",
            "100.64.0.1", "192.168.1.1", "172.16.0.1"]  # fmt: skip


@pytest.mark.parametrize("address", INTERNAL)
def test_a_name_of_an_internal_address_is_not_asked(
    web: FakeRegistry, names: dict[str, list[str]], tmp_path: Path, address: str
) -> None:
    names["data.example"].append(address)
    failed = refused(lambda: download(web, tmp_path))
    assert failed.reason is Reason.UNSAFE_SOURCE
    assert web.requests == []


@pytest.mark.parametrize("address", INTERNAL)
def test_a_redirect_inwards_is_not_followed(
    web: FakeRegistry, names: dict[str, list[str]], tmp_path: Path, address: str
) -> None:
    names["other.example"] = [address]
    web.answer("GET /d.jsonl", Answer(302, headers={"Location": f"http://other.example:{port(web)}/inside"}))
    failed = refused(lambda: download(web, tmp_path))
    assert failed.reason is Reason.UNSAFE_SOURCE
    assert web.requests == ["GET /d.jsonl"]


@pytest.mark.parametrize(
    "uri", ["http://10.0.0.1/x", "http://[::1]/x", "http://0x7f000001/x", "http://2130706433/x", "http://127.1/x",
            "http://example.com@127.0.0.1/x", "http://localhost/x", "http://localhost./x", "http://%6c%6fcalhost/x"],
)  # fmt: skip
def test_no_spelling_of_an_internal_address_is_asked(registry: FakeRegistry, tmp_path: Path, uri: str) -> None:
    failed = refused(lambda: fetch(Source(uri=uri), tmp_path, registry.client()))
    assert failed.reason in (Reason.UNSAFE_SOURCE, Reason.SOURCE_UNREACHABLE)
    assert "is an internal address" in failed.message or failed.reason is Reason.SOURCE_UNREACHABLE


def test_the_token_is_shown_to_its_own_server_alone(web: FakeRegistry, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{CANARY}\n")
    credentials = Credentials(path=str(tmp_path / "token"))
    with FakeRegistry() as other:
        other.always("GET ", Answer(body=DATA))
        web.answer("GET ", Answer(307, headers={"Location": "/again"}))
        web.answer("GET ", Answer(307, headers={"Location": f"http://other.example:{port(other)}/elsewhere"}))
        download(web, tmp_path / "out", credentials=credentials)
        assert [shown for _, shown in web.shown] == [f"Bearer {CANARY}"] * 2, "the same server may ask again"
        assert other.shown == [("GET /elsewhere", "")], "another port is another server"
    assert (tmp_path / "out" / "d.jsonl").read_bytes() == DATA


@pytest.mark.parametrize("content", [None, f"{CANARY}\nsecond line", f"{CANARY} \x07"])
def test_a_token_that_cannot_be_shown_is_never_quoted(web: FakeRegistry, tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "token").write_text(content)
    failed = refused(lambda: download(web, tmp_path / "out", credentials=Credentials(path=str(tmp_path / "token"))))
    assert failed.reason is Reason.SOURCE_UNAUTHORIZED
    assert CANARY not in failed.message
    assert web.requests == []


def test_a_download_beyond_all_measure_ends(web: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.web, "FILE_LIMIT", len(DATA) - 1)
    web.always("GET ", Answer(body=DATA))
    assert refused(lambda: download(web, tmp_path)).reason is Reason.UNSAFE_SOURCE
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["file:///etc/passwd", "ftp://x/y", "nonsense", "", "HTTP://x"])
def test_other_schemes_are_not_known(registry: FakeRegistry, tmp_path: Path, uri: str) -> None:
    failed = refused(lambda: fetch(Source(uri=uri), tmp_path, registry.client()))
    assert failed.reason is Reason.INVALID_CONFIGURATION


@pytest.mark.parametrize(
    "name",
    ["LICENSE", "license", "License.md", "LICENSE.txt", "LiCeNcE", "copying", "COPYING.LESSER", "Notice", "README.md",
     "readme.MD", "model-00001-of-00002.safetensors", "deep/config.json", "chat_template.jinja"],
)  # fmt: skip
def test_of_a_hub_comes_what_is_read_and_what_says_on_which_terms(name: str) -> None:
    assert any(fnmatch.fnmatchcase(name, pattern) for pattern in hub.WANTED)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "modeling.py", "model.onnx", "unlicense"])
def test_of_a_hub_comes_nothing_else(name: str) -> None:
    assert not any(fnmatch.fnmatchcase(name, pattern) for pattern in hub.WANTED)


def test_a_hub_needs_its_library(registry: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    failed = refused(lambda: fetch(Source(uri="hf://org/model"), tmp_path, registry.client()))
    assert failed.reason is Reason.INVALID_CONFIGURATION
    assert "huggingface_hub" in failed.message


def test_an_artefact_comes_from_its_registry(registry: FakeRegistry, tmp_path: Path) -> None:
    digest = registry.artifact("slm/data", {"x.jsonl": DATA})
    address = fetch(Source(uri=f"oci://{registry.host}/slm/data"), tmp_path, registry.client())
    assert address == f"oci://{registry.host}/slm/data@{digest}"
    assert (tmp_path / "x.jsonl").read_bytes() == DATA


def test_the_address_says_what_came(web: FakeRegistry, tmp_path: Path) -> None:
    web.always("GET ", Answer(body=DATA))
    assert download(web, tmp_path).endswith(f"/d.jsonl#sha256={SHA}")
    assert web.requests == ["GET /d.jsonl"], "the digest is ours, no server is told of it"


def test_a_file_of_another_digest_is_not_kept(web: FakeRegistry, tmp_path: Path) -> None:
    web.always("GET ", Answer(body=DATA + b"x"))
    failed = refused(lambda: download(web, tmp_path))
    assert failed.reason is Reason.UNSAFE_SOURCE
    assert hashlib.sha256(DATA + b"x").hexdigest() in failed.message
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("fragment", ["sha256=12", "md5=" + "0" * 32, SHA, "sha256=" + "G" * 64])
def test_a_digest_that_is_none_is_no_digest(web: FakeRegistry, tmp_path: Path, fragment: str) -> None:
    failed = refused(lambda: download(web, tmp_path, f"/d.jsonl#{fragment}", digest=""))
    assert failed.reason is Reason.INVALID_CONFIGURATION
    assert web.requests == []


def test_without_tls_and_digest_nothing_is_taken(web: FakeRegistry, tmp_path: Path) -> None:
    failed = refused(lambda: download(web, tmp_path, digest=""))
    assert failed.reason is Reason.UNSAFE_SOURCE
    assert "use https://" in failed.message
    assert web.requests == []


def test_a_host_that_the_installation_lists_may_speak_plainly(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.always("GET ", Answer(body=DATA))
    fetch(Source(uri=f"http://{registry.host}/d.jsonl"), tmp_path, registry.client(), "dataset")
    assert (tmp_path / "d.jsonl").read_bytes() == DATA


def test_a_redirect_from_tls_to_none_is_not_followed(names: dict[str, list[str]], tmp_path: Path) -> None:
    asked = []

    def answer(transport: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        asked.append(
            (request.url.scheme, request.url.host, request.extensions["sni_hostname"], request.headers["Host"])
        )
        return httpx.Response(302, headers={"Location": "http://other.example/d.jsonl"})

    with pytest.MonkeyPatch.context() as patch, FakeRegistry() as unused:
        patch.setattr(httpx.HTTPTransport, "handle_request", answer)
        failed = refused(lambda: fetch(Source(uri="https://data.example/d"), tmp_path, unused.client(), "dataset"))
    assert failed.reason is Reason.UNSAFE_SOURCE
    assert asked == [("https", PUBLIC, "data.example", "data.example")], "to the address that was looked at"


def test_a_name_that_changes_its_address_after_the_check_changes_nothing(
    web: FakeRegistry, names: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the first answer is public, every later one is the cloud's metadata."""
    real = net._resolve
    said = []

    def rebinding(host: str, number: int) -> object:
        said.append(host)
        found = real(host, number)
        names["data.example"] = ["169.254.169.254"]
        return found

    monkeypatch.setattr(net, "_resolve", rebinding)
    web.always("GET ", Answer(body=DATA))
    download(web, tmp_path)
    assert said == ["data.example"], "looked up once, and what was looked at is what was connected to"
    assert web.requests == ["GET /d.jsonl"]
