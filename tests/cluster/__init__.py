"""A real Kubernetes on one Debian machine: the ground that the cluster tests and the demo stand on. See README.md."""

from tests.cluster.cluster import Cluster

__all__ = ["Cluster"]
