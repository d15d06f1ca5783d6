"""Large blobs on their way out: in chunks, of which one at a time is in memory, and nothing that has arrived goes twice."""

import json
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from slmkit import uploads
from slmkit.access import Access
from slmkit.layers import Layer
from slmkit.registry import Registry
from slmkit.run import RunFailed
from slmkit.uploads import Blob, Uploads, Window
from slmkit.wire import ATTEMPTS, Wire
from slmops import contract
from slmops.contract import Credentials, Reason, Sink, Source
from tests.unit.images.fakeregistry import PASS, Answer, FakeRegistry, sha256

CHUNK = 1000
CONTENT = random.Random(1).randbytes(3500)
"""Three chunks, and the half of one with the closing request."""
PATCH, PUT, POST = "PATCH .*/blobs/uploads/", "PUT .*/blobs/uploads/", "POST .*/blobs/uploads/"


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "CHUNK", CHUNK)


class Client:
    """Uploads to one repository, and what is told of them."""

    def __init__(self, registry: FakeRegistry, credentials: Credentials | None = None) -> None:
        self.registry = registry
        self.pauses: list[float] = []
        self.told: list[int] = []
        self._uploads = Uploads(Wire(registry.settings, None, self.pauses.append), self.told.append)
        self._access = Access(registry.host, "slm/data", "push", credentials)

    def send(self, content: bytes = CONTENT, piece: int = 700) -> None:
        """Send it, read in pieces that are no chunks."""
        read = lambda: (content[at : at + piece] for at in range(0, len(content), piece))  # noqa: E731
        self._uploads.send(self._access, Blob(len(content), read, sha256(content)))
        assert self.registry.blobs["slm/data", sha256(content)] == content
        assert sum(self.told) == len(content)

    def refused(self) -> RunFailed:
        """Send it in vain."""
        with pytest.raises(RunFailed) as failed:
            self.send()
        return failed.value


@pytest.mark.parametrize("piece", [1, 999, 1000, 1001, 5000])
def test_a_large_blob_goes_in_chunks_and_the_last_closes_it(registry: FakeRegistry, piece: int) -> None:
    Client(registry).send(piece=piece)
    assert [line.split()[0] for line in registry.requests] == ["POST", "PATCH", "PATCH", "PATCH", "PUT"]
    assert registry.received == len(CONTENT)


@pytest.mark.parametrize("size", [0, 1, CHUNK])
def test_what_is_no_larger_than_a_chunk_goes_in_one_request(registry: FakeRegistry, size: int) -> None:
    Client(registry).send(CONTENT[:size])
    assert (registry.count(PATCH), registry.count(PUT)) == (0, 1)


def test_a_blob_of_whole_chunks_has_no_empty_one_at_its_end(registry: FakeRegistry) -> None:
    Client(registry).send(CONTENT[: 3 * CHUNK])
    assert (registry.count(PATCH), registry.count(PUT)) == (2, 1)


# --- what breaks


@pytest.mark.parametrize("took", [0, 2, 300, 699, 700, 701, 1000])
@pytest.mark.parametrize("request_", [PATCH, PUT])
def test_an_upload_that_breaks_goes_on_where_it_was(registry: FakeRegistry, request_: str, took: int) -> None:
    registry.answer(request_, Answer(took=min(took, 500) if request_ == PUT else took))
    client = Client(registry)
    client.send()
    assert registry.received == len(CONTENT), "not a byte twice"
    assert registry.count(POST) == 1
    assert len(client.pauses) == 1


def test_an_upload_that_breaks_again_in_the_same_chunk_goes_on_too(registry: FakeRegistry) -> None:
    registry.answer(PATCH, *(Answer(took=100) for _ in range(3 * ATTEMPTS)))
    Client(registry).send()
    assert registry.received == len(CONTENT)


@pytest.mark.parametrize("request_", [PATCH, PUT])
def test_a_lost_answer_costs_no_byte(registry: FakeRegistry, request_: str) -> None:
    registry.answer(request_, Answer(lost=True))
    Client(registry).send()
    assert registry.received == len(CONTENT)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("request_", [PATCH, PUT])
@pytest.mark.parametrize("tells", [True, False])
def test_trouble_with_one_chunk_is_that_chunks_alone(
    registry: FakeRegistry, request_: str, status: int, tells: bool
) -> None:
    registry.tells = tells
    registry.answer(request_, Answer(status, headers={"Retry-After": "7"}), Answer(status))
    client = Client(registry)
    client.send()
    assert registry.received == len(CONTENT)
    assert (registry.count(POST), registry.count(request_)) == (1, {PATCH: 5, PUT: 3}[request_])
    assert client.pauses[0] == 7
    assert 1 <= client.pauses[1] <= 2


def test_each_chunk_has_its_own_attempts(registry: FakeRegistry) -> None:
    registry.answer(PATCH, *([*[Answer(503)] * (ATTEMPTS - 1), PASS] * 3))
    client = Client(registry)
    client.send()
    assert len(client.pauses) == 3 * (ATTEMPTS - 1)
    assert client.pauses[0] <= 1 < client.pauses[3] > client.pauses[4], "and its own pauses"


def test_a_chunk_that_never_arrives_ends_it(registry: FakeRegistry) -> None:
    registry.always(PATCH, Answer(503))
    failed = Client(registry).refused()
    assert failed.reason is Reason.REGISTRY_UNREACHABLE
    assert "503" in failed.message
    assert registry.count(PATCH) == ATTEMPTS


def test_an_upload_that_gets_no_further_ends(registry: FakeRegistry) -> None:
    registry.tells = False
    registry.answer(PATCH, *([PASS, Answer(404)] * 2 * ATTEMPTS))
    failed = Client(registry).refused()
    assert failed.reason is Reason.REGISTRY_UNREACHABLE
    assert registry.count(POST) == ATTEMPTS


# --- what registries forget, and what they do not do


def test_an_upload_that_the_registry_has_forgotten_begins_again(registry: FakeRegistry) -> None:
    registry.answer(PATCH, PASS, Answer(404))
    registry.answer("GET .*/blobs/uploads/", Answer(404))
    client = Client(registry)
    client.send()
    assert registry.count(POST) == 2
    assert min(client.told) == -CHUNK, "what was told of the first is taken back"


def test_a_part_of_a_chunk_of_which_nobody_tells_begins_again(registry: FakeRegistry) -> None:
    registry.tells = False
    registry.answer(PATCH, PASS, Answer(took=10))
    Client(registry).send()
    assert registry.count(POST) == 2, "the chunk once more did not continue what was there (416)"


@pytest.mark.parametrize("said", ["0-9", "0-99999999", "bytes 5", "0-", ""])
def test_a_range_that_cannot_be_is_not_believed(registry: FakeRegistry, said: str) -> None:
    """One registry tells of the first chunk alone, however many it has."""
    registry.answer(PATCH, PASS, PASS, Answer(503))
    registry.answer("GET .*/blobs/uploads/", Answer(204, headers={"Range": said}))
    Client(registry).send()
    assert (registry.count(POST), registry.received) == (1, len(CONTENT))


def test_nothing_and_one_byte_look_the_same(registry: FakeRegistry) -> None:
    registry.answer(PATCH, Answer(took=1))
    Client(registry).send()
    assert (registry.count(POST), registry.count(PATCH)) == (2, 2 + 3), "in chunks again"


@pytest.mark.parametrize("status", [400, 404, 405, 413, 416, 501])
def test_where_chunks_are_refused_it_goes_in_one_request(registry: FakeRegistry, status: int) -> None:
    registry.always(PATCH, Answer(status))
    client = Client(registry)
    client.send()
    client.told.clear()
    client.send(CONTENT[::-1])
    assert (registry.count(PATCH), registry.count(PUT)) == (1, 2), "they are not offered again"
    assert client.pauses == []


@pytest.mark.parametrize("status", [400, 405])
def test_chunks_that_are_refused_later_make_one_request_too(registry: FakeRegistry, status: int) -> None:
    registry.answer(PATCH, PASS, Answer(status))
    client = Client(registry)
    client.send()
    assert registry.count(PUT) == 1


@pytest.mark.parametrize("request_", [PATCH, PUT])
@pytest.mark.parametrize("status", [401, 403])
def test_a_chunk_without_the_right_to_it_is_a_refusal(registry: FakeRegistry, request_: str, status: int) -> None:
    registry.always(request_, Answer(status, json.dumps({"errors": [{"message": "read only"}]}).encode()))
    failed = Client(registry).refused()
    assert failed.reason is Reason.REGISTRY_REFUSED
    assert "read only" in failed.message
    assert registry.count(request_) == 1


def test_a_blob_of_another_digest_is_a_refusal(registry: FakeRegistry) -> None:
    registry.always(PUT, Answer(400, json.dumps({"errors": [{"message": "another digest"}]}).encode()))
    failed = Client(registry).refused()
    assert failed.reason is Reason.REGISTRY_REFUSED
    assert "another digest" in failed.message


def test_chunks_are_as_large_as_the_registry_needs(registry: FakeRegistry) -> None:
    registry.least = 1500
    Client(registry).send()
    assert [line.split()[0] for line in registry.requests] == ["POST", "PATCH", "PATCH", "PUT"]


def test_chunks_that_do_not_fit_into_memory_are_not_made(registry: FakeRegistry) -> None:
    registry.least = uploads.LARGEST + 1
    client = Client(registry)
    client.send(CONTENT)
    assert (registry.count(PATCH), registry.count(PUT)) == (0, 1)


@pytest.mark.parametrize("least", ["", "-1", "many", "9" * 5000])
def test_a_least_size_that_is_no_number_is_none(registry: FakeRegistry, least: str) -> None:
    place = f"/v2/slm/data/blobs/uploads/{registry.begin()}?state=kept&turn=0"
    registry.answer(POST, Answer(202, headers={"Location": place, "OCI-Chunk-Min-Length": least}))
    Client(registry).send()
    assert registry.count(PATCH) == 3


def test_a_login_that_runs_out_on_the_way_is_renewed(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.users["ann"] = "secret"
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"auths": {registry.host: {"username": "ann", "password": "secret"}}}))
    challenge = {"WWW-Authenticate": f'Bearer realm="http://{registry.host}/token",service="fake"'}
    registry.answer(PATCH, PASS, Answer(401, headers=challenge))
    registry.answer(PUT, Answer(401, headers=challenge))
    client = Client(registry, Credentials(path=str(config)))
    client.send()
    assert client.pauses == []
    assert registry.received == len(CONTENT)


# --- memory


def test_a_window_keeps_a_chunk_and_no_more() -> None:
    window = Window(bytes([at % 256]) * 300 for at in range(100))
    for begin in range(0, 30_000, CHUNK):
        assert len(b"".join(window.read(begin, begin + CHUNK))) == CHUNK
        assert window.end - window.start < CHUNK + 2 * 300
        window.forget(begin + CHUNK)
        assert b"".join(window.read(window.start, window.end)) == b"".join(
            bytes([at % 256]) * 300 for at in range(window.start // 300, window.end // 300)
        )


def test_memory_is_that_of_one_chunk_however_large_the_blob_is(monkeypatch: pytest.MonkeyPatch) -> None:
    piece, count = bytes(1 << 18), 200
    monkeypatch.setattr(uploads, "CHUNK", 1 << 20)

    class Transport(httpx.BaseTransport):
        """A registry that keeps nothing."""

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            assert isinstance(request.stream, httpx.SyncByteStream)
            for _ in request.stream:
                pass
            status = 201 if request.method == "PUT" else 202
            return httpx.Response(status, headers={"Location": "/v2/a/blobs/uploads/1"})

    def body() -> Iterator[bytes]:
        for _ in range(count):
            yield bytes(bytearray(piece))

    wire = Wire(contract.Registry(), Transport(), lambda _: None)
    blob = Blob(count * len(piece), body)
    tracemalloc.start()
    try:
        Uploads(wire, lambda _: None).send(Access("r.example", "a", "push", None), blob)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 << 20, f"{peak} bytes for {blob.size}"


# --- blobs that the registry has elsewhere


def pull_and_push(registry: FakeRegistry, folder: Path, credentials: Credentials | None = None) -> None:
    """Fetch a file from one repository, publish it in another."""
    client = registry.client()
    client.pull(Source(uri=f"oci://{registry.host}/slm/base", credentials=credentials), folder)
    registry.received = 0
    sink = Sink(repository=f"{registry.host}/slm/tuned", credentials=credentials)
    client.push_artifact(sink, {"tokenizer.json": folder / "tokenizer.json"}, "application/x", {})
    assert registry.blobs["slm/tuned", sha256(CONTENT)] == CONTENT


def test_what_came_from_another_repository_is_taken_over_by_the_registry(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    registry.artifact("slm/base", {"tokenizer.json": CONTENT})
    pull_and_push(registry, tmp_path)
    assert registry.received == len(b"{}"), "the empty configuration alone"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405])
def test_where_nothing_is_mounted_it_is_sent(registry: FakeRegistry, tmp_path: Path, status: int) -> None:
    registry.artifact("slm/base", {"tokenizer.json": CONTENT})
    registry.answer(POST, Answer(status))
    pull_and_push(registry, tmp_path)
    assert registry.received == len(CONTENT) + 2


def test_a_registry_that_begins_an_upload_instead_gets_it_there(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.artifact("slm/base", {"tokenizer.json": CONTENT})
    registry.mounts = False
    pull_and_push(registry, tmp_path)
    assert registry.received == len(CONTENT) + 2
    assert registry.count(POST) == 2, "one a blob"


def test_mounting_asks_for_the_right_to_read_there(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.users["ann"] = "secret"
    registry.artifact("slm/base", {"tokenizer.json": CONTENT})
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"auths": {registry.host: {"username": "ann", "password": "secret"}}}))
    pull_and_push(registry, tmp_path, Credentials(path=str(config)))
    assert registry.received == 2


def test_a_layer_of_another_registry_is_copied_through(registry: FakeRegistry, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    layer = Layer({"adapters/a/weights": tmp_path / "a"}, "a")
    with FakeRegistry() as other:
        registry.also.append(other.host)
        client = Registry(registry.settings, sleep=lambda _: None)
        made = client.push_image(Sink(repository=f"{other.host}/slm/a"), [layer], {}, architecture="amd64")
        other.answer(f"GET .*/blobs/{layer.measure().digest}", Answer(body=b"".join(layer.chunks()), cut=1234))
        sink = Sink(repository=f"{registry.host}/slm/all")
        joined = client.join_images(sink, [Source(uri=f"oci://{made.reference}")], {}, architecture="amd64")
    assert joined.reference.partition("@")[2] == made.reference.partition("@")[2]
    assert registry.blobs["slm/all", layer.measure().digest] == b"".join(layer.chunks())
