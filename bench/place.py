"""Where it is measured: the local cluster, with the installed operator set aside, and namespaces of our own."""

import asyncio
import json
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.api import Api
from demo.steps import ROOT, SYSTEM, Kubectl, wait_for
from tests.cluster import Cluster
from tests.cluster.chosen import kubeconfig
from tests.cluster.shell import Failed

OPERATOR = "slmops-operator"
"""The chart's Deployment."""
MARK = "slmops.dev/bench-replicas"
"""Remembers the Deployment's size where a killed bench could not put it back; the next one does."""
KWOK_NODES = 4
CLUSTER = Cluster()
"""Only the local one: its audit log and simulated nodes are what is measured with."""


def elsewhere() -> str | None:
    """Why nothing is measured: the user's KUBECONFIG names another cluster, to which nothing shall be pushed either."""
    try:
        chosen = kubeconfig()
    except Failed as failed:
        return str(failed)
    if chosen is None:
        return None
    return (f"KUBECONFIG={chosen} is a cluster of yours; this is measured on the local one alone, with its audit log and "
            "its simulated nodes: unset KUBECONFIG and run it again")  # fmt: skip


@contextmanager
def operator_aside(kubectl: Kubectl) -> Iterator[None]:
    """Scale the installed operator to nothing, and back, whatever happens between."""
    deployment = kubectl.get("deployment", OPERATOR, SYSTEM)
    if deployment is None:
        yield
        return
    known = (deployment["metadata"].get("annotations") or {}).get(MARK)
    replicas = int(known or deployment["spec"]["replicas"])
    target = ("deployment", OPERATOR, "-n", SYSTEM)
    kubectl("annotate", *target, f"{MARK}={replicas}", "--overwrite")
    try:
        kubectl("scale", *target, "--replicas=0")
        labels = deployment["spec"]["selector"]["matchLabels"]
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        wait_for("the operator's end", lambda: not kubectl.items("pods", "-l", selector, namespace=SYSTEM), 60)
        yield
    finally:
        kubectl("scale", *target, f"--replicas={replicas}")
        kubectl("annotate", *target, f"{MARK}-")


@contextmanager
def simulated_nodes(count: int = KWOK_NODES) -> Iterator[None]:
    """Nodes whose kubelet is simulated."""
    try:
        CLUSTER.kwok(count)
        yield
    finally:
        CLUSTER.kwok_stop()


def ensure_kinds(kubectl: Kubectl) -> None:
    """The CRDs of this tree: what is measured is its operator."""
    kubectl("apply", "--server-side", "--force-conflicts", "-f", ROOT / "crds")
    kubectl("wait", "--for=condition=Established", "crd/finetunes.slmops.dev", "--timeout=30s")


async def fresh_namespace(kubectl: Kubectl, api: Api, name: str) -> None:
    """An empty namespace of that name."""
    await drop_namespace(kubectl, api, name)
    CLUSTER.namespace(name)


async def drop_namespace(kubectl: Kubectl, api: Api, name: str, seconds: float = 600) -> None:
    """Delete a namespace and wait until all of it is gone: its deletion would be measured with the next."""
    kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")
    async with asyncio.timeout(seconds):
        while not await api.gone(f"/api/v1/namespaces/{name}"):  # noqa: ASYNC110  (kubectl's own way)
            await asyncio.sleep(1)


AS_IN_THE_IMAGE = "import sys; sys.modules['kubernetes'] = None; from slmops.__main__ import main; sys.exit(main())"
"""The operator's image holds no official client; this environment does, for the naive operator, and kopf imports it (18 MB)
as soon as it is there."""


ENVIRONMENT = {"KUBECONFIG": str(CLUSTER.kubeconfig), "PYTHONPATH": str(ROOT / "operator")}
"""What an operator under measurement has besides our own environment."""


def operator_command(folder: Path, namespace: str, **more: object) -> list[str]:
    """The command of our operator for one namespace; its settings, and ``more`` of them, go into a file of the folder."""
    own = {"watchNamespaces": [namespace], "leaseNamespace": namespace, "leaseName": "bench", "httpPort": free_port()}
    settings = folder / "operator.json"
    settings.write_text(json.dumps({**own, **more}))
    return [sys.executable, "-c", AS_IN_THE_IMAGE, "run", "--config", str(settings)]


def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])


def heed_sigterm() -> None:
    """A polite end is an interruption like Ctrl-C: everything is put back."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start what is in the background deaf to it
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
