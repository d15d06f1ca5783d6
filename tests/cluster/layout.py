"""Where everything is: folders, addresses, names. One place, so that nothing is spelled twice."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slmops"
STATE = Path(
    os.environ.get("SLMOPS_CLUSTER_DIR")
    or Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "slmops" / "cluster"
)
LOGS, PKI, RUN, CONFIG = STATE / "logs", STATE / "pki", STATE / "run", STATE / "config"
KUBECONFIG = STATE / "kubeconfig"
AUDIT_LOG = LOGS / "audit.log"

BRIDGE = "slm0"
HOST = "10.77.0.1"
"""Address of the control plane, the registry and DNS, as nodes and pods see them."""
SERVICE_RANGE = "10.79.0.0/16"
API_SERVICE = "10.79.0.1"
POD_RANGE = "10.78.0.0/16"
DOMAIN = "cluster.local"
REGISTRY = "registry.slm.local:5000"
REGISTRY_HOST = "registry.slm.local"
HOSTS_MARK = "# slmops local cluster"
PAUSE = f"{REGISTRY}/pause:1"
NAMESPACES = ("edge-ai", "slmops-system")
"""Where the examples and the operator run."""


def restricted(name: str) -> str:
    """A namespace where Pod Security *restricted* is enforced, as JSON."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})


@dataclass(frozen=True)
class NodeSpec:
    """A node of the cluster."""

    name: str
    index: int
    pool: str
    memory_gib: int
    """What /proc/meminfo shows on it: hardware classes differ by this."""
    gpus: int = 0

    @property
    def address(self) -> str:
        """The node's own address."""
        return f"10.77.0.{10 + self.index}"

    @property
    def pods(self) -> str:
        """The node's pod range."""
        return f"10.78.{self.index}.0/24"

    @property
    def netns(self) -> str:
        """Name of the node's network namespace."""
        return f"slm-{self.name}"

    @property
    def veth(self) -> str:
        """The host's end of the node's link."""
        return f"slm-{self.name}"

    @property
    def folder(self) -> Path:
        """Everything of the node on disk."""
        return STATE / "nodes" / self.name

    @property
    def cgroup(self) -> str:
        """The node's cgroup in every hierarchy."""
        return f"slm-{self.name}"


NODES = (
    NodeSpec("gpu1", 1, "gpu", 16, gpus=1),
    NodeSpec("edge1", 2, "farms", 4),
    NodeSpec("edge2", 3, "farms", 2),
)
