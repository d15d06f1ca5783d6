"""Steps that fail: each ends in a condition that names cause and remedy, nothing loops, and mending goes on from there."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from demo.assets import records
from demo.steps import Manifest, condition, wait_for
from demo.task import IRRIGATION
from slmkit.data import write_messages
from slmkit.registry import Registry
from slmops import contract
from slmops.contract import DATASET_TYPE, Sink
from tests.cluster import Cluster
from tests.e2e.platform import NAMESPACE, REFUSING, Platform

pytestmark = pytest.mark.cluster
SECONDS = 600


def _dataset(platform: Platform, folder: Path, name: str, spoil: int | None = None) -> str:
    """Push forty records, one of them cut off where wanted. Returns the address by tag."""
    path = folder / "train.jsonl"
    write_messages(path, records((IRRIGATION,), 4, 40))
    if spoil is not None:
        lines = path.read_text().splitlines()
        lines[spoil - 1] = lines[spoil - 1][:30]
        path.write_text("\n".join(lines) + "\n")
    client = Registry(contract.Registry(plain_http=platform.cluster.plain_http))
    sink = Sink(repository=f"{platform.registry}/slm/data/{name}")
    client.tag(sink, client.push_artifact(sink, {path.name: path}, DATASET_TYPE, {}), "v1")
    return f"oci://{sink.repository}:v1"


def _finetune(platform: Platform, name: str, data: str, **spec: Any) -> Manifest:
    return {
        "apiVersion": "slmops.dev/v1alpha1", "kind": "FineTune", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "base": {"uri": f"oci://{platform.registry}/slm/teacher:v1"},
            "lora": {"rank": 4},
            "data": {"train": {"uri": data}, "validationSplit": 0.2},
            "training": {"epochs": 1, "batchSize": 8},
            "evaluation": {"samples": 4, "maxNewTokens": 8},
            "output": {"repository": f"{platform.registry}/slm/{name}"},
            **spec,
            "run": {"nodeSelector": {"pool": "gpu"}, "retries": 0} | spec.get("run", {}),
        },
    }  # fmt: skip


def _fails(platform: Platform, name: str, reason: str, *words: str) -> str:
    """Wait for the failure; check reason and words."""
    manifest = platform.wait("finetune", name, "Succeeded", "False", SECONDS)
    found = condition(manifest, "Succeeded")
    assert found["reason"] == reason, found
    for word in words:
        assert word in found["message"], found
    return str(found["message"])


def _pods(platform: Platform, name: str) -> set[str]:
    return {pod["metadata"]["name"] for pod in platform.kubectl.items("pods", "-l", f"slmops.dev/name={name}")}


def _at_rest(platform: Platform, *names: str) -> None:
    """No write and no new pod while the Lease is renewed three times."""

    def seen() -> dict[str, tuple[str, set[str]]]:
        found = {name: platform.kubectl.get("finetune", name) or {} for name in names}
        return {name: (it["metadata"]["resourceVersion"], _pods(platform, name)) for name, it in found.items()}

    before = seen()
    platform.renewals(3)
    assert seen() == before


def test_a_bad_record_is_named_and_mending_the_data_goes_on(platform: Platform, tmp_path: Path) -> None:
    data = _dataset(platform, tmp_path, "e2e-bad", spoil=17)
    platform.apply(_finetune(platform, "bad-data", data))
    _fails(platform, "bad-data", "InvalidData", "train.jsonl", "17", "Mend the named record")
    _at_rest(platform, "bad-data")
    _dataset(platform, tmp_path, "e2e-bad")
    platform.annotate("finetune", "bad-data", retry="1")
    platform.wait("finetune", "bad-data", "Succeeded", "True", SECONDS)


def test_a_source_that_does_not_exist(platform: Platform) -> None:
    missing = f"oci://{platform.registry}/slm/data/nowhere:v1"
    platform.apply(_finetune(platform, "no-source", missing, run={"retries": 3}))
    _fails(platform, "no-source", "SourceNotFound", "nowhere", "Check repository, tag and path")
    assert len(_pods(platform, "no-source")) == 1, "a retry cannot help"


def test_a_source_that_cannot_be_reached(platform: Platform) -> None:
    platform.apply(_finetune(platform, "unreachable", "oci://10.77.0.1:1/slm/data/x:v1", run={"retries": 1}))
    _fails(platform, "unreachable", "SourceUnreachable", "10.77.0.1:1", "network path")
    assert len(_pods(platform, "unreachable")) == 2, "a retry may help, and was made once"


@pytest.mark.parametrize(("name", "address"), [("node-metadata", "169.254.169.254"), ("api-server", "10.79.0.1")])
def test_an_address_that_is_nobodys_data_is_not_asked(platform: Platform, name: str, address: str) -> None:
    """What a pod can reach and a user cannot: the cloud's metadata, the cluster's own services."""
    platform.apply(_finetune(platform, name, f"http://{address}/latest/train.jsonl"))
    _fails(platform, name, "UnsafeSource", f"{address} is an internal address")


def test_out_of_memory_names_the_limit_and_more_memory_goes_on(platform: Platform, tmp_path: Path) -> None:
    data = _dataset(platform, tmp_path, "e2e-good")
    small = {"resources": {"requests": {"memory": "100Mi"}, "limits": {"memory": "120Mi"}}}
    platform.apply(_finetune(platform, "no-memory", data, run=small))
    _fails(platform, "no-memory", "OutOfMemory", "spec.run.resources.limits.memory")
    platform.patch("finetune", "no-memory", {"run": {"resources": {"limits": {"memory": "3Gi"}}}})
    platform.wait("finetune", "no-memory", "Succeeded", "True", SECONDS)


def test_a_missing_image_is_named_and_another_goes_on(platform: Platform, tmp_path: Path) -> None:
    data = _dataset(platform, tmp_path, "e2e-good")
    missing = f"{platform.registry}/slmops/nothing@sha256:{'0' * 64}"
    platform.apply(_finetune(platform, "no-image", data, run={"image": missing}))
    _fails(platform, "no-image", "ImageUnavailable", missing, "spec.run.image")
    platform.patch("finetune", "no-image", {"run": {"image": None}})
    platform.wait("finetune", "no-image", "Succeeded", "True", SECONDS)


class _Refusal(BaseHTTPRequestHandler):
    def _refuse(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        body = b'{"errors":[{"code":"DENIED","message":"quota of the project is spent"}]}'
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _refuse

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def refusing(local: Cluster) -> Iterator[str]:
    """A registry that answers 403 to everything."""
    host, _, port = REFUSING.partition(":")
    with ThreadingHTTPServer((host, int(port)), _Refusal) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield REFUSING
        server.shutdown()
        thread.join()


def test_a_registry_that_refuses(platform: Platform, refusing: str, tmp_path: Path) -> None:
    data = _dataset(platform, tmp_path, "e2e-good")
    platform.apply(_finetune(platform, "refused", data, output={"repository": f"{refusing}/slm/refused"}))
    _fails(platform, "refused", "RegistryRefused", refusing, "spec.output.credentials")
    platform.patch("finetune", "refused", {"output": {"repository": f"{platform.registry}/slm/refused"}})
    platform.wait("finetune", "refused", "Succeeded", "True", SECONDS)


def test_a_reference_to_nothing_waits_and_says_so(platform: Platform, tmp_path: Path) -> None:
    data = _dataset(platform, tmp_path, "e2e-good")
    platform.apply(_finetune(platform, "orphan", data, base={"distillation": {"name": "nobody"}}))
    begun = time.monotonic()
    manifest = platform.wait("finetune", "orphan", "InputsResolved", "Unknown", 30)
    found = condition(manifest, "InputsResolved")
    assert "nobody" in found["message"], found
    assert time.monotonic() - begun < 30
    assert platform.kubectl.items("jobs", "-l", "slmops.dev/name=orphan") == []


def test_deleting_a_resource_takes_its_job_along(platform: Platform, tmp_path: Path) -> None:
    data = _dataset(platform, tmp_path, "e2e-good")
    platform.apply(_finetune(platform, "gone", data))
    wait_for("its Job", lambda: bool(platform.kubectl.items("jobs", "-l", "slmops.dev/name=gone")), 30)
    platform.kubectl("delete", "finetune", "gone", "-n", NAMESPACE)
    left = ("jobs,pods,configmaps", "-l", "slmops.dev/name=gone")
    wait_for("its children to go", lambda: platform.kubectl.items(*left) == [], 60)


def test_the_operator_leaves_alone_what_has_failed(platform: Platform) -> None:
    """All that this module, and any before it, left failed."""
    failed = [
        manifest["metadata"]["name"]
        for manifest in platform.kubectl.items("finetunes")
        if manifest.get("status", {}).get("phase") == "Failed"
    ]
    assert {"no-source", "unreachable"} <= set(failed)
    _at_rest(platform, *failed)
