"""What is published is read as seldom as can be, and nothing that is there goes again."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from slmkit import uploads
from slmkit.layers import Compression, Layer
from slmkit.run import RunFailed
from slmops.contract import Artifact, Sink, Source
from tests.unit.images.fakeregistry import PASS, Answer, FakeRegistry, sha256

CONTENT = random.Random(2).randbytes(5000)
PATCH, PUT = "PATCH .*/blobs/uploads/", "PUT .*/blobs/uploads/"


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "CHUNK", 1000)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Layer]:
    """The layers whose files are read, once for each time."""
    seen: list[Layer] = []
    plain = Layer._tar

    def noted(layer: Layer) -> Iterator[bytes]:
        seen.append(layer)
        return plain(layer)

    monkeypatch.setattr(Layer, "_tar", noted)
    return seen


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    (tmp_path / "weights").write_bytes(CONTENT)
    return tmp_path / "weights"


def push(registry: FakeRegistry, path: Path, compression: Compression = "None", repository: str = "slm/q") -> Artifact:
    layer = Layer({"models/x/weights": path}, "weights", compression)
    sink = Sink(repository=f"{registry.host}/{repository}")
    return registry.client().push_image(sink, [layer], {}, architecture="amd64")


def test_into_a_new_repository_a_layer_is_read_once_and_has_the_digest_that_it_always_has(
    registry: FakeRegistry, weights: Path, reads: list[Layer]
) -> None:
    made = push(registry, weights)
    assert len(reads) == 1
    (layer,) = registry.manifest("slm/q", made.reference.partition("@")[2])["layers"]
    measured = Layer({"models/x/weights": weights}).measure()
    assert (layer["digest"], layer["size"]) == (measured.digest, measured.size)
    with FakeRegistry() as other:
        other.hold("slm/q", b"{}")  # not new: the digest is counted first
        assert push(other, weights).reference.partition("@")[2] == made.reference.partition("@")[2]
        assert len(reads) == 4


def test_what_is_there_is_not_sent_again(registry: FakeRegistry, weights: Path) -> None:
    push(registry, weights)
    registry.received = 0
    push(registry, weights)
    assert registry.received == 0


@pytest.mark.parametrize("compression", ["None", "Zstd"])
def test_what_an_attempt_has_sent_that_came_to_nothing_is_not_sent_again(
    registry: FakeRegistry, weights: Path, compression: Compression
) -> None:
    registry.answer("PUT .*/manifests/", Answer(403))
    with pytest.raises(RunFailed):
        push(registry, weights, compression)
    registry.received = 0
    push(registry, weights, compression)
    assert registry.received == 0


def test_a_large_file_is_read_once_too(registry: FakeRegistry, weights: Path) -> None:
    sink = Sink(repository=f"{registry.host}/slm/model")
    made = registry.client().push_artifact(sink, {"model.safetensors": weights}, "application/x", {})
    (layer,) = registry.manifest("slm/model", made.reference.partition("@")[2])["layers"]
    assert layer["digest"] == sha256(CONTENT)
    assert registry.count(f"HEAD .*/blobs/{sha256(CONTENT)}") == 0, "nobody knew the digest before"
    registry.client().push_artifact(sink, {"model.safetensors": weights}, "application/x", {})
    assert registry.received == len(CONTENT) + 2


def test_of_a_small_one_nobody_asks_whether_the_repository_is_new(registry: FakeRegistry, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    registry.client().push_artifact(Sink(repository=f"{registry.host}/slm/a"), {"a": tmp_path / "a"}, "x/y", {})
    assert [line.split()[0] for line in registry.requests] == ["HEAD", "POST", "PUT"] * 2 + ["PUT"]


def test_what_another_repository_may_have_is_not_read_through_the_wire(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.artifact("slm/base", {"weights": CONTENT})
    client = registry.client()
    client.pull(Source(uri=f"oci://{registry.host}/slm/base"), tmp_path)
    client.push_artifact(Sink(repository=f"{registry.host}/slm/b"), {"w": tmp_path / "weights"}, "x/y", {})
    assert registry.received == len(b"{}")
    assert registry.blobs["slm/b", sha256(CONTENT)] == CONTENT


@pytest.mark.parametrize(
    ("request_", "troubles"),
    [(PATCH, [Answer(took=300)]), (PATCH, [Answer(503)]), (PATCH, [Answer(lost=True)]), (PATCH, [PASS, Answer(404)]),
     (PUT, [PASS, Answer(took=10)]), (PUT, [PASS, Answer(lost=True)]), (PUT, [PASS, Answer(500)])],
    ids=["cut", "503", "answer lost", "forgotten", "cut at the end", "last answer lost", "500 at the end"],
)  # fmt: skip
def test_a_digest_that_is_counted_on_the_way_is_right_whatever_breaks(
    registry: FakeRegistry, weights: Path, request_: str, troubles: list[Answer]
) -> None:
    """The first PUT is that of the empty configuration."""
    registry.answer(request_, *troubles)
    made = push(registry, weights)
    assert len(registry.blobs["slm/q", Layer({"models/x/weights": weights}).measure().digest]) == made.size


def test_a_registry_without_chunks_gets_it_in_one_request_that_names_the_digest(
    registry: FakeRegistry, weights: Path
) -> None:
    registry.chunks = False
    made = push(registry, weights)
    assert registry.blobs["slm/q", Layer({"models/x/weights": weights}).measure().digest]
    assert (registry.count(PATCH), made.size > len(CONTENT)) == (1, True)


def test_a_compressed_layer_is_measured_first(registry: FakeRegistry, weights: Path, reads: list[Layer]) -> None:
    made = push(registry, weights, "Zstd")
    assert len(reads) == 2
    (layer,) = registry.manifest("slm/q", made.reference.partition("@")[2])["layers"]
    assert layer["mediaType"].endswith("+zstd")
