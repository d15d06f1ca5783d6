"""A model image is an image like any other: crane and oras read it, a pod mounts it, and KServe's way of doing that works
where KServe mounts it, too; where KServe needs a shell in it, it works with one more layer that has one."""

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from demo.steps import Manifest, wait_for
from slm_quantizer.pack import layers
from slmkit import bom, provenance
from slmkit.layers import Compression, Layer
from slmkit.registry import Platform as Variant
from slmkit.registry import Registry
from slmops import contract
from slmops.contract import Sink, Source
from tests.cluster.binaries import ORAS, build
from tests.e2e.chain import Seen
from tests.e2e.platform import NAMESPACE, Platform
from tests.e2e.web import restricted

pytestmark = pytest.mark.cluster
NAME = "interop"
FILES = {
    "model.onnx": b"graph" * 999, "model.onnx.data": bytes(range(256)) * 70_000, "genai_config.json": b"{}",
    "tokenizer.json": b"[]",
}  # fmt: skip
"""More weights than go in one chunk."""
READ = """
import hashlib, json, pathlib, sys
root = pathlib.Path(sys.argv[1])
files = [path for path in root.rglob("*") if path.is_file()]
print(json.dumps({str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}))
"""
AWAITED = "import pathlib, time\nwhile not pathlib.Path('/mnt/models').exists(): time.sleep(0.1)\n" + READ
"""As KServe's servers wait for a modelcar."""
CHECK = ["sh", "-c", '[ -d /models ] && [ "$$(ls -A /models)" ] && echo OK || exit 1']
MODELCAR = ["sh", "-c", "ln -sf /proc/$$$$/root/models /mnt/models && sleep infinity"]
"""What KServe runs in an image of ``oci://``, first to look whether there is a model, then to share it. Kubernetes makes
one dollar of two."""


@dataclass(frozen=True)
class Image:
    """One that was published."""

    reference: str
    layers: list[Layer]
    registry: Registry


@pytest.fixture(scope="module", params=["None", "Zstd"])
def image(platform: Platform, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """A model image, as the quantizer makes them."""
    compression: Compression = request.param
    folder = tmp_path_factory.mktemp("model")
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    registry = Registry(contract.Registry(plain_http=platform.cluster.plain_http))
    sink = Sink(repository=f"{platform.registry}/e2e/interop-{compression.lower()}")
    packed = layers(folder, NAME, compression)
    made = registry.push_image(sink, packed, {"org.opencontainers.image.title": NAME}, architecture="amd64")
    return Image(made.reference, packed, registry)


def oras(platform: Platform, command: str, *arguments: str) -> str:
    build(ORAS)
    plain = ["--plain-http"] if platform.cluster.plain_http else []
    program = [str(platform.cluster.bin("oras")), *command.split()]
    return subprocess.check_output([*program, *plain, *arguments], text=True)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# --- by other people's tools


def test_crane_reads_every_file(platform: Platform, image: Image) -> None:
    digest = image.reference.partition("@")[2]
    assert f"sha256:{sha256(platform.crane('manifest', image.reference))}" == digest
    config = json.loads(platform.crane("config", image.reference))
    assert (config["architecture"], config["os"]) == ("amd64", "linux")
    assert config["rootfs"]["diff_ids"] == [layer.measure().diff_id for layer in image.layers]
    # Fast, since otherwise crane takes every layer for one of gzip.
    platform.crane("validate", "--fast", "--remote", image.reference)
    with tarfile.open(fileobj=io.BytesIO(platform.crane("export", image.reference, "-"))) as tar:
        found = {info.name: tar.extractfile(info).read() for info in tar if info.isfile()}  # type: ignore[union-attr]
    assert found == {f"models/{NAME}/{name}": content for name, content in FILES.items()}


def test_oras_pulls_the_layers_by_their_names(platform: Platform, image: Image, tmp_path: Path) -> None:
    oras(platform, "pull", "-o", str(tmp_path), image.reference)
    found = {path.name: f"sha256:{sha256(path.read_bytes())}" for path in tmp_path.iterdir()}
    assert found == {layer.title: layer.measure().digest for layer in image.layers}
    manifest = json.loads(oras(platform, "manifest fetch", image.reference))
    assert [layer["mediaType"] for layer in manifest["layers"]] == [layer.media_type for layer in image.layers]


def test_oras_discovers_what_is_said_of_an_image(platform: Platform, chain: Seen) -> None:
    status = chain.resources["quantizedmodel", "farm-irrigation"]["status"]
    for variant in status["variants"]:
        reference = variant["reference"]
        found = json.loads(oras(platform, "discover", "--format", "json", reference))
        known = [each["digest"] for each in found.get("referrers") or found["manifests"]]
        repository = reference.partition("@")[0]
        documents = [json.loads(oras(platform, "manifest fetch", f"{repository}@{digest}")) for digest in known]
        assert {provenance.MEDIA_TYPE, bom.MEDIA_TYPE} <= {document["artifactType"] for document in documents}
        assert {document["subject"]["digest"] for document in documents} == {reference.partition("@")[2]}


@pytest.fixture(scope="module")
def index(platform: Platform, image: Image, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The image under one address with another one, for arm64, that stands before it."""
    folder = tmp_path_factory.mktemp("other")
    (folder / "model.onnx").write_bytes(b"for another platform")
    sink = Sink(repository=image.reference.partition("@")[0])
    other = image.registry.push_image(sink, layers(folder, NAME), {}, architecture="arm64")
    members = [
        Variant("arm", Source(uri=f"oci://{other.reference}"), "arm64"),
        Variant("amd", Source(uri=f"oci://{image.reference}"), "amd64"),
    ]
    return replace(image, reference=image.registry.push_index(sink, members, {}).reference)


def test_crane_finds_each_platform_in_an_index(platform: Platform, image: Image, index: Image) -> None:
    platform.crane("validate", "--fast", "--remote", index.reference)
    wanted = {"linux/amd64": image.reference.partition("@")[2]}
    found = {name: platform.crane("digest", "--platform", name, index.reference).decode().strip() for name in wanted}
    assert found == wanted
    for name in ("amd64", "arm64"):
        config = json.loads(platform.crane("config", "--platform", f"linux/{name}", index.reference))
        assert config["architecture"] == name


# --- by pods


@pytest.fixture
def pods(platform: Platform) -> Iterator[list[str]]:
    """Names of pods that go at the end."""
    names: list[str] = []
    yield names
    platform.kubectl("delete", "pod", *names, "-n", NAMESPACE, "--ignore-not-found", "--grace-period=0", "--force")


def start(platform: Platform, pods: list[str], name: str, spec: Manifest) -> None:
    pods.append(name)
    meta = {"name": name, "namespace": NAMESPACE}
    platform.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec | {"restartPolicy": "Never"}})


def phase(platform: Platform, name: str) -> str:
    return str((platform.kubectl.get("pod", name) or {}).get("status", {}).get("phase"))


def mounting(platform: Platform, image: Image, **mount: Any) -> Manifest:
    """A pod that tells the digest of every file of an image volume."""
    return restricted(
        platform.images["operator"], "-c", READ, mount["mountPath"],
        container={"volumeMounts": [{"name": "model", "readOnly": True, **mount}]},
        volumes=[{"name": "model", "image": {"reference": image.reference}}],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("mount", "prefix"),
    [({"mountPath": "/model"}, f"models/{NAME}/"), ({"mountPath": "/mnt/models", "subPath": "models"}, f"{NAME}/")],
    ids=["as our servers do", "as KServe does for oci+native://"],
)
def test_a_pod_mounts_it(platform: Platform, image: Image, pods: list[str], mount: dict[str, str], prefix: str) -> None:
    start(platform, pods, "interop-mount", mounting(platform, image, **mount))
    ended = lambda: phase(platform, "interop-mount") in ("Succeeded", "Failed")  # noqa: E731
    wait_for("the end of the pod", ended, 120, lambda: platform.show("pod", "interop-mount"))
    said = json.loads(platform.kubectl("logs", "-n", NAMESPACE, "interop-mount"))
    assert said == {f"{prefix}{name}": sha256(content) for name, content in FILES.items()}


def test_a_pod_that_mounts_an_index_gets_what_is_for_its_node(
    platform: Platform, index: Image, pods: list[str]
) -> None:
    start(platform, pods, "interop-index", mounting(platform, index, mountPath="/model"))
    ended = lambda: phase(platform, "interop-index") in ("Succeeded", "Failed")  # noqa: E731
    wait_for("the end of the pod", ended, 120, lambda: platform.show("pod", "interop-index"))
    said = json.loads(platform.kubectl("logs", "-n", NAMESPACE, "interop-index"))
    assert said[f"models/{NAME}/model.onnx"] == sha256(FILES["model.onnx"])


def modelcar(platform: Platform, reference: str) -> Manifest:
    """A pod as KServe makes it of ``oci://``: a look at the model, and the model beside a server, which reads it."""
    spec = restricted(platform.images["operator"], "-c", AWAITED, "/mnt/models", shareProcessNamespace=True)
    inside = spec["containers"][0]["securityContext"]
    shared = {"volumeMounts": [{"name": "mnt", "mountPath": "/mnt"}]}
    car = {"name": "modelcar", "image": reference, "args": MODELCAR, "securityContext": inside} | shared
    look = {"name": "modelcar-init", "image": reference, "args": CHECK, "securityContext": inside}
    containers = [spec["containers"][0] | shared, car]
    return spec | {"initContainers": [look], "containers": containers, "volumes": [{"name": "mnt", "emptyDir": {}}]}


def states(platform: Platform, name: str, kind: str = "containerStatuses") -> dict[str, Any]:
    """Of the containers of a pod, by name."""
    pod = platform.kubectl.get("pod", name) or {}
    return {each["name"]: each["state"] for each in pod.get("status", {}).get(kind, [])}


def test_as_a_modelcar_it_has_no_shell_to_run(platform: Platform, image: Image, pods: list[str]) -> None:
    """What docs/model-images.md says of KServe's older form."""
    start(platform, pods, "interop-modelcar", modelcar(platform, image.reference))

    def words() -> str:
        return str(states(platform, "interop-modelcar", "initContainerStatuses"))

    wait_for("the modelcar's end", lambda: '"sh"' in words(), 120, lambda: platform.show("pod", "interop-modelcar"))
    assert "executable file not found" in words()


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layer with the programs that KServe runs: Debian's static busybox."""
    folder = tmp_path_factory.mktemp("shell")
    subprocess.run(["apt-get", "-qq", "download", "busybox-static"], cwd=folder, check=True, capture_output=True)
    (package,) = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", package, folder / "unpacked"], check=True)
    (program,) = (path for path in (folder / "unpacked").rglob("busybox") if path.is_file() and "bin" in path.parts)
    with tarfile.open(folder / "shell.tar", "w") as tar:
        info = tarfile.TarInfo("bin/busybox")
        info.size, info.mode = program.stat().st_size, 0o755
        with program.open("rb") as file:
            tar.addfile(info, file)
        for name in ("sh", "ln", "ls", "sleep"):
            info = tarfile.TarInfo(f"bin/{name}")
            info.type, info.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(info)
    return folder / "shell.tar"


def test_with_a_shell_in_one_more_layer_it_is_a_modelcar(
    platform: Platform, image: Image, pods: list[str], shell: Path
) -> None:
    tag = f"{image.reference.partition('@')[0]}:modelcar"
    platform.crane("append", "--base", image.reference, "--new_layer", str(shell), "--new_tag", tag)
    added = json.loads(platform.crane("manifest", tag))["layers"]
    assert [layer["digest"] for layer in added[:-1]] == [layer.measure().digest for layer in image.layers]
    name = "interop-car"
    start(platform, pods, name, modelcar(platform, tag))
    ended = lambda: "terminated" in states(platform, name).get("main", {})  # noqa: E731
    wait_for("the server to have read the model", ended, 120, lambda: platform.show("pod", name))
    said = platform.kubectl("logs", "-n", NAMESPACE, name, "-c", "main")
    wanted = {f"{NAME}/{file}": sha256(content) for file, content in FILES.items()}
    assert json.loads(said) == wanted, "through the other container"
    assert "running" in states(platform, name)["modelcar"]
