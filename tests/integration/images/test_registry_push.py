"""Pushing: what arrives is what was made, once, whatever breaks on the way."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from slmkit.layers import Layer
from slmkit.run import RunFailed
from slmkit.wire import ATTEMPTS
from slmops.contract import Artifact, Reason, Sink, Source
from tests.unit.images.fakeregistry import CUT, Answer, FakeRegistry, sha256

TYPE = "application/vnd.slmops.dataset.v1"
PUT_BLOB = "PUT .*/blobs/uploads/"
CONTENT = {"b.jsonl": b"second" * 1000, "a.jsonl": b"first" * 1000}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "files"
    folder.mkdir()
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in CONTENT}


def sink(registry: FakeRegistry) -> Sink:
    return Sink(repository=f"{registry.host}/slm/data")


def push(registry: FakeRegistry, files: dict[str, Path], pauses: list[float] | None = None) -> Artifact:
    return registry.client(pauses).push_artifact(sink(registry), files, TYPE, {"z": "1", "a": "2"})


def refused(registry: FakeRegistry, files: dict[str, Path]) -> RunFailed:
    with pytest.raises(RunFailed) as failed:
        push(registry, files)
    return failed.value


def test_an_artefact_is_what_the_specification_asks_for(registry: FakeRegistry, files: dict[str, Path]) -> None:
    made = push(registry, files)
    host_and_name, _, digest = made.reference.partition("@")
    assert host_and_name == f"{registry.host}/slm/data"
    manifest = registry.manifest("slm/data", digest)
    assert manifest["schemaVersion"] == 2
    assert manifest["artifactType"] == TYPE
    assert manifest["config"] == {
        "mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2,
    }  # fmt: skip
    assert [layer["annotations"]["org.opencontainers.image.title"] for layer in manifest["layers"]] == sorted(CONTENT)
    assert [layer["digest"] for layer in manifest["layers"]] == [sha256(CONTENT[name]) for name in sorted(CONTENT)]
    assert manifest["annotations"] == {"a": "2", "z": "1"}
    assert made.size == sum(map(len, CONTENT.values()))
    assert registry.manifests["slm/data", digest][0] == manifest["mediaType"]


def test_what_was_pushed_can_be_pulled(registry: FakeRegistry, files: dict[str, Path], tmp_path: Path) -> None:
    made = push(registry, files)
    address = registry.client().pull(Source(uri=f"oci://{made.reference}"), tmp_path / "out")
    assert address == f"oci://{made.reference}"
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == CONTENT


def test_the_same_files_have_the_same_digest_whoever_pushes_them(
    registry: FakeRegistry, files: dict[str, Path], tmp_path: Path
) -> None:
    made = push(registry, files)
    with FakeRegistry() as other:
        again = push(other, dict(reversed(files.items())))
    assert again.reference.partition("@")[2] == made.reference.partition("@")[2]


def test_what_the_registry_has_is_not_sent_again(registry: FakeRegistry, files: dict[str, Path]) -> None:
    push(registry, files)
    sent = registry.count(PUT_BLOB)
    assert sent == 3, "two files and the empty configuration"
    files["b.jsonl"].write_bytes(b"changed")
    push(registry, files)
    assert registry.count(PUT_BLOB) == sent + 1


@pytest.mark.parametrize("trouble", [CUT, Answer(500), Answer(502), Answer(503), Answer(429), Answer(408)])
@pytest.mark.parametrize("request_", ["HEAD .*/blobs/", "POST .*/blobs/uploads/", PUT_BLOB, "PUT .*/manifests/"])
def test_trouble_on_the_way_passes(
    registry: FakeRegistry, files: dict[str, Path], request_: str, trouble: Answer
) -> None:
    registry.answer(request_, trouble, trouble)
    pauses: list[float] = []
    digest = push(registry, files, pauses).reference.partition("@")[2]
    assert ("slm/data", digest) in registry.manifests
    assert {name: registry.blobs["slm/data", sha256(content)] for name, content in CONTENT.items()} == CONTENT
    assert len(pauses) == 2


def test_the_registrys_own_pause_is_kept_while_uploading(registry: FakeRegistry, files: dict[str, Path]) -> None:
    registry.answer(PUT_BLOB, Answer(429, headers={"Retry-After": "7"}), Answer(503, headers={"Retry-After": "600"}))
    pauses: list[float] = []
    push(registry, files, pauses)
    assert pauses == [7, 60]


def test_an_upload_that_never_arrives_ends(registry: FakeRegistry, files: dict[str, Path]) -> None:
    registry.always(PUT_BLOB, Answer(503))
    failed = refused(registry, files)
    assert failed.reason is Reason.REGISTRY_UNREACHABLE
    assert "503" in failed.message
    assert registry.count(PUT_BLOB) == ATTEMPTS
    assert registry.count("PUT .*/manifests/") == 0, "no manifest without its blobs"


@pytest.mark.parametrize("request_", ["POST .*/blobs/uploads/", PUT_BLOB, "PUT .*/manifests/"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413])
def test_a_registry_that_does_not_want_it_says_why_once(
    registry: FakeRegistry, files: dict[str, Path], request_: str, status: int
) -> None:
    words = json.dumps({"errors": [{"code": "X", "message": "quota exceeded"}]}).encode()
    registry.always(request_, Answer(status, words))
    failed = refused(registry, files)
    assert failed.reason is Reason.REGISTRY_REFUSED
    assert f"{status} quota exceeded" in failed.message
    assert registry.count(request_) == 1


@pytest.mark.parametrize(
    "words", [b"", b"<html>", b"5", b'{"errors": 5}', b'{"errors": [5]}', b"[" * 99_999, b'{"errors": [{}]}']
)
def test_a_refusal_in_other_words_is_a_refusal(registry: FakeRegistry, files: dict[str, Path], words: bytes) -> None:
    registry.always("POST .*/blobs/uploads/", Answer(403, words))
    failed = refused(registry, files)
    assert failed.reason is Reason.REGISTRY_REFUSED
    assert failed.message == f"{registry.host}/slm/data: the registry answered 403"


def test_long_words_of_the_registry_are_cut(registry: FakeRegistry, files: dict[str, Path]) -> None:
    words = json.dumps({"errors": [{"message": "x" * 100_000}]}).encode()
    registry.always("POST .*/blobs/uploads/", Answer(403, words))
    assert len(refused(registry, files).message) < 400


def test_an_endless_answer_is_not_read_to_its_end(registry: FakeRegistry, files: dict[str, Path]) -> None:
    registry.always("POST .*/blobs/uploads/", Answer(503, b"x" * (8 << 20)))
    assert refused(registry, files).reason is Reason.REGISTRY_REFUSED


@pytest.mark.parametrize("headers", [{}, {"Location": "http://h:port/"}])
def test_an_upload_without_a_place_is_refused(
    registry: FakeRegistry, files: dict[str, Path], headers: dict[str, str]
) -> None:
    registry.always("POST .*/blobs/uploads/", Answer(202, headers=headers))
    assert refused(registry, files).reason is Reason.REGISTRY_REFUSED


def test_a_tag_is_a_name_for_the_same_manifest(registry: FakeRegistry, files: dict[str, Path]) -> None:
    made = push(registry, files)
    registry.client().tag(sink(registry), made, "v1")
    assert registry.manifests["slm/data", "v1"] == registry.manifests["slm/data", made.reference.partition("@")[2]]
    assert registry.client().digest_of(f"{registry.host}/slm/data:v1") == made.reference.partition("@")[2]


def test_the_annotations_can_be_read_back(registry: FakeRegistry, files: dict[str, Path]) -> None:
    made = push(registry, files)
    assert registry.client().annotations(made.reference) == {"a": "2", "z": "1"}
    registry.publish("slm/data", {"annotations": ["x"]}, "odd")
    assert registry.client().annotations(f"{registry.host}/slm/data:odd") == {}


def test_an_image_is_its_layers_in_order(registry: FakeRegistry, files: dict[str, Path]) -> None:
    layers = [Layer({"models/x/b": files["b.jsonl"]}, "weights"), Layer({"models/x/a": files["a.jsonl"]})]
    made = registry.client().push_image(sink(registry), layers, {"k": "v"}, architecture="arm64")
    manifest = registry.manifest("slm/data", made.reference.partition("@")[2])
    config = json.loads(registry.blobs["slm/data", manifest["config"]["digest"]])
    assert (config["architecture"], config["os"]) == ("arm64", "linux")
    assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
    found = []
    for layer in manifest["layers"]:
        content = registry.blobs["slm/data", layer["digest"]]
        assert len(content) == layer["size"]
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            found += [(info.name, tar.extractfile(info).read()) for info in tar if info.isfile()]  # type: ignore[union-attr]
    assert found == [("models/x/b", CONTENT["b.jsonl"]), ("models/x/a", CONTENT["a.jsonl"])]
    assert made.size == sum(layer["size"] for layer in manifest["layers"])


def test_a_layer_is_sent_whole_again_after_a_break(registry: FakeRegistry, files: dict[str, Path]) -> None:
    registry.answer(PUT_BLOB, CUT, Answer(500))
    layer = Layer({"models/x/b": files["b.jsonl"]})
    registry.client().push_image(sink(registry), [layer], {}, architecture="amd64")
    measured = layer.measure()
    assert len(registry.blobs["slm/data", measured.digest]) == measured.size


def test_a_setting_that_changes_moves_no_weights(registry: FakeRegistry, files: dict[str, Path]) -> None:
    layers = [Layer({"models/x/b": files["b.jsonl"]}, "weights"), Layer({"models/x/a": files["a.jsonl"]}, "settings")]
    registry.client().push_image(sink(registry), layers, {}, architecture="amd64")
    before = registry.count(PUT_BLOB)
    files["a.jsonl"].write_bytes(b"other settings")
    registry.client().push_image(sink(registry), layers, {}, architecture="amd64")
    assert registry.count(PUT_BLOB) == before + 2, "the small layer and the image's configuration"
