"""The installed product on the real cluster, as the end-to-end tests use it."""

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from demo.steps import EXAMPLES, SYSTEM, Kubectl, Manifest, condition, wait_for
from tests.cluster import Cluster

NAMESPACE = "slmops-e2e"
NODE_PORT = 30081
"""Another than the examples' own, so that a demo on the same cluster is left alone."""
LEASE = "slmops-operator"
REFUSING = "10.77.0.1:5999"
"""Where the tests put a registry that refuses."""


@dataclass
class Platform:
    """Cluster, images and operator."""

    cluster: Cluster
    kubectl: Kubectl
    images: dict[str, str]

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

    def condition(self, kind: str, name: str, type: str) -> Manifest:
        """A condition of a resource, of its present generation; empty before that is known."""
        manifest = self.kubectl.get(kind, name)
        found = condition(manifest, type)
        generation = (manifest or {}).get("metadata", {}).get("generation")
        return found if found.get("observedGeneration") == generation else {}

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

    def leader(self) -> str:
        """Name of the pod that leads; empty when none does."""
        lease = self.kubectl.get("lease", LEASE, SYSTEM) or {}
        holder = str(lease.get("spec", {}).get("holderIdentity") or "").partition("_")[0]
        pods = {pod["metadata"]["name"] for pod in self.kubectl.items("pods", namespace=SYSTEM)}
        return holder if holder in pods else ""

    def kill_leader(self, grace: int = 0) -> float:
        """End the leading pod, hard or by SIGTERM. Returns the seconds until another leads."""
        old = self.leader()
        assert old, "no operator leads"
        force = ["--force"] if grace == 0 else []
        begun = time.monotonic()
        self.kubectl("delete", "pod", old, "-n", SYSTEM, f"--grace-period={grace}", "--wait=false", *force)
        wait_for("another leader", lambda: self.leader() not in ("", old), 40, lambda: self.leader(), pause=0.1)
        return time.monotonic() - begun

    def chat(self, base: str, content: str, model: str, stream: bool = False) -> Any:
        """Ask a server. Returns the answer, or with ``stream`` the list of its events."""
        messages = [{"role": "user", "content": content}]
        body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 64, "stream": stream}
        request = urllib.request.Request(f"{base}/v1/chat/completions", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})  # fmt: skip
        with urllib.request.urlopen(request, timeout=20) as answer:
            if not stream:
                return json.load(answer)
            return [line[6:] for raw in answer if (line := raw.decode().strip()).startswith("data: ")]


def examples(registry: str, change: Callable[[Manifest], None] = lambda manifest: None) -> Iterator[Manifest]:
    """The examples as they are shipped, in the tests' namespace."""
    for file in sorted(EXAMPLES.glob("*.yaml")):
        text = file.read_text().replace("edge-ai", NAMESPACE).replace("registry.slm.local:5000", registry)
        for manifest in yaml.safe_load_all(text):
            change(manifest)
            yield manifest
