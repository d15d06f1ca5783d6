"""Where each node stands: nothing is remembered, every step is read from the children that it left behind.

A node's turn::

    Waiting -> Pulling -> Starting -> Measuring -> Passed -> Serving
                  |           |           |
                  +-----------+-----------+--> Failed / Inconclusive

``Pulling``: a Job pinned to the node mounts the candidate's model image. ``Starting``: the candidate's DaemonSet has
been given the node; its pod is up beside the stable one but gets no traffic (a readiness gate). ``Measuring``: a Job
measures both. ``Passed``: the gate opens; once the pod is ready the stable DaemonSet gives the node up: ``Serving``.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from slmops.api.base import ratio, seconds
from slmops.api.common import GateStatus
from slmops.api.edgedeployment import EdgeDeployment
from slmops.contract import Report
from slmops.rollout.fleet import HOSTNAME, Node
from slmops.rollout.verdict import Outcome, judge
from slmops.state import LABEL_POOL, LABEL_REVISION, LABEL_ROLE, JobState, Manifest, Observed, digest8, waiting_for

SERVING = "slmops.dev/serving"
"""The readiness gate: a candidate's pod gets traffic once the operator says so."""
MAX_RESTARTS = 3
TurnStep = Literal["Waiting", "Pulling", "Starting", "Measuring", "Passed", "Serving", "Failed", "Inconclusive"]


@dataclass(frozen=True)
class Turn:
    """Where one node stands."""

    node: Node
    step: TurnStep
    message: str = ""
    reason: str = ""
    pod: Manifest | None = None
    """The candidate's pod."""
    stable_pod: Manifest | None = None
    report: Report | None = None
    gates: list[GateStatus] = field(default_factory=list)
    verdict: Outcome | None = None


def turn(resource: EdgeDeployment, observed: Observed, pool: str, revision: str, stable: str | None, node: Node,
         proven: Iterable[str], now: datetime) -> Turn:  # fmt: skip
    """Read one node's step. ``proven`` are the hardware classes on which the candidate has passed."""
    pod = serving_pod(observed, pool, revision, node.name)
    stable_pod = serving_pod(observed, pool, stable, node.name) if stable else None
    found = bench(resource, observed, pool, revision, node)
    if pod is None:
        return _before_pod(resource, observed, pool, revision, node, stable_pod, now)
    if found is not None and found.verdict in ("Failed", "Inconclusive"):
        return Turn(node, found.verdict, found.message, found.reason, pod, stable_pod, found.report, found.gates,
                    found.verdict)  # fmt: skip
    if failed := _crashed(pod):
        return Turn(node, "Failed", failed, "CandidateCrashed", pod, stable_pod)
    report, gates, verdict = (found.report, found.gates, found.verdict) if found else (None, [], None)
    if gate_open(pod):
        return Turn(node, "Serving" if condition(pod, "Ready") else "Passed", "", "", pod, stable_pod, report, gates,
                    verdict)  # fmt: skip
    if not condition(pod, "ContainersReady"):
        if late := _late(resource, pod, now):
            return Turn(node, "Failed", f"{late}: {waiting_for(pod) or 'the server does not get ready'}",
                        "ProgressDeadlineExceeded", pod, stable_pod)  # fmt: skip
        return Turn(node, "Starting", waiting_for(pod), "", pod, stable_pod)
    if verdict == "Passed" or resource.spec.benchmark is None or node.hardware in proven:
        return Turn(node, "Passed", "", "", pod, stable_pod, report, gates, verdict)
    return Turn(node, "Measuring", "", "", pod, stable_pod)


def _before_pod(resource: EdgeDeployment, observed: Observed, pool: str, revision: str, node: Node,
                stable_pod: Manifest | None, now: datetime) -> Turn:  # fmt: skip
    name = job_name(resource, "pull", pool, revision, node.name)
    job = observed.child("Job", name)
    state = observed.job(name)
    if job is None:
        return Turn(node, "Waiting", stable_pod=stable_pod)
    if state.phase == "Succeeded":
        return Turn(node, "Starting", "waiting for its pod", stable_pod=stable_pod, report=state.report)
    if state.phase == "Failed":
        return Turn(node, "Failed", f"the model image cannot be used: {state.message}", state.reason,
                    stable_pod=stable_pod)  # fmt: skip
    if late := _late(resource, job, now):
        return Turn(node, "Failed", f"{late}: {state.message or 'the model image was not pulled'}",
                    "ProgressDeadlineExceeded", stable_pod=stable_pod)  # fmt: skip
    return Turn(node, "Pulling", state.message, stable_pod=stable_pod)


@dataclass(frozen=True)
class Bench:
    """What a benchmark on a node came to; the verdict is None while it runs."""

    job: Manifest
    state: JobState
    verdict: Outcome | None
    message: str = ""
    reason: str = ""
    report: Report | None = None
    gates: list[GateStatus] = field(default_factory=list)


def bench(resource: EdgeDeployment, observed: Observed, pool: str, revision: str, node: Node) -> Bench | None:
    """The benchmark of a revision on a node, and what the gates say of it."""
    name = job_name(resource, "bench", pool, revision, node.name)
    job = observed.child("Job", name)
    if job is None or resource.spec.benchmark is None:
        return None
    state = observed.job(name)
    if state.phase == "Failed":
        return Bench(job, state, "Inconclusive", f"the benchmark itself failed: {state.message}", "BenchmarkFailed")
    if state.phase != "Succeeded" or state.report is None:
        return Bench(job, state, None)
    verdict, gates = judge(resource.spec.gates, state.report, ratio(resource.spec.benchmark.max_noise))
    told = "; ".join(
        f"{g.metric} is {g.value or 'not measured'}, wanted {g.bound}" for g in gates if g.outcome == verdict
    )
    reason = {"Failed": "GateFailed", "Inconclusive": "GateInconclusive"}.get(verdict, "")
    return Bench(job, state, verdict, told if reason else "", reason, state.report, gates)


def job_name(resource: EdgeDeployment, role: str, pool: str, revision: str, node: str) -> str:
    """A Job is told by whom it is for, not by its configuration: pod addresses change, a verdict must not."""
    return f"{resource.metadata.name}-{role}-{digest8([pool, revision, node])}"


def set_name(resource: EdgeDeployment, pool: str, revision: str) -> str:
    """Name of a pool's DaemonSet, and of its configuration, for a revision."""
    return f"{resource.metadata.name}-{pool[:12].rstrip('-')}-{digest8([pool, revision])}"


def serving_pod(observed: Observed, pool: str, revision: str, node: str) -> Manifest | None:
    """The pod of a revision on a node; one that is going away is none."""
    for pod in observed.pods:
        labels = pod["metadata"].get("labels") or {}
        if (
            labels.get(LABEL_ROLE) == "serve"
            and labels.get(LABEL_POOL) == pool
            and labels.get(LABEL_REVISION) == revision
            and not pod["metadata"].get("deletionTimestamp")
            and node_of(pod) == node
            and (pod.get("status") or {}).get("phase") not in ("Failed", "Succeeded")
        ):
            return pod
    return None


def node_of(pod: Manifest) -> str | None:
    """The node that a pod is on, or is meant for: a DaemonSet pins its pods by affinity before they are scheduled."""
    spec = pod.get("spec") or {}
    if spec.get("nodeName"):
        return str(spec["nodeName"])
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or {}
    for term in affinity.get("nodeSelectorTerms") or []:
        for field_ in term.get("matchFields") or []:
            if field_.get("key") == "metadata.name" and field_.get("values"):
                return str(field_["values"][0])
    return None


def admitted(daemon_set: Manifest) -> set[str]:
    """Host names that a candidate's DaemonSet is bound to."""
    affinity = (daemon_set["spec"]["template"]["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or []
    return {
        value
        for term in terms
        for expression in term.get("matchExpressions") or []
        if expression.get("key") == HOSTNAME and expression.get("operator") == "In"
        for value in expression.get("values") or []
    }


def condition(pod: Manifest, type: str) -> bool:
    """Whether a pod's condition is True."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c.get("type") == type and c.get("status") == "True" for c in conditions)


def gate_open(pod: Manifest) -> bool:
    """Whether a pod may get traffic: the readiness gate is open, or it has none."""
    gates = (pod.get("spec") or {}).get("readinessGates") or []
    return condition(pod, SERVING) or not any(g.get("conditionType") == SERVING for g in gates)


def _crashed(pod: Manifest) -> str:
    for status in (pod.get("status") or {}).get("containerStatuses") or []:
        if status.get("restartCount", 0) >= MAX_RESTARTS:
            last = (status.get("lastState") or {}).get("terminated") or {}
            code = last.get("exitCode")
            return f"the server was restarted {status['restartCount']} times: {last.get('reason')}, exit code {code}"
    return ""


def _late(resource: EdgeDeployment, begun: Manifest, now: datetime) -> str:
    limit = resource.spec.strategy.progress_deadline
    started = begun["metadata"].get("creationTimestamp")
    if not started:
        return ""
    elapsed = (now - datetime.fromisoformat(started)).total_seconds()
    return f"not done within progressDeadline {limit}" if elapsed > seconds(limit) else ""
