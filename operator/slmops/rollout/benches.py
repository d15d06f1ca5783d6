"""What a benchmark on a node came to, by what its Jobs left behind."""

from dataclasses import dataclass, field

from slmops.api.base import ratio
from slmops.api.batch import GateStatus, Outcome
from slmops.api.conditions import moment
from slmops.api.edgedeployment import EdgeDeployment
from slmops.contract import Report, Statistics
from slmops.rollout.children import job_name
from slmops.rollout.fleet import Node
from slmops.rollout.verdict import explained, judge
from slmops.state import JobState, Manifest, Observed

BEFORE = "before"
"""Role of the Job that measures the stable server alone."""


@dataclass(frozen=True)
class Bench:
    """What a benchmark on a node came to; the verdict is None while it runs."""

    verdict: Outcome | None
    message: str = ""
    reason: str = ""
    report: Report | None = None
    gates: list[GateStatus] = field(default_factory=list)


@dataclass(frozen=True)
class Benches:
    """The benchmarks of a pass. Turns, the classes on which a revision has passed, and status all ask for them: each is
    judged once."""

    resource: EdgeDeployment
    observed: Observed
    _judged: dict[tuple[str, str, Node], Bench | None] = field(default_factory=dict)

    def of(self, pool: str, revision: str, node: Node) -> Bench | None:
        """The benchmark of a revision on a node."""
        asked = (pool, revision, node)
        if asked not in self._judged:
            self._judged[asked] = bench(self.resource, self.observed, *asked)
        return self._judged[asked]


def bench(resource: EdgeDeployment, observed: Observed, pool: str, revision: str, node: Node) -> Bench | None:
    """The benchmark of a revision on a node, and what the gates say of it."""
    name = job_name(resource, "bench", pool, revision, node)
    job = observed.child("Job", name)
    if job is None or resource.spec.benchmark is None:
        return None
    state = observed.job(name)
    if void(job, state, node):
        return None
    if state.phase == "Failed":
        return Bench("Inconclusive", f"the benchmark itself failed: {failure(resource, state)}", "BenchmarkFailed")
    if state.phase != "Succeeded" or state.report is None:
        return Bench(None)
    report = state.report
    before = observed.job(job_name(resource, BEFORE, pool, revision, node)) if "stable" not in report.targets else None
    if before is not None and before.report is not None:
        apart = (report.statistics or Statistics()).model_copy(update={"apart": True})
        targets = {**before.report.targets, **report.targets}
        report = report.model_copy(update={"targets": targets, "statistics": apart})
    verdict, gates = judge(resource.spec.gates, report, ratio(resource.spec.benchmark.max_noise))
    told = "; ".join(explained(gate) for gate in gates if gate.outcome == verdict)
    reason = {"Failed": "GateFailed", "Inconclusive": "GateInconclusive"}.get(verdict, "")
    return Bench(verdict, (told or "nothing was measured") if reason else "", reason, report, gates)


def failure(resource: EdgeDeployment, state: JobState) -> str:
    """Why a Job of a turn failed."""
    if state.reason == "DeadlineExceeded":
        return f"it was not done within progressDeadline {resource.spec.strategy.progress_deadline}"
    return state.message


def void(job: Manifest, state: JobState, node: Node) -> bool:
    """Whether a Job failed on a node that was away meanwhile: that says nothing, and it is done again."""
    begun, since = moment(job["metadata"].get("creationTimestamp")), moment(node.since)
    return state.phase == "Failed" and node.ready and begun is not None and since is not None and begun < since
