"""Pulling: whatever a registry says or does, the files are the promised ones, in the folder, or there are none."""

import errno
import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from slmkit.downloads import PIECE
from slmkit.layers import Layer
from slmkit.registry import Registry
from slmkit.run import RunFailed
from slmkit.sources import fetch
from slmkit.wire import ANSWER_LIMIT, ATTEMPTS
from slmops import contract
from slmops.contract import ADAPTER_TYPE, DATASET_TYPE, MODEL_TYPE, Reason, Source
from tests.unit.images.fakeregistry import CUT, Answer, FakeRegistry, sha256

DATA = b'{"prompt": "a", "completion": "b"}\n' * 100
TITLE = "org.opencontainers.image.title"


def pull(registry: FakeRegistry, into: Path, tag: str = ":latest", pauses: list[float] | None = None) -> str:
    return registry.client(pauses).pull(Source(uri=f"oci://{registry.host}/slm/data{tag}"), into)


def refused(registry: FakeRegistry, into: Path, tag: str = ":latest", pauses: list[float] | None = None) -> RunFailed:
    with pytest.raises(RunFailed) as failed:
        pull(registry, into, tag, pauses)
    return failed.value


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_artefact_comes_whole_and_its_address_names_the_digest(registry: FakeRegistry, tmp_path: Path) -> None:
    content = {"train.jsonl": DATA, "deep/er/config.json": b"{}", "empty.txt": b""}
    digest = registry.artifact("slm/data", content, tag="v1")
    assert pull(registry, tmp_path / "a", ":v1") == f"oci://{registry.host}/slm/data@{digest}"
    assert files(tmp_path / "a") == content
    pull(registry, tmp_path / "b", f":v1@{digest}")
    assert registry.count("GET .*/manifests/v1") == 1, "where there is a digest, the tag is not asked for"


def test_without_a_tag_it_is_the_latest(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.artifact("slm/data", {"x": b"1"}, tag="latest")
    pull(registry, tmp_path, "")
    assert files(tmp_path) == {"x": b"1"}


def test_a_manifest_of_another_digest_is_refused(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.artifact("slm/data", {"x": DATA})
    asked = sha256(b"something else")
    registry.manifests["slm/data", asked] = registry.manifests["slm/data", "latest"]
    failed = refused(registry, tmp_path, f"@{asked}")
    assert failed.reason is Reason.UNSAFE_SOURCE
    assert asked in failed.message
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    "content",
    [b"wrong" * len(DATA), DATA + b"x", DATA[:-1], b"", DATA[:-1] + b"?"],
    ids=["much longer", "longer", "shorter", "nothing", "another byte"],
)
def test_a_blob_of_another_content_is_refused_and_not_kept(
    registry: FakeRegistry, tmp_path: Path, content: bytes
) -> None:
    registry.artifact("slm/data", {"x": DATA})
    registry.always("GET .*/blobs/", Answer(body=content))
    failed = refused(registry, tmp_path)
    assert failed.reason is Reason.UNSAFE_SOURCE
    assert sha256(DATA) in failed.message
    assert files(tmp_path) == {}


@pytest.mark.parametrize("broken", [Answer(body=DATA, cut=100), Answer(body=DATA, cut=0), CUT])
def test_a_download_that_breaks_begins_again(registry: FakeRegistry, tmp_path: Path, broken: Answer) -> None:
    registry.artifact("slm/data", {"x": DATA})
    registry.answer("GET .*/blobs/", broken, broken)
    pauses: list[float] = []
    pull(registry, tmp_path, pauses=pauses)
    assert files(tmp_path) == {"x": DATA}
    assert len(pauses) == 2


def test_a_download_that_always_breaks_ends(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.artifact("slm/data", {"x": DATA})
    registry.always("GET .*/blobs/", Answer(body=DATA, cut=100))
    assert refused(registry, tmp_path).reason is Reason.SOURCE_UNREACHABLE
    assert registry.count("GET .*/blobs/") == ATTEMPTS
    assert files(tmp_path) == {}


LARGE = random.Random(1).randbytes(20 * PIECE // 2)


@pytest.mark.parametrize("cut", [1, 100, len(DATA) - 1])
def test_a_download_that_breaks_goes_on_where_it_was(registry: FakeRegistry, tmp_path: Path, cut: int) -> None:
    registry.artifact("slm/data", {"x": DATA})
    registry.answer("GET .*/blobs/", Answer(body=DATA, cut=cut))
    pull(registry, tmp_path)
    assert files(tmp_path) == {"x": DATA}
    assert registry.sent == len(DATA) - cut, "not a byte twice"


def test_a_registry_that_sends_no_parts_sends_all_of_it_again(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.artifact("slm/data", {"x": DATA})
    registry.ranges = False
    registry.answer("GET .*/blobs/", *[Answer(body=DATA, cut=cut) for cut in (100, 2000, 50)])
    pull(registry, tmp_path)
    assert files(tmp_path) == {"x": DATA}


@pytest.mark.parametrize(
    "answer",
    [Answer(416), Answer(206, DATA, {"Content-Range": f"bytes 0-{len(DATA) - 1}/{len(DATA)}"}), Answer(206, DATA)],
    ids=["416", "another part", "no part"],
)
def test_an_answer_that_is_not_the_part_asked_for_is_not_used(
    registry: FakeRegistry, tmp_path: Path, answer: Answer
) -> None:
    registry.artifact("slm/data", {"x": DATA})
    registry.answer("GET .*/blobs/", Answer(body=DATA, cut=100), answer)
    pull(registry, tmp_path)
    assert files(tmp_path) == {"x": DATA}


def test_a_part_of_something_else_is_refused(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.artifact("slm/data", {"x": DATA})
    rest = {"Content-Range": f"bytes 100-{len(DATA) - 1}/{len(DATA)}"}
    registry.answer("GET .*/blobs/", Answer(body=DATA, cut=100), Answer(206, b"?" * (len(DATA) - 100), rest))
    assert refused(registry, tmp_path).reason is Reason.UNSAFE_SOURCE
    assert files(tmp_path) == {}


def test_a_large_download_may_break_as_often_as_it_gets_on(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.artifact("slm/data", {"x": LARGE})
    step = PIECE * 5 // 4
    for begin in range(0, len(LARGE), step):
        status, part = (206, f"bytes {begin}-{len(LARGE) - 1}/{len(LARGE)}") if begin else (200, "")
        registry.answer("GET .*/blobs/", Answer(status, LARGE[begin:], {"Content-Range": part}, cut=step))
    pauses: list[float] = []
    pull(registry, tmp_path, pauses=pauses)
    assert files(tmp_path) == {"x": LARGE}
    assert len(pauses) > ATTEMPTS
    assert max(pauses) <= 1, "each of them is the first"


def test_what_is_told_of_a_download_adds_up(registry: FakeRegistry, tmp_path: Path) -> None:
    class Meter:
        expected = advanced = 0

        def expect(self, more: int) -> None:
            self.expected += more

        def advance(self, count: int) -> None:
            self.advanced += count

    meter = Meter()
    registry.artifact("slm/data", {"x": DATA})
    registry.ranges = False
    registry.answer("GET .*/blobs/", Answer(body=DATA, cut=100))
    client = Registry(registry.settings, sleep=lambda _: None, meter=meter)
    client.pull(Source(uri=f"oci://{registry.host}/slm/data"), tmp_path)
    assert meter.expected == meter.advanced == len(DATA)


@pytest.mark.parametrize("request_", ["GET .*/manifests/", "GET .*/blobs/"])
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_trouble_of_the_registry_passes(registry: FakeRegistry, tmp_path: Path, request_: str, status: int) -> None:
    registry.artifact("slm/data", {"x": DATA})
    registry.answer(request_, Answer(status, b"busy" * len(DATA)), Answer(status))
    pauses: list[float] = []
    pull(registry, tmp_path, pauses=pauses)
    assert files(tmp_path) == {"x": DATA}
    assert len(pauses) == 2
    assert 0.5 <= pauses[0] <= 1 <= pauses[1] <= 2, "twice as long each time"


@pytest.mark.parametrize("request_", ["GET .*/manifests/", "GET .*/blobs/"])
def test_trouble_that_stays_is_no_fault_of_the_source(registry: FakeRegistry, tmp_path: Path, request_: str) -> None:
    registry.artifact("slm/data", {"x": DATA})
    registry.always(request_, Answer(503))
    failed = refused(registry, tmp_path)
    assert failed.reason is Reason.SOURCE_UNREACHABLE, "another attempt may succeed"
    assert "503" in failed.message
    assert registry.count(request_) == ATTEMPTS


@pytest.mark.parametrize("request_", ["GET .*/manifests/", "GET .*/blobs/"])
@pytest.mark.parametrize(
    ("said", "paused"), [("7", 7), ("0", 0), ("3600", 60), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-5", None),
                         ("²", None), ("1.5", None)],
)  # fmt: skip
def test_the_registrys_own_pause_is_kept_within_reason(
    registry: FakeRegistry, tmp_path: Path, request_: str, said: str, paused: float | None
) -> None:
    registry.artifact("slm/data", {"x": DATA})
    registry.answer(request_, Answer(429, headers={"Retry-After": said}))
    pauses: list[float] = []
    pull(registry, tmp_path, pauses=pauses)
    assert len(pauses) == 1
    assert pauses[0] == paused if paused is not None else 0 < pauses[0] <= 1


@pytest.mark.parametrize(
    ("status", "reason"),
    [(404, Reason.SOURCE_NOT_FOUND), (403, Reason.SOURCE_UNAUTHORIZED), (401, Reason.SOURCE_UNAUTHORIZED)],
)
@pytest.mark.parametrize("request_", ["GET .*/manifests/", "GET .*/blobs/"])
def test_a_definite_no_is_not_asked_again(
    registry: FakeRegistry, tmp_path: Path, request_: str, status: int, reason: Reason
) -> None:
    registry.artifact("slm/data", {"x": DATA})
    registry.always(request_, Answer(status, json.dumps({"errors": [{"message": "not today"}]}).encode()))
    failed = refused(registry, tmp_path)
    assert failed.reason is reason
    assert registry.count(request_) == 1


@pytest.mark.parametrize(
    "title",
    [
        "../x",
        "a/../../x",
        "/etc/x",
        "..",
        ".",
        "..\\x",
        "a\0b",
        "a/..",
        "a\nb",
        "x" * 300,
        "a/" * 20,
        "\ud800",
        ["x"],
        7,
    ],
    ids=lambda title: repr(title)[:12],
)
def test_a_file_name_that_leaves_the_folder_is_refused(registry: FakeRegistry, tmp_path: Path, title: object) -> None:
    layer = registry.hold("slm/data", DATA) | {"annotations": {TITLE: title}}
    registry.publish("slm/data", {"layers": [layer]})
    into = tmp_path / "a" / "b"
    assert refused(registry, into).reason is Reason.UNSAFE_SOURCE
    assert files(tmp_path) == {}
    assert registry.count("GET .*/blobs/") == 0, "nothing is fetched for such a name"


@pytest.mark.parametrize("other", ["a/b", "a//b", "a/b/c", "./a"])
def test_a_file_name_that_is_in_the_way_of_another_is_refused(
    registry: FakeRegistry, tmp_path: Path, other: str
) -> None:
    registry.artifact("slm/data", {other: b"2", "a": b"1"})
    assert refused(registry, tmp_path).reason is Reason.UNSAFE_SOURCE
    assert files(tmp_path) == {}


HOSTILE: list[Any] = [
    b"<html>", b"[]", b"5", b"null", b"[" * 100_000, {}, {"layers": None}, {"layers": "x"}, {"layers": []},
    {"layers": [5]}, {"layers": [{}]}, {"layers": [{"annotations": 5}]}, {"layers": [{"annotations": {TITLE: "x"}}]},
    {"layers": [{"annotations": {TITLE: "x"}, "digest": "sha256:..", "size": "many"}]},
    {"layers": [{"annotations": {TITLE: "x"}, "digest": "../../other/blobs/sha256:1", "size": 5}]},
    {"layers": [{"annotations": {TITLE: "x"}, "digest": None, "size": 5}]},
    {"manifests": [{"digest": sha256(b"1"), "platform": {"architecture": "amd64"}}]},
]  # fmt: skip


@pytest.mark.parametrize("manifest", HOSTILE, ids=lambda manifest: str(manifest)[:30])
def test_a_manifest_that_makes_no_sense_is_refused_for_good(
    registry: FakeRegistry, tmp_path: Path, manifest: object
) -> None:
    registry.publish("slm/data", manifest)
    assert refused(registry, tmp_path).reason in (Reason.UNSAFE_SOURCE, Reason.SOURCE_NOT_FOUND)
    assert files(tmp_path) == {}


@pytest.mark.parametrize("size", [-1, 0, len(DATA) - 1, len(DATA) + 1, 1 << 70])
def test_a_forged_size_is_refused(registry: FakeRegistry, tmp_path: Path, size: int) -> None:
    layer = registry.hold("slm/data", DATA) | {"size": size, "annotations": {TITLE: "x"}}
    registry.publish("slm/data", {"layers": [layer]})
    assert refused(registry, tmp_path).reason is Reason.UNSAFE_SOURCE
    assert files(tmp_path) == {}


class Large(httpx.SyncByteStream):
    """A body that is much larger than it was said to be."""

    def __init__(self) -> None:
        self.sent = 0

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(16):
            self.sent += 1 << 20
            yield bytes(1 << 20)


def test_more_than_was_promised_is_not_even_fetched(tmp_path: Path) -> None:
    body = Large()
    layer = {"digest": sha256(DATA), "size": len(DATA), "annotations": {TITLE: "x"}}

    def answer(request: httpx.Request) -> httpx.Response:
        if "/blobs/" in request.url.path:
            return httpx.Response(200, stream=body)
        return httpx.Response(200, json={"layers": [layer]})

    registry = Registry(contract.Registry(), transport=httpx.MockTransport(answer))
    with pytest.raises(RunFailed) as failed:
        registry.pull(Source(uri="oci://r.example/slm/data"), tmp_path)
    assert failed.value.reason is Reason.UNSAFE_SOURCE
    assert body.sent <= 2 << 20


def test_an_image_is_no_artefact_of_files(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.publish("slm/data", {"layers": [registry.hold("slm/data", DATA)]})
    failed = refused(registry, tmp_path)
    assert failed.reason is Reason.UNSAFE_SOURCE
    assert "it is an image" in failed.message


def test_an_index_is_no_artefact_and_says_so(registry: FakeRegistry, tmp_path: Path) -> None:
    """A tag that stands for several, one for each architecture: none of them is chosen for the reader."""
    listed = [{"digest": sha256(b"1"), "size": 1, "platform": {"architecture": name}} for name in ("arm64", "s390x")]
    layers = [registry.hold("slm/data", DATA) | {"annotations": {TITLE: "x"}}]
    for manifest in ({"manifests": listed}, {"manifests": listed, "layers": layers}):
        registry.publish("slm/data", manifest)
        failed = refused(registry, tmp_path)
        assert failed.reason is Reason.SOURCE_NOT_FOUND
        assert "is an index of 2 manifests, by architecture" in failed.message
        assert files(tmp_path) == {}


@pytest.mark.parametrize(
    "type", ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"]
)
def test_an_image_whose_layers_have_names_is_an_image_nevertheless(
    registry: FakeRegistry, tmp_path: Path, type: str
) -> None:
    layer = registry.hold("slm/data", DATA) | {"annotations": {TITLE: "weights"}}
    registry.publish("slm/data", {"layers": [layer], "config": registry.hold("slm/data", b"{}") | {"mediaType": type}})
    failed = refused(registry, tmp_path)
    assert (failed.reason, "is an image" in failed.message) == (Reason.UNSAFE_SOURCE, True)
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    "said",
    [
        {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"},
        {"mediaType": "application/vnd.oci.image.layer.v1.tar+zstd"},
        {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip"},
        {"annotations": {TITLE: "model", "io.deis.oras.content.unpack": "true"}},
    ],
)
def test_a_folder_that_was_packed_is_not_unpacked(registry: FakeRegistry, tmp_path: Path, said: dict[str, Any]) -> None:
    layer = registry.hold("slm/data", DATA) | {"annotations": {TITLE: "model"}} | said
    registry.publish("slm/data", {"layers": [layer]})
    failed = refused(registry, tmp_path)
    assert failed.reason is Reason.UNSAFE_SOURCE
    assert "'model' is packed" in failed.message
    assert registry.count("GET .*/blobs/") == 0


@pytest.mark.parametrize(
    ("type", "kind", "words"),
    [
        (DATASET_TYPE, "model", "is a data set, not a model"), (ADAPTER_TYPE, "model", "is an adapter, not a model"),
        (MODEL_TYPE, "dataset", "is a model"), (DATASET_TYPE, "dataset", ""), (MODEL_TYPE, "model", ""),
        (DATASET_TYPE, "adapter", "is a data set, not an adapter"), (MODEL_TYPE, "adapter", "is a model, not an adapter"),
        (ADAPTER_TYPE, "adapter", ""), (ADAPTER_TYPE, "dataset", ""), ("application/x.other", "model", ""),
        (5, "model", ""),
    ],
)  # fmt: skip
def test_an_artefact_of_another_kind_is_named(
    registry: FakeRegistry, tmp_path: Path, type: object, kind: Literal["model", "adapter", "dataset"], words: str
) -> None:
    layer = registry.hold("slm/data", DATA) | {"annotations": {TITLE: "x"}}
    registry.publish("slm/data", {"layers": [layer], "artifactType": type})
    source = Source(uri=f"oci://{registry.host}/slm/data")
    if not words:
        fetch(source, tmp_path, registry.client(), kind)
        assert files(tmp_path) == {"x": DATA}
        return
    with pytest.raises(RunFailed, match=words) as failed:
        fetch(source, tmp_path, registry.client(), kind)
    assert failed.value.reason is Reason.UNSAFE_SOURCE
    assert files(tmp_path) == {}


def test_of_what_does_not_come_whole_nothing_is_left(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.artifact("slm/data", {"a": b"good", "deep/er/b": b"good, too", "c": DATA})
    registry.always(f"GET .*/blobs/{sha256(DATA)}", Answer(body=DATA[:-1]))
    source = Source(uri=f"oci://{registry.host}/slm/data")
    with pytest.raises(RunFailed, match="c does not have digest") as failed:
        fetch(source, tmp_path / "new", registry.client())
    assert failed.value.reason is Reason.UNSAFE_SOURCE
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "mine").write_bytes(b"of before")
    with pytest.raises(RunFailed):
        fetch(source, tmp_path / "kept", registry.client())
    assert files(tmp_path / "kept")["mine"] == b"of before"


def test_a_disk_that_fills_takes_the_file_along_and_with_space_it_comes_whole(
    registry: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.artifact("slm/data", {"x": DATA})
    source = Source(uri=f"oci://{registry.host}/slm/data")
    opened = Path.open

    class Full:
        """A disk that takes ten bytes."""

        def __init__(self, file: Any) -> None:
            self._file = file

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

        def write(self, chunk: bytes) -> None:
            self._file.write(chunk[:10])
            raise OSError(errno.ENOSPC, "No space left on device", self._file.name)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, mode="r", *more: Full(opened(path, mode, *more)))
        with pytest.raises(OSError, match="No space left"):
            registry.client().pull(source, tmp_path / "in")
        assert list((tmp_path / "in").iterdir()) == []
    fetch(source, tmp_path / "in", registry.client())
    assert files(tmp_path / "in") == {"x": DATA}


def test_a_model_image_is_no_artefact_of_files_though_its_layers_have_names(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    layer = Layer({"models/x/a": tmp_path / "a"}, "weights")
    (tmp_path / "a").write_bytes(b"a")
    sink = contract.Sink(repository=f"{registry.host}/slm/data")
    made = registry.client().push_image(sink, [layer], {}, architecture="amd64")
    failed = refused(registry, tmp_path / "out", f"@{made.reference.partition('@')[2]}")
    assert failed.reason is Reason.UNSAFE_SOURCE
    assert "is an image" in failed.message


def test_a_manifest_beyond_all_measure_is_refused(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.publish("slm/data", b'{"layers": [' + b" " * ANSWER_LIMIT + b"]}")
    assert refused(registry, tmp_path).reason is Reason.UNSAFE_SOURCE


@pytest.mark.parametrize(
    "answer",
    [Answer(302, headers={"Location": "/v2/slm/data/manifests/latest"}), Answer(302, headers={"Location": "http://h:port/"}),
     Answer(302)],
    ids=["round and round", "to nowhere", "without a place"],
)  # fmt: skip
def test_an_answer_beyond_http_is_a_failure_like_others(registry: FakeRegistry, tmp_path: Path, answer: Answer) -> None:
    registry.artifact("slm/data", {"x": DATA})
    registry.always("GET .*/manifests/", answer)
    assert refused(registry, tmp_path).reason is Reason.SOURCE_UNREACHABLE


@pytest.mark.parametrize("path", ["manifests", "blobs"])
def test_an_answer_that_is_packed_is_not_unpacked(registry: FakeRegistry, tmp_path: Path, path: str) -> None:
    registry.artifact("slm/data", {"x": DATA})
    registry.always(f"GET .*/{path}/", Answer(body=gzip.compress(bytes(1 << 20)), headers={"Content-Encoding": "gzip"}))
    failed = refused(registry, tmp_path)
    assert failed.reason is Reason.UNSAFE_SOURCE
    assert "packed" in failed.message


@pytest.mark.parametrize("path", ["manifests", "blobs"])
def test_a_registry_does_not_send_us_to_the_machine_itself(registry: FakeRegistry, tmp_path: Path, path: str) -> None:
    registry.artifact("slm/data", {"x": DATA})
    with FakeRegistry() as inside:
        registry.always(f"GET .*/{path}/", Answer(307, headers={"Location": f"http://{inside.host}/metadata"}))
        failed = refused(registry, tmp_path)
        assert failed.reason is Reason.UNSAFE_SOURCE
        assert "127.0.0.1 is an internal address" in failed.message
        assert inside.requests == []


def test_a_blob_may_lie_elsewhere_but_the_password_stays_here(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.users["ann"] = "canary-1"
    registry.artifact("slm/data", {"x": DATA})
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"auths": {registry.host: {"username": "ann", "password": "canary-1"}}}))
    with FakeRegistry() as store:
        registry.also.append(store.host)
        store.hold("slm/data", DATA)
        place = f"http://{store.host}/v2/slm/data/blobs/{sha256(DATA)}"
        registry.always("GET .*/blobs/", Answer(307, headers={"Location": place}))
        source = Source(uri=f"oci://{registry.host}/slm/data", credentials=contract.Credentials(path=str(config)))
        registry.client().pull(source, tmp_path / "out")
        assert files(tmp_path / "out") == {"x": DATA}
        assert {shown for _, shown in store.shown} == {""}


def test_a_registry_that_is_not_named_as_plain_is_asked_over_tls() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(404)

    registry = Registry(contract.Registry(plain_http=("registry.example:5000",)), transport=httpx.MockTransport(answer))
    for reference in ("registry.example:5000/a", "registry.example/a", "registry.example.evil:5000/a"):
        with pytest.raises(RunFailed):
            registry.digest_of(reference)
    assert [url.partition("/v2")[0] for url in asked] == [
        "http://registry.example:5000", "https://registry.example", "https://registry.example.evil:5000",
    ]  # fmt: skip
