"""Kueue, when a test asks for it: its CRDs, and its controllers as a process on the host."""

import json
import urllib.error
import urllib.request
from pathlib import Path

from tests.cluster.binaries import KUEUE, binary, build, go
from tests.cluster.controlplane import kubectl
from tests.cluster.layout import HERE, HOST, KUBECONFIG, LOGS
from tests.cluster.shell import run, start, stop, wait

MODULE = "sigs.k8s.io/kueue"
HEALTH = f"{HOST}:8082"
OBJECTS = "workloads,localqueues,clusterqueues,resourceflavors"


def start_kueue() -> None:
    """Start it, unless it runs."""
    build(KUEUE)
    # Server-side: one of the CRDs is larger than the annotation that kubectl would keep it in.
    kubectl("apply", "--server-side", "--force-conflicts", "-f", _crds())
    kubectl("wait", "--for=condition=Established", "-f", _crds(), "--timeout=60s")
    start("kueue", binary("kueue"), "--kubeconfig", KUBECONFIG, "--health", HEALTH)
    wait("Kueue's readiness", _ready, 60, LOGS / "kueue.log")


def stop_kueue() -> None:
    """Take it away again, with all that it manages: while it still runs, for some of that has finalizers of its own.

    Where it was killed it is started once more, for that.
    """
    if kubectl("get", OBJECTS, "--all-namespaces", "-o", "name", check=False):
        start_kueue()
    kubectl("delete", OBJECTS, "--all", "--all-namespaces", "--ignore-not-found", "--timeout=60s", check=False)
    stop("kueue")
    kubectl("delete", "-f", _crds(), "--ignore-not-found", "--timeout=60s", check=False)


def _crds() -> Path:
    """The module's own CRDs, of the version that is built."""
    said = run(go(), "-C", HERE / "go" / "kueue", "mod", "download", "-json", MODULE)
    return Path(json.loads(said)["Dir"], "config/components/crd/bases")


def _ready() -> bool:
    try:
        with urllib.request.urlopen(f"http://{HEALTH}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
