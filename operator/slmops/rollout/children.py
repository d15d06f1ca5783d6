"""A rollout's children: how they are called, and which nodes a DaemonSet is for."""

from collections.abc import Collection

from slmops.api.edgedeployment import EdgeDeployment
from slmops.rollout.fleet import HOSTNAME, Node
from slmops.state import Manifest, Observed, digest8


def job_name(resource: EdgeDeployment, role: str, pool: str, revision: str, node: Node) -> str:
    """A Job is told by whom it is for, not by its configuration: pod addresses change, a verdict must not.

    A node that came back as other hardware is another one to the benchmark.
    """
    whom = [pool, revision, node.name, *([node.hardware] if role == "bench" else [])]
    return f"{resource.metadata.name}-{role}-{digest8(whom)}"


def set_name(resource: EdgeDeployment, pool: str, revision: str) -> str:
    """Name of a pool's DaemonSet, and of its configuration, for a revision."""
    return f"{resource.metadata.name}-{pool[:12].rstrip('-')}-{digest8([pool, revision])}"


def daemon_set_of(resource: EdgeDeployment, observed: Observed, pool: str, revision: str | None) -> Manifest | None:
    """A pool's DaemonSet of a revision."""
    return observed.child("DaemonSet", set_name(resource, pool, revision)) if revision else None


def admitted(daemon_set: Manifest | None) -> set[str]:
    """Host names that a candidate's DaemonSet is bound to."""
    return _hosts(daemon_set, "In")


def barred(daemon_set: Manifest | None, hosts: Collection[str]) -> set[str]:
    """Those of a pool's host names that its stable DaemonSet is kept from."""
    bound, excluded = _hosts(daemon_set, "In"), _hosts(daemon_set, "NotIn")
    return set(hosts) - bound if bound and not excluded else set(hosts) & excluded


def _hosts(daemon_set: Manifest | None, operator: str) -> set[str]:
    if daemon_set is None:
        return set()
    affinity = (daemon_set["spec"]["template"]["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or []
    return {
        value
        for term in terms
        for expression in term.get("matchExpressions") or []
        if expression.get("key") == HOSTNAME and expression.get("operator") == operator
        for value in expression.get("values") or []
    }
