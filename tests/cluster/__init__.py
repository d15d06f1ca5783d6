"""A real Kubernetes on one Debian machine: the ground that the cluster tests and the demo stand on. See README.md."""

from tests.cluster.chosen import UserCluster, kubeconfig
from tests.cluster.cluster import Cluster

__all__ = ["AnyCluster", "Cluster", "UserCluster", "choose"]
AnyCluster = Cluster | UserCluster


def choose() -> AnyCluster:
    """The user's cluster when KUBECONFIG names one, else the local one."""
    path = kubeconfig()
    return UserCluster(path) if path else Cluster()
