"""A small server on every node, for tests of the cluster that need no model."""

import urllib.request
from typing import Any

from demo.steps import Manifest
from tests.e2e.platform import NAMESPACE, Platform

PYTHON = "/opt/app/bin/python"
NODES = {"gpu1", "edge1", "edge2"}
BLOCK = 256 * 1024
SERVER = f"""
import http.server, os
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"x" * {BLOCK} if self.path == "/block" else os.environ["NODE"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, format, *args):
        print("asked for", self.path, flush=True)
http.server.ThreadingHTTPServer(("", 8080), Page).serve_forever()
"""
ASK = "import sys, urllib.request as r; sys.stdout.write(r.urlopen(sys.argv[1], timeout=5).read().decode())"


def restricted(image: str, *command: str, **more: Any) -> Manifest:
    """A pod's spec that Pod Security *restricted* lets in."""
    return {
        "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "main", "image": image, "command": [PYTHON, *command],
            "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            **more.pop("container", {}),
        }],
        **more,
    }  # fmt: skip


def get(url: str, seconds: float = 3) -> bytes:
    """What a URL answers."""
    with urllib.request.urlopen(url, timeout=seconds) as answer:
        return bytes(answer.read())


def answers(url: str, wanted: str) -> bool:
    """Whether that is just this."""
    try:
        return get(url) == wanted.encode()
    except OSError:
        return False


class Web:
    """A server on each node that answers with the node's name."""

    def __init__(self, platform: Platform) -> None:
        self.kubectl = platform.kubectl
        meta = {"name": "web", "namespace": NAMESPACE}
        labels = {"app": "web"}
        pod = restricted(platform.images["operator"], "-c", SERVER,
                   container={"readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}})  # fmt: skip
        platform.apply(
            {"apiVersion": "v1", "kind": "Service", "metadata": meta,
             "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]}},
            {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": meta,
             "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}},
        )  # fmt: skip

    def pods(self) -> dict[str, Manifest]:
        """The ready pods by node."""
        found = self.kubectl.items("pods", "-l", "app=web")
        ready = [pod for pod in found if all(s.get("ready") for s in pod["status"].get("containerStatuses", [{}]))]
        return {pod["spec"]["nodeName"]: pod for pod in ready}

    def url(self, node: str, path: str = "/") -> str:
        """A pod's own address."""
        return f"http://{self.pods()[node]['status']['podIP']}:8080{path}"

    def exec(self, node: str, *arguments: str) -> str:
        """Run Python in a node's pod."""
        return self.kubectl("exec", "-n", NAMESPACE, self.pods()[node]["metadata"]["name"], "--", PYTHON, *arguments)

    def everywhere(self) -> bool:
        """Whether each node's pod is ready and answers."""
        return set(self.pods()) == NODES and all(answers(self.url(node), node) for node in NODES)
