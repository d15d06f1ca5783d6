"""The local cluster itself: it does what a real one does, also when parts of it are taken away."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.steps import Manifest, wait_for
from slmkit.registry import Registry
from slmops import contract
from slmops.contract import DATASET_TYPE, Sink
from tests.cluster import Cluster, cgroups, controlplane
from tests.cluster.node import Node
from tests.cluster.shell import names, pid, run, stop
from tests.e2e.platform import NAMESPACE, Platform, process, waiting
from tests.e2e.web import ASK, BLOCK, NODES, Web, answers, get, restricted

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def web(platform: Platform, local: Cluster) -> Iterator[Web]:
    """The server, ready on all nodes."""
    server = Web(platform)
    wait_for("a ready pod on each node", server.everywhere, 60)
    yield server
    platform.kubectl("delete", "daemonset,service", "web", "-n", NAMESPACE)


def _ready(node: Node) -> str:
    """What the API server thinks of a node: True, False or Unknown."""
    path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
    return controlplane.kubectl("get", "node", node.name, "-o", path)


def _back(web: Web, node: Node) -> None:
    """Wait until a node and its pod are as before."""
    wait_for(f"{node.name} to be Ready again", lambda: _ready(node) == "True", 90)
    wait_for("a ready pod on each node", web.everywhere, 60)


def _container(pod: Manifest) -> Manifest:
    return dict(pod["status"]["containerStatuses"][0])


# --- what every cluster does


def test_the_service_reaches_the_pods_of_all_nodes_by_name_and_by_address(web: Web) -> None:
    loop = """
import sys, time, urllib.request as r
seen, end = set(), time.monotonic() + 30  # a pod that is Ready now is in the node's rules a moment later
while len(seen) < 3 and time.monotonic() < end:
    seen.add(r.urlopen(sys.argv[1], timeout=5).read().decode())
print(" ".join(seen))
"""
    address = web.kubectl.get("service", "web")["spec"]["clusterIP"]  # type: ignore[index]
    for host in ("web", f"web.{NAMESPACE}.svc.cluster.local", address):
        assert set(web.exec("edge1", "-c", loop, f"http://{host}").split()) == NODES, host


def test_exec_runs_in_the_pod_and_logs_show_what_it_did(web: Web) -> None:
    for node in sorted(NODES):
        assert web.exec(node, "-c", ASK, f"http://localhost:8080/hello-{node}") == node
        log = web.kubectl("logs", "-n", NAMESPACE, web.pods()[node]["metadata"]["name"])
        assert f"asked for /hello-{node}" in log


@pytest.mark.parametrize("namespace", ["edge-ai", "slmops-system"])
def test_pod_security_restricted_is_enforced(platform: Platform, namespace: str) -> None:
    def tried(spec: Manifest) -> str:
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "namespace": namespace}, "spec": spec}
        return platform.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(body))

    good = restricted(platform.images["operator"], "--version")
    assert "pod/x created" in tried(good)
    with pytest.raises(RuntimeError, match='violates PodSecurity "restricted:latest": host namespaces'):
        tried(good | {"hostNetwork": True})
    with pytest.raises(RuntimeError, match="runAsNonRoot != true"):
        tried(good | {"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}})


def test_a_gpu_is_found_on_the_gpu_node_and_nowhere_else(platform: Platform, local: Cluster) -> None:
    def pod(name: str, **more: Any) -> Manifest:
        limits = {"resources": {"limits": {"nvidia.com/gpu": 1, "memory": "64Mi"}}}
        spec = restricted(platform.images["operator"], "--version", container=limits, restartPolicy="Never", **more)
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}

    def told(name: str) -> Manifest:
        found = platform.kubectl.get("pod", name) or {}
        return next((c for c in found["status"].get("conditions", []) if c["type"] == "PodScheduled"), {})

    platform.apply(pod("gpu"), pod("gpu-on-edge", nodeSelector={"kubernetes.io/hostname": "edge1"}))
    try:
        wait_for("the end of the pod with a GPU", lambda: _phase(platform, "gpu") == "Succeeded", 60)
        assert platform.kubectl.get("pod", "gpu")["spec"]["nodeName"] == "gpu1"  # type: ignore[index]
        wait_for("the scheduler's word", lambda: bool(told("gpu-on-edge")), 30)
        assert told("gpu-on-edge")["reason"] == "Unschedulable"
        assert "Insufficient nvidia.com/gpu" in told("gpu-on-edge")["message"]
    finally:
        platform.kubectl("delete", "pod", "gpu", "gpu-on-edge", "-n", NAMESPACE, "--grace-period=0", "--force")


def _phase(platform: Platform, name: str) -> str:
    return str((platform.kubectl.get("pod", name) or {}).get("status", {}).get("phase"))


# --- nodes that are taken away and come back


def test_a_node_that_is_cut_off_goes_on_serving_and_comes_back(local: Cluster, web: Web) -> None:
    node, before, url = local.node("edge2"), web.pods()["edge2"], web.url("edge2")
    node.cut()
    try:
        wait_for("edge2 to be NotReady", lambda: _ready(node) == "Unknown", 60)
        with pytest.raises(OSError, match=r"timed out|unreachable|No route"):
            get(url)
        inside = ("nsenter", f"--net=/run/netns/{node.spec.netns}", sys.executable, "-c", ASK, url)
        said = subprocess.run(inside, capture_output=True, text=True, check=True)
        assert said.stdout == "edge2", "whoever is on the node is still served"
    finally:
        node.heal()
    _back(web, node)
    after = web.pods()["edge2"]
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert _container(after)["containerID"] == _container(before)["containerID"]


def test_a_slow_link_is_slow_and_whole(local: Cluster, web: Web) -> None:
    """Only a lower bound of the time is asked for: a busy machine makes it longer, never shorter."""
    node, url = local.node("edge1"), web.url("edge1", "/block")
    rate = 1_000_000
    node.slow(f"{rate // 1000}kbit")
    try:
        begun = time.monotonic()
        assert get(url, seconds=60) == b"x" * BLOCK
        assert time.monotonic() - begun >= 0.9 * 8 * BLOCK / rate
    finally:
        node.unslow()
    for command in (("tc",), ("tc", "-n", node.spec.netns)):
        assert "tbf" not in run(*command, "qdisc", "show")
    assert get(url) == b"x" * BLOCK


def test_a_node_that_lost_its_power_comes_back(local: Cluster, web: Web) -> None:
    node, before = local.node("edge2"), web.pods()["edge2"]
    node.kill()
    try:
        wait_for("the end of all its containers", lambda: not cgroups.processes(node.spec.cgroup), 10, pause=0.1)
        wait_for("edge2 to be NotReady", lambda: _ready(node) == "Unknown", 60)
    finally:
        node.start()
    _back(web, node)
    after = web.pods()["edge2"]
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert (
        after["status"]["containerStatuses"][0]["restartCount"]
        > before["status"]["containerStatuses"][0]["restartCount"]
    )
    assert local.healthy()


# --- the control plane


def test_up_leaves_what_runs_alone_and_starts_what_does_not(local: Cluster, web: Web) -> None:
    before = {name: pid(name) for name in names()}
    local.up()
    assert {name: pid(name) for name in names()} == before
    stop("kube-proxy-edge1", hard=True)
    local.up()
    after = {name: pid(name) for name in names()}
    assert after.pop("kube-proxy-edge1") not in (None, before.pop("kube-proxy-edge1"))
    assert after == before
    assert web.everywhere()


def test_workload_and_operator_outlive_the_api_server(platform: Platform, local: Cluster, web: Web) -> None:
    def restarts() -> dict[str, int]:
        return {pod["metadata"]["name"]: _container(pod)["restartCount"] for pod in platform.operators()}

    platform.settle()
    leader, before = platform.leader(), restarts()
    number, urls = process(leader), {node: web.url(node) for node in NODES}
    local.stop_apiserver()
    try:
        # It cannot renew the Lease, so it has to stop; its standby has no reason to.
        wait_for("the leader to give up", lambda: not Path(f"/proc/{number}").exists(), 30)
        assert all(answers(url, node) for node, url in urls.items())
    finally:
        local.start_apiserver()
    since = platform.lease()["renewTime"]
    wait_for("a leader", lambda: platform.lease()["renewTime"] != since and platform.leader(), 60)
    wait_for("the restart in the pod's status", lambda: restarts() != before, 30)
    assert restarts() == before | {leader["metadata"]["name"]: before[leader["metadata"]["name"]] + 1}
    platform.apply(waiting("after-the-outage"))
    try:
        platform.wait("finetune", "after-the-outage", "InputsResolved", "Unknown", 60)
    finally:
        platform.kubectl("delete", "finetune", "after-the-outage", "-n", NAMESPACE)


def test_the_registry_knows_referrers_and_forgets_nothing_over_a_restart(local: Cluster, tmp_path: Path) -> None:
    client = Registry(contract.Registry(plain_http=local.plain_http))
    sink = Sink(repository=f"{local.registry}/e2e/referred")
    (tmp_path / "a.txt").write_text("the subject")
    subject = client.push_artifact(sink, {"a.txt": tmp_path / "a.txt"}, DATASET_TYPE, {})
    client.tag(sink, subject, "v1")
    digest = subject.reference.partition("@")[2]
    report = client.attach(sink, subject, "application/vnd.example.report", b"what refers to it", {})

    def check() -> None:
        found = json.loads(get(f"http://{local.registry}/v2/e2e/referred/referrers/{digest}"))
        # Digests alone: as artifactType this registry gives the type of the config.
        assert [m["digest"] for m in found["manifests"]] == [report.reference.partition("@")[2]]
        assert client.digest_of(f"{sink.repository}:v1") == digest
        assert client.referrers(subject.reference, "application/vnd.example.report") == [b"what refers to it"]

    check()
    stop("registry")
    try:
        with pytest.raises(OSError, match=r"refused|reset"):
            get(f"http://{local.registry}/v2/")
    finally:
        controlplane.start_registry()
    check()


def test_simulated_nodes_come_beside_the_real_ones_and_go(local: Cluster, web: Web) -> None:
    def ready() -> dict[str, str]:
        path = "{range .items[*]}{.metadata.name}={.status.conditions[?(@.type=='Ready')].status} {end}"
        return dict(word.split("=") for word in controlplane.kubectl("get", "nodes", "-o", f"jsonpath={path}").split())

    local.kwok(3)
    try:
        wait_for("six Ready nodes", lambda: list(ready().values()) == ["True"] * 6, 60)
        assert set(ready()) == NODES | {"kwok-0", "kwok-1", "kwok-2"}
        assert web.everywhere(), "nobody's pods go to simulated nodes by themselves"
    finally:
        local.kwok_stop()
    assert set(ready()) == NODES
