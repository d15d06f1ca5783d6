"""Sources: what a server or a volume may not do to us."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from slmkit import sources
from slmkit.run import RunFailed
from slmkit.sources import fetch
from slmops.contract import Credentials, Reason, Source
from tests.unit.images.fakeregistry import CUT, Answer, FakeRegistry

DATA = b'{"prompt": "q"}\n' * 10
CANARY = "canary-t0ken"


# --- downloads


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names resolve to. The server of the test is at 127.0.0.1, and here that counts as a public address."""
    known = {"127.0.0.1": ["93.184.215.14"], "localhost": ["93.184.215.14", "2606:2800::1"]}

    def getaddrinfo(host: str, port: None) -> list[tuple[object, ...]]:
        if host not in known:
            raise OSError("unknown name")
        return [(0, 0, 0, "", (address, 0)) for address in known[host]]

    monkeypatch.setattr(sources, "socket", SimpleNamespace(getaddrinfo=getaddrinfo))
    return known


@pytest.fixture
def web(registry: FakeRegistry, names: dict[str, list[str]]) -> FakeRegistry:
    """A web server; its answers are the faults of a registry."""
    return registry


def download(web: FakeRegistry, into: Path, path: str = "/d.jsonl", credentials: Credentials | None = None) -> str:
    return fetch(Source(uri=f"http://{web.host}{path}", credentials=credentials), into, web.client())


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
        (Answer(body=b"no gzip", headers={"Content-Encoding": "gzip"}), Reason.SOURCE_UNREACHABLE),
        (Answer(302, headers={"Location": "/d.jsonl"}), Reason.SOURCE_UNREACHABLE),
        (Answer(302, headers={"Location": "http://h:port/"}), Reason.SOURCE_UNREACHABLE),
        (Answer(302, headers={"Location": "file:///etc/passwd"}), Reason.SOURCE_UNREACHABLE),
    ],
)
def test_a_download_that_fails_says_how(web: FakeRegistry, tmp_path: Path, answer: Answer, reason: Reason) -> None:
    web.always("GET ", answer)
    failed = refused(lambda: download(web, tmp_path))
    assert failed.reason is reason
    assert failed.message.startswith(f"http://{web.host}/d.jsonl")


INTERNAL = ["10.96.0.1", "127.0.0.1", "169.254.169.254", "::1", "fe80::1%eth0", "fd00::1", "::ffff:10.0.0.1", "0.0.0.0",
            "100.64.0.1", "192.168.1.1", "172.16.0.1"]  # fmt: skip


@pytest.mark.parametrize("address", INTERNAL)
def test_a_name_of_an_internal_address_is_not_asked(
    web: FakeRegistry, names: dict[str, list[str]], tmp_path: Path, address: str
) -> None:
    names["127.0.0.1"].append(address)
    failed = refused(lambda: download(web, tmp_path))
    assert failed.reason is Reason.UNSAFE_SOURCE
    assert web.requests == []


@pytest.mark.parametrize("address", INTERNAL)
def test_a_redirect_inwards_is_not_followed(
    web: FakeRegistry, names: dict[str, list[str]], tmp_path: Path, address: str
) -> None:
    names["localhost"] = [address]
    port = web.host.partition(":")[2]
    web.answer("GET /d.jsonl", Answer(302, headers={"Location": f"http://localhost:{port}/inside"}))
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
        web.answer("GET ", Answer(307, headers={"Location": f"http://{other.host}/elsewhere"}))
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
    monkeypatch.setattr(sources, "FILE_LIMIT", len(DATA) - 1)
    web.always("GET ", Answer(body=DATA))
    assert refused(lambda: download(web, tmp_path)).reason is Reason.UNSAFE_SOURCE


@pytest.mark.parametrize("uri", ["s3://bucket/x", "file:///etc/passwd", "ftp://x/y", "nonsense", "", "HTTP://x"])
def test_other_schemes_are_not_known(registry: FakeRegistry, tmp_path: Path, uri: str) -> None:
    failed = refused(lambda: fetch(Source(uri=uri), tmp_path, registry.client()))
    assert failed.reason is Reason.INVALID_CONFIGURATION


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


# --- volumes


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sources, "PVC_ROOT", tmp_path / "pvc")
    folder = tmp_path / "pvc" / "claim"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.jsonl").write_bytes(DATA)
    (folder / "b.jsonl").write_bytes(b"b")
    (tmp_path / "secret").write_text(CANARY)
    return folder


def claim(uri: str, into: Path) -> dict[str, bytes]:
    with FakeRegistry() as unused:
        assert fetch(Source(uri=uri), into, unused.client()) == uri
    return {str(p.relative_to(into)): p.read_bytes() for p in into.rglob("*") if p.is_file()}


def test_a_folder_of_a_volume_is_linked_not_copied(volume: Path, tmp_path: Path) -> None:
    assert claim("pvc://claim/", tmp_path / "a") == {"deep/a.jsonl": DATA, "b.jsonl": b"b"}
    assert claim("pvc://claim/deep", tmp_path / "b") == {"a.jsonl": DATA}
    assert claim("pvc://claim/b.jsonl", tmp_path / "c") == {"b.jsonl": b"b"}
    assert (tmp_path / "a" / "b.jsonl").is_symlink()


@pytest.mark.parametrize(
    "uri", ["pvc://claim/../../secret", "pvc://claim/..", "pvc://../secret", "pvc://./claim/..", "pvc:///claim",
            "pvc://claim//etc/passwd", "pvc://claim/deep/../../other"],
)  # fmt: skip
def test_no_path_leaves_the_volume(volume: Path, tmp_path: Path, uri: str) -> None:
    (tmp_path / "pvc" / "other").mkdir()
    failed = refused(lambda: claim(uri, tmp_path / "out"))
    assert failed.reason is Reason.UNSAFE_SOURCE
    assert not any((tmp_path / "out").iterdir())


@pytest.mark.parametrize("target", ["../../secret", "/etc/passwd", "../other/x", "deep/../../../secret"])
def test_a_link_that_leaves_the_volume_is_refused(volume: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "pvc" / "other").mkdir()
    (tmp_path / "pvc" / "other" / "x").write_text("x")
    (volume / "link.jsonl").symlink_to(target)
    assert refused(lambda: claim("pvc://claim/", tmp_path / "a")).reason is Reason.UNSAFE_SOURCE
    assert refused(lambda: claim("pvc://claim/link.jsonl", tmp_path / "b")).reason is Reason.UNSAFE_SOURCE


def test_a_link_within_the_volume_is_followed(volume: Path, tmp_path: Path) -> None:
    (volume / "link.jsonl").symlink_to("deep/a.jsonl")
    assert claim("pvc://claim/", tmp_path / "a")["link.jsonl"] == DATA


def test_what_is_no_file_is_left_out(volume: Path, tmp_path: Path) -> None:
    os.mkfifo(volume / "pipe.jsonl")
    (volume / "broken.jsonl").symlink_to("nowhere")
    (volume / "outside").symlink_to("/etc")
    assert set(claim("pvc://claim/", tmp_path / "a")) == {"deep/a.jsonl", "b.jsonl"}


def test_a_path_that_is_not_there_is_named(volume: Path, tmp_path: Path) -> None:
    failed = refused(lambda: claim("pvc://claim/missing", tmp_path / "a"))
    assert failed.reason is Reason.SOURCE_NOT_FOUND
    assert "pvc://claim/missing" in failed.message
