"""Models of strangers on the real cluster: what must not be loaded gets neither into an image nor onto a node's server."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from demo.steps import Manifest, condition
from slmkit.layers import Layer
from slmkit.registry import Registry
from slmops import contract
from slmops.contract import MODEL_TYPE, Artifact, Sink, Source
from tests.e2e.platform import NAMESPACE, Platform
from tests.unit.images.onnxbytes import GOOD, graph, model, node, outside, place

pytestmark = pytest.mark.cluster
SECONDS = 600
ELSEWHERE = model(graph((), [outside("w", [1], {"location": "../../etc/passwd"})]))


def client(platform: Platform) -> Registry:
    return Registry(contract.Registry(plain_http=platform.cluster.plain_http))


def pushed(platform: Platform, folder: Path, name: str, content: bytes, config: Mapping[str, object]) -> Artifact:
    """A model image as anybody can push one."""
    place(folder, content)
    (folder / "genai_config.json").write_text(json.dumps(config))
    files = {f"/models/{name}/{path.name}": path for path in sorted(folder.iterdir())}
    sink = Sink(repository=f"{platform.registry}/slm/{name}")
    return client(platform).push_image(sink, [Layer(files)], {}, architecture="amd64")


def deployment(name: str, image: str) -> Manifest:
    return {
        "apiVersion": "slmops.dev/v1alpha1", "kind": "EdgeDeployment", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"model": {"image": image}, "pools": [{"name": "farms", "selector": {"matchLabels": {"pool": "farms"}}}]},
    }  # fmt: skip


PLAIN = {"model": {"decoder": {"filename": "model.onnx"}}, "search": {}}
HOSTILE = {
    "elsewhere": (ELSEWHERE, PLAIN, "'../../etc/passwd' is no name of a file in the model's folder"),
    "operator": (model(graph([node("Mine", domain="com.example")])), PLAIN, "operator com.example.Mine"),
    "library": (GOOD, {"model": {"decoder": {"filename": "model.onnx", "session_options": {
        "custom_ops_library": "libmine.so"}}}}, "custom_ops_library names a place or a library"),
}  # fmt: skip


@pytest.mark.parametrize("hostile", HOSTILE)
def test_an_image_that_must_not_be_loaded_is_refused_before_any_server_has_it(
    platform: Platform, tmp_path: Path, hostile: str
) -> None:
    content, config, words = HOSTILE[hostile]
    name = f"hostile-{hostile}"
    image = pushed(platform, tmp_path / "m", name, content, config)
    platform.apply(deployment(name, image.reference))
    found = condition(platform.wait("edgedeployment", name, "Promoted", "False", SECONDS), "Promoted")
    assert found["reason"] == "UnsafeSource", found
    assert words in found["message"]
    assert platform.kubectl.items("pods", "-l", f"slmops.dev/name={name},slmops.dev/role=serve") == []
    platform.kubectl("delete", "edgedeployment", name, "-n", NAMESPACE)


def test_a_source_with_a_graph_that_reads_elsewhere_is_refused_and_nothing_is_published(
    platform: Platform, tmp_path: Path
) -> None:
    registry = client(platform)
    registry.pull(Source(uri=f"oci://{platform.registry}/slm/teacher:v1"), tmp_path)
    (tmp_path / "extra.onnx").write_bytes(ELSEWHERE)
    files = {str(path.relative_to(tmp_path)): path for path in tmp_path.rglob("*") if path.is_file()}
    made = registry.push_artifact(Sink(repository=f"{platform.registry}/slm/e2e-graph"), files, MODEL_TYPE, {})
    platform.apply({
        "apiVersion": "slmops.dev/v1alpha1", "kind": "QuantizedModel",
        "metadata": {"name": "hostile-source", "namespace": NAMESPACE},
        "spec": {
            "model": {"uri": f"oci://{made.reference}"},
            "variants": [{"name": "cpu", "target": {"architecture": "amd64"}, "precision": "INT4"}],
            "run": {"nodeSelector": {"pool": "gpu"}, "retries": 0},
            "output": {"repository": f"{platform.registry}/slm/hostile-source"},
        },
    })  # fmt: skip
    resource = platform.wait("quantizedmodel", "hostile-source", "Succeeded", "False", SECONDS)
    found = condition(resource, "Succeeded")
    assert found["reason"] == "UnsafeSource", found
    assert "extra.onnx: '../../etc/passwd' is no name" in found["message"]
    assert [variant.get("reference") for variant in resource["status"]["variants"]] == [None]
