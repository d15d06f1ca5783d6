"""The installed product on the real cluster, as the end-to-end tests use it."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from demo import steps
from demo.steps import SYSTEM, Kubectl, Manifest, ask, condition, wait_for
from tests.cluster import AnyCluster, Cluster

NAMESPACE = "slmops-e2e"
NODE_PORT = 30081
"""Another than the examples' own, so that a demo on the same cluster is left alone."""
LEASE = "slmops-operator"
REFUSING = "10.77.0.1:5999"
"""Where the tests put a registry that refuses."""


@dataclass
class Platform:
    """Cluster, images and operator."""

    cluster: AnyCluster
    kubectl: Kubectl
    images: dict[str, str]
    begun: datetime = field(default_factory=lambda: datetime.now(UTC))
    """When all was installed."""

    @property
    def registry(self) -> str:
        """host:port of the cluster's registry."""
        return self.cluster.registry

    def apply(self, *manifests: Manifest) -> None:
        """Apply as a user does."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(items))

    def patch(self, kind: str, name: str, spec: Manifest) -> None:
        """Merge into a spec."""
        self.kubectl("patch", kind, name, "-n", NAMESPACE, "--type=merge", "-p", json.dumps({"spec": spec}))

    def annotate(self, kind: str, name: str, **annotations: str) -> None:
        """Set annotations slmops.dev/…"""
        pairs = [f"slmops.dev/{key}={value}" for key, value in annotations.items()]
        self.kubectl("annotate", kind, name, "-n", NAMESPACE, *pairs, "--overwrite")

    def evict(self, pod: Manifest) -> None:
        """Take a pod away as a drain does it."""
        meta = {"name": pod["metadata"]["name"], "namespace": NAMESPACE}
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta}
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{meta['name']}/eviction"
        self.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))

    def condition(self, kind: str, name: str, type: str) -> Manifest:
        """A condition of a resource, of its present generation; empty before that is known."""
        manifest = self.kubectl.get(kind, name)
        found = condition(manifest, type)
        generation = (manifest or {}).get("metadata", {}).get("generation")
        return found if found.get("observedGeneration") == generation else {}

    def status(self, kind: str, name: str) -> Manifest:
        """The status of a resource; empty before there is one."""
        return dict((self.kubectl.get(kind, name) or {}).get("status") or {})

    def wait(self, kind: str, name: str, type: str, status: str, seconds: float) -> Manifest:
        """Wait until a condition has a status; the resource then."""

        def done() -> bool:
            return bool(self.condition(kind, name, type).get("status") == status)

        wait_for(f"{kind}/{name} {type}={status}", done, seconds, lambda: self.show(kind, name))
        return self.kubectl.get(kind, name) or {}

    def show(self, kind: str, name: str) -> str:
        """What a person would look at when something does not come about."""
        return "\n".join(
            (
                self.kubectl("get", kind, name, "-n", NAMESPACE, "-o", "yaml", check=False),
                self.kubectl("get", "pods,jobs,daemonsets", "-n", NAMESPACE, "-o", "wide", check=False),
                self.kubectl("logs", "-n", SYSTEM, "-l", "app.kubernetes.io/name=slmops", "--tail=30", check=False),
            )
        )

    def operators(self) -> list[Manifest]:
        """The operator's pods."""
        return self.kubectl.items("pods", "-l", "app.kubernetes.io/instance=slmops", namespace=SYSTEM)

    def crane(self, *arguments: str) -> bytes:
        """What crane prints."""
        plain = ["--insecure"] if self.cluster.plain_http else []
        return subprocess.check_output([str(self.cluster.bin("crane")), *plain, *arguments])

    def settle(self) -> list[Manifest]:
        """The operator's pods, once they are two and ready, and one of them leads."""

        def ready() -> bool:
            pods = self.operators()
            up = [p["metadata"]["name"] for p in pods if p["status"].get("containerStatuses", [{}])[0].get("ready")]
            return len(pods) == len(up) == 2 and self.holder() in up

        wait_for("two ready operators of which one leads", ready, 60)
        return self.operators()

    def lease(self) -> Manifest:
        """What the Lease says of who leads."""
        return dict((self.kubectl.get("lease", LEASE, SYSTEM) or {}).get("spec") or {})

    def renewals(self, count: int) -> None:
        """Wait until the Lease was renewed so often: the operator's own pulse as a clock."""
        seen: set[str] = set()

        def renewed() -> bool:
            seen.add(self.lease().get("renewTime", ""))
            return len(seen) > count

        wait_for(f"{count} renewals of the Lease", renewed, 60, pause=0.5)

    def holder(self) -> str:
        """Name of the pod that holds the Lease; empty when none does."""
        return str(self.lease().get("holderIdentity") or "").partition("_")[0]

    def leader(self) -> Manifest:
        """The pod that leads."""
        holder = self.holder()
        found = [pod for pod in self.operators() if pod["metadata"]["name"] == holder]
        assert found, f"no operator leads: the Lease names {holder!r}"
        return found[0]

    def metrics(self, pod: Manifest) -> dict[str, float]:
        """What an operator's pod tells Prometheus, by name and labels."""
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}:8080/proxy/metrics"
        lines = [line.rpartition(" ") for line in self.kubectl("get", "--raw", path).splitlines()]
        return {name: float(value) for name, _, value in lines if name.startswith("slmops_")}

    def end_leader(self, hard: bool) -> float:
        """End the process that leads, by SIGKILL or by SIGTERM. Returns the seconds until another led.

        A pod that is killed hard is also deleted: its successor is a new one, without the kubelet's back-off.
        """
        pod, before = self.leader(), self.lease()["holderIdentity"]
        name, local = pod["metadata"]["name"], isinstance(self.cluster, Cluster)
        begun = datetime.now(UTC)
        if local:
            os.kill(process(pod), signal.SIGKILL if hard else signal.SIGTERM)
        if hard:
            self.kubectl("delete", "pod", name, "-n", SYSTEM, "--grace-period=0", "--force", "--wait=false")
        elif not local:
            self.kubectl("delete", "pod", name, "-n", SYSTEM, "--wait=false")
        led = lambda: self.lease().get("holderIdentity") not in ("", None, before)  # noqa: E731
        wait_for("another leader", led, 40, lambda: str(self.lease()), pause=0.2)
        # On one machine the Lease's own time is exact; another cluster's clock may differ from ours.
        ended = datetime.fromisoformat(self.lease()["acquireTime"]) if local else datetime.now(UTC)
        return (ended - begun).total_seconds()

    def chat(self, base: str, content: str, model: str, stream: bool = False) -> Any:
        """Ask a server. Returns the answer, or with ``stream`` the list of its events."""
        with ask(base, model, content, max_tokens=64, stream=stream) as answer:
            if not stream:
                return json.load(answer)
            return [line[6:] for raw in answer if (line := raw.decode().strip()).startswith("data: ")]


def vacate(kubectl: Kubectl, namespace: str) -> None:
    """Delete a namespace, also one that a killed run left with pods that nobody ends any more.

    Pods are asked to end first; those that are still there after a minute are taken out of the API server by force.
    """
    kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait=false")
    gone = lambda: not kubectl("get", "namespace", namespace, "--ignore-not-found", "-o", "name")  # noqa: E731
    try:
        wait_for(f"the end of namespace {namespace}", gone, 60)
    except AssertionError:
        force = ("--all", "--grace-period=0", "--force", "--wait=false", "--ignore-not-found")
        kubectl("delete", "pods", "-n", namespace, *force)
        why = lambda: kubectl("get", "namespace", namespace, "-o", "jsonpath={.status}", check=False)  # noqa: E731
        wait_for(f"the end of namespace {namespace}, its pods deleted by force", gone, 120, why)


def process(pod: Manifest) -> int:
    """The operator's process in a pod of the local cluster, as the machine numbers it."""
    for entry in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            ours = pod["metadata"]["uid"] in (entry / "cgroup").read_text()
            if ours and b"slmops\0run" in (entry / "cmdline").read_bytes():
                return int(entry.name)
        except OSError:
            continue
    raise AssertionError(f"no process of {pod['metadata']['name']}")


def deployment(name: str, image: str, port: int, strategy: Manifest, **runtime: int) -> Manifest:
    """A model image on both edge nodes, beside what they serve already, without a benchmark."""
    return {
        "apiVersion": "slmops.dev/v1alpha1", "kind": "EdgeDeployment", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "model": {"image": image}, "pools": [{"name": "farms", "selector": {"matchLabels": {"pool": "farms"}}}],
            "runtime": {"port": port, "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}, **runtime},
            "strategy": strategy,
        },
    }  # fmt: skip


def waiting(name: str, namespace: str = NAMESPACE) -> Manifest:
    """A FineTune that waits for a base that nobody makes."""
    return {
        "apiVersion": "slmops.dev/v1alpha1", "kind": "FineTune", "metadata": {"name": name, "namespace": namespace},
        "spec": {"base": {"distillation": {"name": "nobody"}}, "data": {"train": {"uri": "oci://registry.example/x:v1"}},
                 "output": {"repository": "registry.example/slm/x"}},
    }  # fmt: skip


def examples(
    cluster: AnyCluster, change: Callable[[Manifest], None] = lambda manifest: None, folder: Path = steps.EXAMPLES
) -> Iterator[Manifest]:
    """The examples as they are shipped, in the tests' namespace."""
    for text in steps.examples(cluster, folder):
        for manifest in yaml.safe_load_all(text.replace(steps.NAMESPACE, NAMESPACE)):
            change(manifest)
            yield manifest
