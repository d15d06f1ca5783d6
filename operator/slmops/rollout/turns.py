"""Where each node stands: nothing is remembered, every step is read from the children that it left behind.

A node's turn::

    Waiting -> Pulling -> Starting -> Measuring -> Passed -> Serving
                  |           |           |          |
                  +-----------+-----------+----------+--> Failed / Inconclusive

``Pulling``: a Job pinned to the node mounts the candidate's model image. ``Starting``: the candidate's DaemonSet has
been given the node; its pod is up beside the stable one but gets no traffic (a readiness gate). ``Measuring``: a Job
measures both. ``Passed``: the gate opens; once the pod is ready the stable DaemonSet gives the node up: ``Serving``.

Where nodes hold one server only (``cutOver: StopThenDownload``) three steps come before: ``MeasuringStable``, where a gate
compares, ``Stopping`` and ``Stopped``; the stable DaemonSet gives the node up for as long as the turn is under way.

Time in which the node was away does not count against the candidate, nor does a Job that failed meanwhile.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, partial
from typing import Literal

from slmops.api.base import seconds
from slmops.api.conditions import moment
from slmops.api.edgedeployment import EdgeDeployment, Pool
from slmops.rollout.benches import BEFORE, Benches, failure, void
from slmops.rollout.children import job_name
from slmops.rollout.fit import Need, misfit, need, pulled, too_large
from slmops.rollout.fleet import Node
from slmops.rollout.pods import Servers, condition, crashed, gate_open, is_gated, may_serve, refused, since
from slmops.state import IMAGE_UNAVAILABLE, Manifest, Observed, image_missing, waiting_for

Cause = Literal["Artifact", "Node", "Registry", "Benchmark"]
"""Who is to blame: the model and its server, which every node has the same; the node; the way to the registry; or whoever
measures."""
TurnStep = Literal[
    "Waiting", "MeasuringStable", "Stopping", "Stopped", "Pulling", "Starting", "Measuring", "Passed", "Serving", "Failed",
    "Inconclusive",
]  # fmt: skip


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
    """The pod of what the node goes back to."""
    incumbent: str | None = None
    """The revision that the node goes back to."""
    known: bool = False
    """The candidate has passed on such hardware: nothing is to be looked at before it serves, so no Job is made."""
    cause: Cause | None = None
    """Of a failure, or of a doubt."""
    stops: bool = False
    """The node holds one server only, and has one that goes before the candidate comes."""

    @property
    def own(self) -> bool:
        """Whether it failed for a reason that another node need not have."""
        return self.step == "Failed" and self.cause in ("Node", "Registry")

    @property
    def fatal(self) -> bool:
        """Whether it failed for a reason that any node would have."""
        return self.step == "Failed" and not self.own


@dataclass(frozen=True)
class Asked:
    """The candidate, and what is known of it beforehand."""

    revision: str
    classes: Mapping[str, Collection[str]] = field(default_factory=dict)
    """Hardware on which it has passed before, by pool, where it was stable once."""
    trusted: bool = False
    """Somebody takes doubts of the benchmark on himself."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Bytes of the model image by pool, where they are known."""


@dataclass(frozen=True)
class Trial:
    """The candidate in one pool, and what it takes to tell where a node stands."""

    resource: EdgeDeployment
    observed: Observed
    servers: Servers
    benches: Benches
    of: Pool
    asked: Asked
    incumbents: Mapping[str, str]
    """What nodes go back to, by name."""
    admitted: Collection[str]
    """Host names where the candidate's DaemonSet may have pods."""
    admitted_at: str | None
    """When the last of them was admitted."""
    now: datetime
    beside: Mapping[str, Manifest] = field(default_factory=dict)
    """DaemonSets of what nodes go back to, by revision."""
    barred: Mapping[str, Collection[str]] = field(default_factory=dict)
    """Host names of the pool that these are kept from, by revision."""
    promoted: bool = False
    """The candidate was promoted already, and its DaemonSet goes to any node that is new: a pod that nobody has let in
    is none."""

    @property
    def pool(self) -> str:
        """The pool's name."""
        return self.of.name

    @property
    def revision(self) -> str:
        """The candidate's name."""
        return self.asked.revision

    @property
    def stops_first(self) -> bool:
        """Whether a node has one server at a time. A node that is late keeps its own until the new one is there."""
        return self.resource.spec.strategy.stops_first and not self.promoted

    @cached_property
    def need(self) -> Need:
        """What it takes on a node; once a pass, since a fleet has thousands."""
        return need(self.resource, self.of, self.asked.sizes.get(self.pool))

    def misfit(self, node: Node) -> str:
        """Why it can never come to a node."""
        beside = None if self.stops_first else self.beside.get(self.incumbents.get(node.name, ""))
        return misfit(self.need, node, beside)

    def begun(self, node: Node) -> bool:
        """Whether anything of it is on a node."""
        if self.servers.get(self.pool, self.revision, node.name) is not None:
            return True
        return self.observed.child("Job", job_name(self.resource, "pull", self.pool, self.revision, node)) is not None

    def late(self, node: Node, started: str | None) -> str:
        """What to say of something that began then and should be done by now."""
        limit = self.resource.spec.strategy.progress_deadline
        begun = max((time for time in (moment(started), moment(node.since)) if time), default=self.now)
        elapsed = (self.now - begun).total_seconds()
        return f"not done within progressDeadline {limit}" if elapsed > seconds(limit) else ""


def turn(trial: Trial, node: Node, proven: Collection[str]) -> Turn:
    """Read one node's step. ``proven`` are the hardware classes on which the candidate has passed."""
    pod = trial.servers.get(trial.pool, trial.revision, node.name)
    incumbent = trial.incumbents.get(node.name)
    stable_pod = trial.servers.get(trial.pool, incumbent, node.name) if incumbent else None
    if trial.promoted and pod is not None and not may_serve(pod) and not _pulled(trial, node):
        pod = None
    known = node.hardware in proven
    stops = trial.stops_first and incumbent is not None
    make = partial(Turn, node, pod=pod, stable_pod=stable_pod, incumbent=incumbent, known=known, stops=stops)
    found = trial.benches.of(trial.pool, trial.revision, node)
    doubtful = found is not None and found.verdict == "Inconclusive"
    if found is not None and (found.verdict == "Failed" or (doubtful and not trial.asked.trusted)):
        return make("Failed" if found.verdict == "Failed" else "Inconclusive", found.message, found.reason,
                    cause="Benchmark" if found.reason == "BenchmarkFailed" else "Artifact")  # fmt: skip
    if pod is None and stops and (step := _to_stop(trial, node, make, known)) is not None:
        return step
    if pod is None:
        return _before_pod(trial, node, make, known and not trial.promoted)
    reason, why = refused(pod)
    if reason:
        return make("Failed", f"the server refuses the model image: {why}", reason, cause="Artifact")
    if failed := crashed(pod):
        return make("Failed", failed, "CandidateCrashed", cause="Artifact")
    if gate_open(pod) and condition(pod, "Ready"):
        return make("Serving")
    if gate_open(pod) and is_gated(pod):
        late = trial.late(node, since(pod, "Ready"))
        return _overdue(make, f"{late}: the server is not ready any more", "Artifact") if late else make("Passed")
    if not condition(pod, "ContainersReady"):
        late = trial.late(node, since(pod, "ContainersReady"))
        why = waiting_for(pod)
        text = f"{late}: {why or 'the server does not get ready'}"
        cause: Cause = _way(why) if image_missing(pod) else "Node" if why else "Artifact"
        return _overdue(make, text, cause) if late else make("Starting", why)
    passed = doubtful or (found is not None and found.verdict == "Passed")
    if passed or trial.resource.spec.benchmark is None or known:
        return make("Passed")
    if found is None and not trial.asked.trusted and _lacks_comparison(trial, incumbent, stable_pod):
        why = "the stable server on this node is not ready, and a gate compares with it"
        late = trial.late(node, since(pod, "ContainersReady"))
        text = f"{late}: {why}"
        return make("Inconclusive", text, "NothingToCompare", cause="Node") if late else make("Starting", why)
    return make("Measuring")


def lost(trial: Trial, node: Node) -> Turn | None:
    """The turn of a node that went away with the candidate on it, and has been silent for too long; None where it has
    not."""
    pod = trial.servers.get(trial.pool, trial.revision, node.name)
    late = trial.late(node, node.since) if pod is not None and node.since else ""
    text = "its node has been away for longer than progressDeadline since the candidate came to it"
    return Turn(node, "Failed", text, "NodeLost", pod=pod, cause="Node") if late else None


def _pulled(trial: Trial, node: Node) -> bool:
    return trial.observed.job(job_name(trial.resource, "pull", trial.pool, trial.revision, node)).phase == "Succeeded"


def _lacks_comparison(trial: Trial, incumbent: str | None, stable_pod: Manifest | None) -> bool:
    compares = any(gate.max_regression is not None for gate in trial.resource.spec.gates)
    if not compares or incumbent is None or trial.stops_first:
        return False
    return stable_pod is None or not condition(stable_pod, "Ready")


def _to_stop(trial: Trial, node: Node, make: "partial[Turn]", known: bool) -> Turn | None:
    """The steps before a node has no server any more; None where it has none."""
    incumbent = trial.incumbents[node.name]
    if node.hostname not in trial.barred[incumbent]:
        job = job_name(trial.resource, BEFORE, trial.pool, trial.revision, node)
        state = trial.observed.job(job)
        if state.phase == "Absent" or void(trial.observed.child("Job", job) or {"metadata": {}}, state, node):
            return make("Waiting")
        if state.phase == "Failed":
            return make("Inconclusive", f"the benchmark itself failed: {failure(trial.resource, state)}", "BenchmarkFailed",
                        cause="Benchmark")  # fmt: skip
        return make("Stopping") if state.phase == "Succeeded" else make("MeasuringStable")
    if trial.servers.get(trial.pool, incumbent, node.name) is not None:
        return make("Stopping")
    pull = job_name(trial.resource, "pull", trial.pool, trial.revision, node)
    begun = trial.observed.child("Job", pull) is not None or (known and node.hostname in trial.admitted)
    return None if begun else make("Stopped")


def compares(resource: EdgeDeployment, turn: Turn) -> bool:
    """Whether the stable server has to be measured before it is stopped."""
    gates = resource.spec.gates
    return not turn.known and turn.stable_pod is not None and any(gate.max_regression is not None for gate in gates)


def _way(why: str) -> Cause:
    """Who is to blame for an image that does not come: the kubelet says the same of a registry and of its own disk."""
    return "Node" if "no space left on device" in why else "Registry"


def _no_pod(make: "partial[Turn]", late: str) -> Turn:
    return _overdue(make, f"{late}: the DaemonSet makes no pod here; look at the node's taints", "Node")


def _before_pod(trial: Trial, node: Node, make: "partial[Turn]", known: bool) -> Turn:
    name = job_name(trial.resource, "pull", trial.pool, trial.revision, node)
    job, state = trial.observed.child("Job", name), trial.observed.job(name)
    if job is None and (why := trial.misfit(node)):
        return make("Failed", why, "NodeTooSmall", cause="Node")
    if job is None and known and node.hostname in trial.admitted:
        # On hardware where the candidate has passed the DaemonSet itself brings the image.
        late = trial.late(node, trial.admitted_at)
        return _no_pod(make, late) if late else make("Starting", "waiting for its pod")
    if job is None or void(job, state, node):
        return make("Waiting")
    if state.phase == "Failed":
        said = state.report is not None and state.reason != "DeadlineExceeded"
        return make("Failed", f"the model image cannot be used: {failure(trial.resource, state)}", state.reason,
                    cause="Artifact" if said else "Node")  # fmt: skip
    if state.phase == "Succeeded":
        if why := too_large(trial.resource, trial.of, pulled(state)):
            return make("Failed", why, "ModelTooLarge", cause="Artifact")
        ended = (job.get("status") or {}).get("completionTime")
        if node.hostname in trial.admitted and (late := trial.late(node, ended)):
            return _no_pod(make, late)
        return make("Starting", "waiting for its pod")
    if late := trial.late(node, job["metadata"].get("creationTimestamp")):
        # The same image has come to other nodes; or it comes to none, and then the limit is passed soon.
        cause = _way(state.message) if state.reason == IMAGE_UNAVAILABLE else "Node"
        return _overdue(make, f"{late}: {state.message or 'the model image was not pulled'}", cause)
    return make("Pulling", state.message)


def _overdue(make: "partial[Turn]", text: str, cause: Cause) -> Turn:
    return make("Failed", text, "ProgressDeadlineExceeded", cause=cause)
