"""Serving pods: whose they are, which node they are on, whether they may get traffic and whether they do."""

from collections.abc import Mapping
from dataclasses import dataclass

from slmops.state import (
    EXIT_PERMANENT,
    LABEL_POOL,
    LABEL_REVISION,
    LABEL_ROLE,
    Manifest,
    Observed,
    parse_report,
)

SERVING = "slmops.dev/serving"
"""The readiness gate: a candidate's pod gets traffic once the operator says so."""
MAX_RESTARTS = 3


@dataclass(frozen=True)
class Servers:
    """The serving pods, found by pool, revision and node; one that is going away is none."""

    _pods: Mapping[tuple[str, str, str], Manifest]

    @classmethod
    def of(cls, observed: Observed) -> "Servers":
        """Sort the pods, once a pass: a fleet has thousands."""
        pods: dict[tuple[str, str, str], Manifest] = {}
        for pod in observed.pods:
            labels = pod["metadata"].get("labels") or {}
            ended = (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")
            if labels.get(LABEL_ROLE) != "serve" or pod["metadata"].get("deletionTimestamp") or ended:
                continue
            if node := node_of(pod):
                pods.setdefault((labels.get(LABEL_POOL, ""), labels.get(LABEL_REVISION, ""), node), pod)
        return cls(pods)

    def get(self, pool: str, revision: str | None, node: str) -> Manifest | None:
        """The pod of a revision on a node."""
        return self._pods.get((pool, revision or "", node))

    def serves(self, pool: str, revision: str | None, node: str) -> bool:
        """Whether a node has a server of a revision that may get traffic, as far as is known of it."""
        pod = self.get(pool, revision, node)
        return pod is not None and may_serve(pod)

    def ready(self, pool: str) -> dict[str, set[str]]:
        """Revisions that serve, by node."""
        found: dict[str, set[str]] = {}
        for (of, revision, node), pod in self._pods.items():
            if of == pool and condition(pod, "Ready"):
                found.setdefault(node, set()).add(revision)
        return found


def node_of(pod: Manifest) -> str | None:
    """The node that a pod is on, or is meant for: a DaemonSet pins its pods by affinity before they are scheduled."""
    spec = pod.get("spec") or {}
    if spec.get("nodeName"):
        return str(spec["nodeName"])
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or {}
    for term in affinity.get("nodeSelectorTerms") or []:
        for field in term.get("matchFields") or []:
            if field.get("key") == "metadata.name" and field.get("values"):
                return str(field["values"][0])
    return None


def condition(pod: Manifest, type: str) -> bool:
    """Whether a pod's condition is True."""
    return (_condition(pod, type) or {}).get("status") == "True"


def since(pod: Manifest, type: str) -> str | None:
    """Since when a pod's condition is what it is; the pod's creation where it has none yet."""
    found: str | None = (_condition(pod, type) or {}).get("lastTransitionTime")
    return found or pod["metadata"].get("creationTimestamp")


def gate_open(pod: Manifest) -> bool:
    """Whether a pod may get traffic: the readiness gate is open, or it has none."""
    return condition(pod, SERVING) or not is_gated(pod)


def is_gated(pod: Manifest) -> bool:
    """Whether a pod has the readiness gate."""
    gates = (pod.get("spec") or {}).get("readinessGates") or []
    return any(gate.get("conditionType") == SERVING for gate in gates)


def may_serve(pod: Manifest) -> bool:
    """Whether a pod runs and may get traffic, whatever is known of its readiness (of a silent node: nothing)."""
    return (pod.get("status") or {}).get("phase") == "Running" and gate_open(pod)


def refused(pod: Manifest) -> tuple[str, str]:
    """(reason, message) where the server refuses its model, which no other node would take either; else empty."""
    for status in (pod.get("status") or {}).get("containerStatuses") or []:
        for state in (status.get("state") or {}, status.get("lastState") or {}):
            ended = state.get("terminated") or {}
            report = parse_report(ended.get("message") or "") if ended.get("exitCode") == EXIT_PERMANENT else None
            if report is not None and report.reason:
                return report.reason, report.message
    return "", ""


def crashed(pod: Manifest) -> str:
    """What is wrong with a pod whose server does not stay up."""
    for status in (pod.get("status") or {}).get("containerStatuses") or []:
        if status.get("restartCount", 0) >= MAX_RESTARTS:
            last = (status.get("lastState") or {}).get("terminated") or {}
            code = last.get("exitCode")
            said = parse_report(last.get("message") or "")
            why = f": {said.message}" if said is not None and said.message else ""
            return (
                f"the server was restarted {status['restartCount']} times: {last.get('reason')}, exit code {code}{why}"
            )
    return ""


def _condition(pod: Manifest, type: str) -> Manifest | None:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c.get("type") == type), None)
