"""What a run may read and whom it may ask: licences, object stores, digests, files that run, and the network around it."""

import hashlib
import json
import threading
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
from slmops.contract import DATASET_TYPE, MODEL_TYPE, Sink, Source
from tests.cluster import Cluster
from tests.e2e.platform import NAMESPACE, REFUSING, Platform
from tests.e2e.web import PYTHON, Web
from tests.unit.images.s3store import Store

pytestmark = pytest.mark.cluster
SECONDS = 600
HOST, PORT = REFUSING.split(":")
ELSEWHERE = 5998
"""Port of a server that nobody lists; the other is named as plain HTTP when the tests install."""


def lines(folder: Path) -> bytes:
    """A small data set."""
    path = folder / "train.jsonl"
    write_messages(path, records((IRRIGATION,), 4, 40))
    return path.read_bytes()


def client(platform: Platform) -> Registry:
    return Registry(contract.Registry(plain_http=platform.cluster.plain_http))


def dataset(platform: Platform, folder: Path) -> str:
    """Push it. Returns the address."""
    lines(folder)
    sink = Sink(repository=f"{platform.registry}/slm/data/e2e-trust")
    made = client(platform).push_artifact(sink, {"train.jsonl": folder / "train.jsonl"}, DATASET_TYPE, {})
    return f"oci://{made.reference}"


def finetune(platform: Platform, name: str, data: str, **spec: Any) -> Manifest:
    """A FineTune of seconds."""
    return {
        "apiVersion": "slmops.dev/v1alpha1", "kind": "FineTune", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "base": {"uri": f"oci://{platform.registry}/slm/teacher:v1"},
            "lora": {"rank": 4}, "data": {"train": {"uri": data}, "validationSplit": 0.2},
            "training": {"epochs": 1, "batchSize": 8, "maxSteps": 2}, "evaluation": {"samples": 2, "maxNewTokens": 4},
            "output": {"repository": f"{platform.registry}/slm/{name}"},
            **spec, "run": {"nodeSelector": {"pool": "gpu"}, "retries": 0} | spec.get("run", {}),
        },
    }  # fmt: skip


def told(platform: Platform, name: str, reason: str, *words: str) -> None:
    """Wait for the failure, with its words and its remedy."""
    found = condition(platform.wait("finetune", name, "Succeeded", "False", SECONDS), "Succeeded")
    assert found["reason"] == reason, found
    for word in words:
        assert word in found["message"], found


# --- licences and files


def model(platform: Platform, folder: Path, name: str, extra: dict[str, bytes]) -> str:
    """The teacher under another name, with these files besides."""
    registry = client(platform)
    registry.pull(Source(uri=f"oci://{platform.registry}/slm/teacher:v1"), folder)
    for file, content in extra.items():
        (folder / file).write_bytes(content)
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    made = registry.push_artifact(Sink(repository=f"{platform.registry}/slm/{name}"), files, MODEL_TYPE, {})
    return f"oci://{made.reference}"


def test_a_licence_that_is_not_let_in_is_refused_and_another_policy_goes_on(platform: Platform, tmp_path: Path) -> None:
    base = model(platform, tmp_path / "m", "e2e-gemma", {"README.md": b"---\nlicense: gemma\n---\n# Model\n"})
    data = dataset(platform, tmp_path)
    policy = {"allow": ["MIT", "Apache-2.0"]}
    platform.apply(finetune(platform, "licence", data, base={"uri": base}, licensePolicy=policy))
    told(platform, "licence", "LicenseRefused", "LicenseRef-gemma (README.md)", "only MIT, Apache-2.0 is let in",
         "spec.licensePolicy.allow")  # fmt: skip
    platform.patch("finetune", "licence", {"licensePolicy": {"allow": ["LicenseRef-gemma"]}})
    done = platform.wait("finetune", "licence", "Succeeded", "True", SECONDS)
    assert done["status"]["licenses"] == {"base": "LicenseRef-gemma"}
    stated = client(platform).annotations(done["status"]["artifact"]["reference"])
    assert stated["org.opencontainers.image.licenses"] == "LicenseRef-gemma", "what is made from it stands under it"


def test_a_licence_that_nobody_knows_is_refused(platform: Platform, tmp_path: Path) -> None:
    data = dataset(platform, tmp_path)
    platform.apply(finetune(platform, "no-licence", data, licensePolicy={"allow": ["MIT"]}))
    told(platform, "no-licence", "LicenseRefused", "its licence is not known", "no LICENSE file")


def test_a_pickle_is_refused(platform: Platform, tmp_path: Path) -> None:
    base = model(platform, tmp_path / "m", "e2e-pickle", {"pytorch_model.bin": b"\x80\x04."})
    platform.apply(finetune(platform, "pickle", dataset(platform, tmp_path), base={"uri": base}))
    told(platform, "pickle", "UnsafeSource", "pytorch_model.bin", "Publish models as safetensors")


def test_a_tokenizer_that_never_ends_is_refused(platform: Platform, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    client(platform).pull(Source(uri=f"oci://{platform.registry}/slm/teacher:v1"), folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"Regex": "(a+)+$"},
        "behavior": "Isolated",
        "invert": False,
    }
    base = model(platform, folder, "e2e-tokenizer", {"tokenizer.json": json.dumps(content).encode()})
    platform.apply(finetune(platform, "endless", dataset(platform, tmp_path), base={"uri": base}))
    told(platform, "endless", "UnsafeSource", "tokenizer.json", "can take for ever")


# --- servers


class _Page(BaseHTTPRequestHandler):
    content: dict[str, bytes | str]

    def do_GET(self) -> None:
        found = self.content.get(self.path)
        self.send_response(404 if found is None else 302 if isinstance(found, str) else 200)
        if isinstance(found, str):
            self.send_header("Location", found)
        body = found if isinstance(found, bytes) else b""
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def serve(port: int, content: dict[str, bytes | str]) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer((HOST, port), type("Bound", (_Page,), {"content": content}))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


@pytest.fixture
def pages(local: Cluster) -> Iterator[dict[int, dict[str, bytes | str]]]:
    """Two web servers on the host, by port; the first may speak plainly."""
    content: dict[int, dict[str, bytes | str]] = {int(PORT): {}, ELSEWHERE: {}}
    servers = [serve(port, page) for port, page in content.items()]
    yield content
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_redirect_to_somebody_who_is_not_listed_is_refused_and_listing_goes_on(
    platform: Platform, pages: dict[int, dict[str, bytes | str]], tmp_path: Path
) -> None:
    data = lines(tmp_path)
    pages[int(PORT)]["/train.jsonl"] = f"http://{HOST}:{ELSEWHERE}/train.jsonl"
    pages[ELSEWHERE]["/train.jsonl"] = data
    address = f"http://{REFUSING}/train.jsonl#sha256={hashlib.sha256(data).hexdigest()}"
    platform.apply(finetune(platform, "elsewhere", address, run={"egress": []}))
    told(platform, "elsewhere", "EgressRefused", f"{HOST}:{ELSEWHERE} is not listed", "spec.run.egress")
    platform.patch("finetune", "elsewhere", {"run": {"egress": [{"cidr": f"{HOST}/32", "port": ELSEWHERE}]}})
    done = platform.wait("finetune", "elsewhere", "Succeeded", "True", SECONDS)
    assert done["status"]["inputs"]["train"] == address


def test_a_file_that_is_not_the_one_that_was_meant_is_refused(
    platform: Platform, pages: dict[int, dict[str, bytes | str]], tmp_path: Path
) -> None:
    pages[int(PORT)]["/train.jsonl"] = lines(tmp_path)
    platform.apply(finetune(platform, "other-bytes", f"http://{REFUSING}/train.jsonl#sha256={'0' * 64}"))
    told(platform, "other-bytes", "UnsafeSource", "the file's digest is sha256=")


def test_an_object_store_with_the_standard_keys(platform: Platform, local: Cluster, tmp_path: Path) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "ann", "AWS_SECRET_ACCESS_KEY": "canary-s3", "AWS_REGION": "eu-north-1"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "store", "namespace": NAMESPACE}}
    platform.apply(secret | {"stringData": keys | {"AWS_SECRET_ACCESS_KEY": "wrong"}})
    with Store({"data/train.jsonl": lines(tmp_path)}, (HOST, int(PORT))) as store:
        store.knows(*keys.values())
        resource = finetune(platform, "store", "s3://bucket/data")
        resource["spec"]["data"]["train"] |= {"endpoint": f"http://{REFUSING}", "credentials": {"secret": "store"}}
        platform.apply(resource)
        told(platform, "store", "SourceUnauthorized", "s3://bucket/data", "answered 403")
        platform.apply(secret | {"stringData": keys})
        platform.annotate("finetune", "store", retry="1")
        done = platform.wait("finetune", "store", "Succeeded", "True", SECONDS)
    assert done["status"]["inputs"]["train"].startswith("s3://bucket/data#sha256=")
    assert "canary" not in json.dumps(done)


# --- the network

CONNECT = """
import socket, sys
for target in sys.argv[1:]:
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 3).close()
        print("reached", target)
    except OSError as error:
        print("refused", target)
"""


def test_the_network_lets_a_run_out_to_its_list_and_to_nobody_else(
    platform: Platform, local: Cluster, pages: dict[int, dict[str, bytes | str]], tmp_path: Path
) -> None:
    """The teacher never answers, so the labelling pod is there to be asked whom it reaches: not through the run's own
    clients, which would refuse by themselves, but as any program in the pod would try."""
    web = Web(platform)
    wait_for("a server on each node", web.everywhere, 90, pause=1)
    neighbour = web.url("edge1").removeprefix("http://").rstrip("/")
    inside = [neighbour, "10.79.0.1:443", f"{HOST}:6443", f"{HOST}:{ELSEWHERE}"]
    allowed = [platform.registry, REFUSING]
    distillation = {
        "apiVersion": "slmops.dev/v1alpha1", "kind": "Distillation",
        "metadata": {"name": "fenced", "namespace": NAMESPACE},
        "spec": {
            "teacher": {"endpoint": {"url": f"http://{HOST}:5997/v1", "model": "x", "startupTimeout": "10m"}},
            "student": {"architecture": {}}, "data": {"train": {"uri": dataset(platform, tmp_path)}},
            "run": {"nodeSelector": {"pool": "gpu"}, "egress": [{"cidr": f"{HOST}/32", "port": int(PORT)}]},
            "output": {"repository": f"{platform.registry}/slm/fenced"},
        },
    }  # fmt: skip
    platform.apply(distillation)

    def stage() -> Any:
        return ((platform.kubectl.get("distillation", "fenced") or {}).get("status") or {}).get("phase")

    wait_for("the labelling to wait for its teacher", lambda: stage() == "WaitingForTeacher", 120)
    [pod] = platform.kubectl.items("pods", "-l", "slmops.dev/name=fenced")

    def reached(*targets: str) -> dict[str, bool]:
        said = platform.kubectl("exec", "-n", NAMESPACE, pod["metadata"]["name"], "--", PYTHON, "-c", CONNECT, *targets)
        return {line.split()[1]: line.startswith("reached") for line in said.splitlines()}

    policies = platform.kubectl.items("networkpolicies", "-l", "slmops.dev/name=fenced")
    assert [policy["metadata"]["ownerReferences"][0]["name"] for policy in policies] == ["fenced"]
    was = local.enforced()
    try:
        local.lift()
        assert all(reached(*inside, *allowed).values()), "all of it is there to be reached"
        local.enforce()
        wait_for("the fence", lambda: not any(reached(*inside).values()), 30, pause=1)
        assert reached(*inside, *allowed) == dict.fromkeys(inside, False) | dict.fromkeys(allowed, True)
        free = web.exec("edge2", "-c", CONNECT, *inside)
        assert "refused" not in free, "another pod of the namespace is nobody's run"
    finally:
        if not was:
            local.lift()
    platform.kubectl("delete", "distillation", "fenced", "-n", NAMESPACE)
    left = ("networkpolicies", "-l", "slmops.dev/name=fenced")
    wait_for("its policy to go with it", lambda: platform.kubectl.items(*left) == [], 60)
