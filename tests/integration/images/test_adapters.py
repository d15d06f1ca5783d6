"""Adapters as layers: one image of one layer each, one of all, and nothing is sent twice."""

import io
import tarfile
from pathlib import Path

import pytest

from slmkit.adapters import join, publish_layer
from slmkit.lineage import walk
from slmkit.publish import beside
from slmkit.run import Context, RunFailed
from slmops.contract import ADAPTER_TYPE, REPORT_TYPE, Artifact, JoinRun, Reason, Report, TrainRun
from tests.unit.images.fakeregistry import FakeRegistry

REPOSITORY = "slm/adapters"


def published(registry: FakeRegistry, work: Path, name: str, content: bytes) -> tuple[Artifact, Artifact]:
    """(adapter, layer) as a training publishes them."""
    folder = work / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(content)
    (folder / "adapter_config.json").write_bytes(b"{}")
    files = {path.name: path for path in folder.iterdir()}
    run = TrainRun.model_validate({
        "run": f"train-{name}", "layer": name, "train": {"source": {"uri": "oci://x/y"}, "format": "Messages"},
        "output": {"repository": f"{registry.host}/{REPOSITORY}"}, "image": "registry.example/trainer@sha256:1",
    })  # fmt: skip
    context = Context(work=work)
    context.inputs["base"] = "hf://a/b@1234567"
    adapter = registry.client().push_artifact(run.output, files, ADAPTER_TYPE, context.lineage(run))
    return adapter, publish_layer(registry.client(), run, context, files)


def joined(registry: FakeRegistry, work: Path, members: dict[str, tuple[Artifact, Artifact]], **fields: str) -> Report:
    run = JoinRun.model_validate({
        "run": "join", "registry": registry.settings, "image": "registry.example/trainer@sha256:1",
        "adapters": {name: {"adapter": {"uri": f"oci://{adapter.reference}"}, "layer": {"uri": f"oci://{layer.reference}"}}
                     for name, (adapter, layer) in members.items()},
        "output": {"repository": fields.get("repository", f"{registry.host}/{REPOSITORY}")},
    })  # fmt: skip
    return join(run, Context(work=work))


def layers(registry: FakeRegistry, made: Artifact) -> dict[str, str]:
    """Digests of an image's layers by title."""
    manifest = registry.manifest(REPOSITORY, made.reference.partition("@")[2])
    return {layer["annotations"]["org.opencontainers.image.title"]: layer["digest"] for layer in manifest["layers"]}


def uploads(registry: FakeRegistry) -> list[str]:
    return [request for request in registry.requests if request.startswith("PUT") and "/blobs/uploads/" in request]


def test_the_image_of_all_has_a_layer_for_each_below_its_name(registry: FakeRegistry, tmp_path: Path) -> None:
    members = {name: published(registry, tmp_path, name, name.encode() * 99) for name in ("irrigation", "greenhouse")}
    image = joined(registry, tmp_path, members).artifacts["image"]
    found = layers(registry, image)
    assert list(found) == ["greenhouse", "irrigation"], "in the order of names"
    assert image.size == sum(layer.size for _, layer in members.values())
    for name, digest in found.items():
        with tarfile.open(fileobj=io.BytesIO(registry.blobs[REPOSITORY, digest])) as tar:
            inside = {member.name for member in tar if member.isfile()}
        assert inside == {f"adapters/{name}/adapter_config.json", f"adapters/{name}/adapter_model.safetensors"}


def test_a_layer_and_what_lies_beside_a_model_say_what_they_are_from(registry: FakeRegistry, tmp_path: Path) -> None:
    _, layer = published(registry, tmp_path, "irrigation", b"x")
    run = TrainRun.model_validate({
        "run": "train", "train": {"source": {"uri": "oci://x/y"}, "format": "Messages"}, "annotations": {"who": "a"},
        "output": {"repository": f"{registry.host}/{REPOSITORY}"}, "image": "registry.example/trainer@sha256:1",
    })  # fmt: skip
    context = Context(work=tmp_path)
    context.inputs["base"] = "hf://a/b@1234567"
    (tmp_path / "report.html").write_text("<p>")
    page = beside(registry.client(), run, context, {"report.html": tmp_path / "report.html"}, REPORT_TYPE)
    for made in (layer, page):
        said = registry.manifest(REPOSITORY, made.reference.partition("@")[2])["annotations"]
        assert said["slmops.dev/input.base"] == "hf://a/b@1234567"
        assert said["slmops.dev/image"] == "registry.example/trainer@sha256:1"
        assert said["slmops.dev/configuration"].startswith("sha256:")
    assert said["who"] == "a"


def test_a_change_of_one_sends_that_layer_alone_and_joining_sends_none(registry: FakeRegistry, tmp_path: Path) -> None:
    members = {name: published(registry, tmp_path, name, name.encode() * 99) for name in ("irrigation", "greenhouse")}
    first = layers(registry, joined(registry, tmp_path, members).artifacts["image"])
    members["greenhouse"] = published(registry, tmp_path, "greenhouse", b"changed")
    blobs = set(registry.blobs)
    registry.requests.clear()
    second = layers(registry, joined(registry, tmp_path, members).artifacts["image"])
    assert first["irrigation"] == second["irrigation"]
    assert first["greenhouse"] != second["greenhouse"]
    new = {digest: len(registry.blobs[REPOSITORY, digest]) for _, digest in set(registry.blobs) - blobs}
    assert max(new.values()) < 32768, "configuration, provenance and bill of materials"
    assert not any(f"blobs/{digest}" in request for request in registry.requests for digest in second.values())


def test_the_way_back_leads_from_the_image_over_the_adapters_to_the_base(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    members = {name: published(registry, tmp_path, name, name.encode()) for name in ("irrigation", "greenhouse")}
    image = joined(registry, tmp_path, members).artifacts["image"]
    links = {(link.depth, link.role): link.uri for link in walk(registry.client(), image.reference)}
    assert links[1, "adapter.irrigation"] == f"oci://{members['irrigation'][0].reference}"
    assert links[2, "base"] == "hf://a/b@1234567"


def test_the_same_adapters_are_the_same_image(registry: FakeRegistry, tmp_path: Path) -> None:
    members = {name: published(registry, tmp_path, name, name.encode()) for name in ("irrigation", "greenhouse")}
    first, again = (joined(registry, tmp_path, members).artifacts["image"] for _ in range(2))
    assert first.reference == again.reference, "the documents that refer to it tell of two runs"


def test_layers_of_another_repository_are_taken_over_by_the_registry(registry: FakeRegistry, tmp_path: Path) -> None:
    members = {"irrigation": published(registry, tmp_path, "irrigation", b"x" * 9999)}
    registry.received = 0
    there = f"{registry.host}/slm/elsewhere"
    image = joined(registry, tmp_path, members, repository=there).artifacts["image"]
    assert registry.received < 9999, "configuration, provenance and bill of materials"
    digest = layers(registry, joined(registry, tmp_path, members).artifacts["image"])["irrigation"]
    assert registry.blobs["slm/elsewhere", digest] == registry.blobs[REPOSITORY, digest]
    assert image.reference.startswith(f"{there}@")


def test_what_is_no_image_is_refused(registry: FakeRegistry, tmp_path: Path) -> None:
    adapter, _ = published(registry, tmp_path, "irrigation", b"x")
    with pytest.raises(RunFailed) as failed:
        joined(registry, tmp_path, {"irrigation": (adapter, adapter)})
    assert failed.value.reason is Reason.UNSAFE_SOURCE
    assert "is not a plain tar" in failed.value.message
