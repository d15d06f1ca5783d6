"""A cluster of the user's own, chosen with KUBECONFIG. It is looked at and used, never started, stopped or mended."""

import os
import shutil
from pathlib import Path

from tests.cluster.binaries import binary
from tests.cluster.layout import KUBECONFIG, NAMESPACES, restricted
from tests.cluster.shell import Failed, run, say

POOLS = {"gpu": "where training runs", "farms": "where the model is served"}
"""Values of the node label ``pool`` that the examples name."""


def kubeconfig() -> Path | None:
    """The user's kubeconfig; None when there is none or when it is the local cluster's own."""
    given = os.environ.get("KUBECONFIG", "").strip()
    if not given:
        return None
    if ":" in given:
        raise Failed(f"KUBECONFIG names several files ({given}); name one")
    path = Path(given).expanduser()
    if path.resolve() == KUBECONFIG.resolve():
        return None
    if not path.is_file():
        raise Failed(f"KUBECONFIG={given}: there is no such file; unset it to use the local cluster")
    return path


class UserCluster:
    """What the demo and the tests need of a cluster: a kubeconfig, a registry and labelled nodes."""

    def __init__(self, path: Path) -> None:
        self.kubeconfig = path
        self.registry = os.environ.get("REGISTRY", "")
        plain = os.environ.get("REGISTRY_PLAIN_HTTP", "").lower() in ("1", "true", "yes")
        self.plain_http: tuple[str, ...] = (self.registry,) if plain else ()
        self.internal_ranges: tuple[str, ...] = ()

    def up(self) -> None:
        """Say at once what is missing."""
        if not self.registry:
            raise Failed("set REGISTRY to the registry (host:port) that your cluster's nodes pull from and that takes "
                         "pushes without credentials, and REGISTRY_PLAIN_HTTP=1 if it speaks no TLS")  # fmt: skip
        self.bin("helm")
        ready = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}"
        for pool, use in POOLS.items():
            if "True" not in self._kubectl("get", "nodes", "-l", f"pool={pool}", "-o", ready).split():
                raise Failed(f"no Ready node has the label pool={pool} ({use}); set it: "
                             f"kubectl label node NODE pool={pool}")  # fmt: skip
        for namespace in NAMESPACES:
            self.namespace(namespace)
        say(f"KUBECONFIG={self.kubeconfig}  your own cluster, it keeps its own logs")

    def bin(self, name: str) -> Path:
        """kubectl, helm, …: the user's own, or else the one that was built for the local cluster."""
        found = shutil.which(name)
        if found:
            return Path(found)
        if binary(name).exists():
            return binary(name)
        raise Failed(f"{name} is not on PATH; install it, or run `python -m tests.cluster build`")

    def namespace(self, name: str) -> None:
        """A namespace where Pod Security *restricted* is enforced."""
        self._kubectl("apply", "-f", "-", stdin=restricted(name))

    def _kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return run(self.bin("kubectl"), "--kubeconfig", self.kubeconfig, *arguments, stdin=stdin)
