"""NetworkPolicies enforced: kube-router beside each node's kubelet, as a packet filter and nothing else of what it can do.

Without it policies are stored and change nothing, as with any CNI plugin that only routes.
"""

from collections.abc import Sequence

from tests.cluster.binaries import POLICIES, binary, build
from tests.cluster.controlplane import kubectl
from tests.cluster.layout import CONFIG, LOGS, SERVICE_RANGE
from tests.cluster.node import Node
from tests.cluster.pki import kubeconfig
from tests.cluster.shell import alive, run, start, stop, wait

ROLE = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: slmops-local-policies}
rules:
  - {apiGroups: [""], resources: [namespaces, pods, services, nodes, endpoints], verbs: [get, list, watch]}
  - {apiGroups: [networking.k8s.io], resources: [networkpolicies], verbs: [list, watch]}
  - {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: slmops-local-policies}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: slmops-local-policies}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: "slmops-local-policies"}]
"""
FLAGS = ("--run-firewall=true", "--run-router=false", "--run-service-proxy=false", "--run-loadbalancer=false",
         "--enable-cni=false", "--enable-ipv6=false", "--health-port=0", "--iptables-sync-period=60s",
         f"--service-cluster-ip-range={SERVICE_RANGE}")  # fmt: skip
OURS = ("KUBE-ROUTER-", "KUBE-POD-FW-", "KUBE-NWPLCY-")
"""Chains that it makes."""


def enforce(nodes: Sequence[Node]) -> None:
    """Enforce policies from now on, and wait until each node does."""
    build(POLICIES)
    kubectl("apply", "-f", "-", stdin=ROLE)
    access = kubeconfig(CONFIG / "policies.kubeconfig", "policies")
    for node in nodes:
        path = {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"}
        start(_name(node), *node.inside(binary("kube-router"), f"--kubeconfig={access}",
              f"--hostname-override={node.name}", *FLAGS), environment=path)  # fmt: skip
    for node in nodes:
        wait(f"{node.name}'s packet filter", lambda node=node: OURS[0] in _rules(node), 60, LOGS / f"{_name(node)}.log")  # type: ignore[misc]


def lift(nodes: Sequence[Node]) -> None:
    """Enforce nothing any more, and take away the rules that are there."""
    for node in nodes:
        stop(_name(node))
        if alive(f"node-{node.name}"):
            kept = "\n".join(line for line in _rules(node).splitlines() if not any(chain in line for chain in OURS))
            run(*node.inside("iptables-restore"), stdin=f"{kept}\n")
            run(*node.inside("ipset", "destroy"), check=False)


def enforced(nodes: Sequence[Node]) -> bool:
    """Whether each node does."""
    return all(alive(_name(node)) for node in nodes)


def left(nodes: Sequence[Node]) -> bool:
    """Whether a node has rules of it, also where it runs no more."""
    return any(chain in _rules(node) for node in nodes for chain in OURS)


def _name(node: Node) -> str:
    return f"policies-{node.name}"


def _rules(node: Node) -> str:
    return run(*node.inside("iptables-save", "-t", "filter"), check=False)
