"""The status that the three batch kinds share: progress, conditions up to ``Succeeded``, and a phase for people."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from slmops.api.batch import ArtifactStatus, GateStatus, ProgressStatus
from slmops.api.conditions import Condition, ConditionType, Fact, false, merge, moment, true, unknown
from slmops.api.data import DatasetStatus
from slmops.api.resource import Resource
from slmops.contract import Artifact, Progress, Report
from slmops.figures import duration, significant, size
from slmops.state import JobState, Plan
from slmops.status.remedies import with_remedy

C = ConditionType
Dataset = TypeVar("Dataset", bound=DatasetStatus)
FINAL = ("Succeeded", "Failed")
NO_STAGE = ("Pending", "Queued", "Ready", "Rejected", *FINAL)
"""Phases that are no stage of a Job that runs."""
DAY = 86400.0
NONE: Mapping[str, str] = {}


def intake(plan: Plan) -> list[Fact]:
    """Accepted and InputsResolved."""
    problem = plan.problem
    if problem is None:
        return [true(C.ACCEPTED, "Valid"), true(C.INPUTS_RESOLVED, "Resolved")]
    make = unknown if problem.waiting else false
    if problem.condition is C.ACCEPTED:
        return [make(C.ACCEPTED, problem.reason, problem.message), unknown(C.INPUTS_RESOLVED, "NotAccepted")]
    return [true(C.ACCEPTED, "Valid"), make(C.INPUTS_RESOLVED, problem.reason, problem.message)]


def stage(type: ConditionType, done: str, state: JobState) -> Fact:
    """The condition that a Job brings about."""
    if state.phase == "Succeeded":
        return true(type, done)
    if state.failing:
        return false(type, state.reason, with_remedy(state.reason, state.message))
    if state.phase == "Absent":
        return unknown(type, "Pending")
    return unknown(type, state.phase, state.message)


def judged(gates: Sequence[GateStatus], incomparable: Mapping[str, str] = NONE) -> Fact:
    """Evaluated: whether the gates let the model pass. All of them have to. ``incomparable``: why a comparison cannot be
    made, by metric; what is to be done then is something else than to measure more."""
    bad = [gate for gate in gates if gate.outcome != "Passed"]
    if not bad:
        return true(C.EVALUATED, "GatesPassed" if gates else "Measured")
    failed = [gate for gate in bad if gate.outcome == "Failed"]
    alone = all(gate.value is None and gate.metric in incomparable for gate in bad)
    reason = "GateFailed" if failed else "NotComparable" if alone else "GateInconclusive"
    return false(C.EVALUATED, reason, with_remedy(reason, shortfall(failed or bad, incomparable)))


def shortfall(gates: Sequence[GateStatus], incomparable: Mapping[str, str] = NONE) -> str:
    """What was seen of gates that did not pass, and what was wanted."""
    return "; ".join(
        f"{gate.metric} is {_seen(gate, incomparable.get(gate.metric))}, wanted {gate.bound}" for gate in gates
    )


def _seen(gate: GateStatus, why: str | None) -> str:
    if gate.value is None:
        return f"not measured ({why})" if why else "not measured"
    return f"{gate.value} ({gate.interval})" if gate.interval else gate.value


def succeeded(facts: Sequence[Fact], message: str) -> Fact:
    """Succeeded: False as soon as one condition is, True when all are."""
    for fact in facts:
        if fact.status == "False":
            return false(C.SUCCEEDED, fact.reason, fact.message)
    for fact in facts:
        if fact.status == "Unknown":
            return unknown(C.SUCCEEDED, fact.reason, fact.message)
    return true(C.SUCCEEDED, "Completed", message)


def phase(facts: Sequence[Fact], running: tuple[JobState, str] | None, before: str | None) -> str:
    """One word for people. ``before``: the one in the status that stands."""
    final = facts[-1].status
    if final == "True":
        return "Succeeded"
    if final == "False":
        return "Failed"
    if running is None or running[0].phase in ("Absent", "Starting"):
        return "Pending"
    state, default = running
    if state.phase == "Queued":
        return "Queued"
    return at_stage(state, default, before)


def at_stage(state: JobState, default: str, before: str | None) -> str:
    """The stage of a Job that runs. One whose pod has ended is where it was until its Job says what that comes to, which
    takes a moment: it is at no earlier stage again."""
    if state.ending and before and before not in NO_STAGE:
        return before
    # A pod names its stage itself; it cannot name the end of the whole.
    return state.progress.stage if state.progress and state.progress.stage not in FINAL else default


def progress(state: JobState | None, before: ProgressStatus | None) -> ProgressStatus | None:
    """How far a running Job is; of one that has succeeded, how often it was taken up again. What stood ``before`` stands
    while the Job of a pod that ended well does not say so: it will at once, and one write tells of both."""
    if state is None:
        return None
    if state.ending and not state.message:
        return before
    if state.phase == "Running" and state.progress is not None:
        return _progress(state.progress, state.started)
    if state.phase == "Succeeded" and state.report is not None and state.report.resumes:
        return ProgressStatus(stage="Succeeded", percent=100, resumes=state.report.resumes,
                              lost_steps=state.report.lost_steps)  # fmt: skip
    return None


def _progress(said: Progress, started: str | None) -> ProgressStatus:
    return ProgressStatus(
        stage=said.stage,
        step=said.step,
        of=said.of,
        unit=said.unit,
        done=_done(said),
        percent=min(100, int(100 * said.step / said.of)) if said.of else None,
        loss=None if said.loss is None else significant(said.loss),
        tokens_per_second=None if said.tokens_per_second is None else significant(said.tokens_per_second),
        eta=None if said.eta_seconds is None else duration(said.eta_seconds),
        part=f"{said.part}/{said.parts}" if said.part and said.parts else None,
        job_percent=None if said.job_share is None else int(100 * said.job_share),
        job_eta=None if said.job_eta_seconds is None else duration(said.job_eta_seconds),
        last_checkpoint=said.last_checkpoint,
        resumes=said.resumes or None,
        lost_steps=said.lost_steps or None,
        first_step=_first_step(said, started),
    )


def _done(said: Progress) -> str | None:
    """How much of how much, for people."""
    shown = size if said.unit == "Bytes" else str
    if said.of:
        return f"{shown(said.step)}/{shown(said.of)}"
    return shown(said.step) if said.step else None


def _first_step(said: Progress, started: str | None) -> str | None:
    """Time from the start of a pod to its first step. Both times are by the clock of its node."""
    began = moment(started)
    if said.first_step_at is None or began is None:
        return None
    seconds = said.first_step_at - began.timestamp()
    return duration(seconds) if 0 <= seconds < DAY else None


def artifact(made: Artifact | None) -> ArtifactStatus | None:
    """Something published."""
    return ArtifactStatus(reference=made.reference, size=size(made.size)) if made else None


def dataset(kind: type[Dataset], report: Report, made: str = "", shown: str = "data") -> Dataset | None:
    """What became of the records. ``made`` and ``shown``: names in the report of the data set that was published, if one
    was to be, and of what holds the page on it."""
    published, page = report.artifacts.get(made), report.artifacts.get(shown)
    if report.dataset is None or (made and published is None):
        return None
    return kind(
        **report.dataset.model_dump(),
        digest=published.digest if published else None,
        report=page.reference if page else None,
    )


def conditions(resource: Resource[Any, Any], facts: Sequence[Fact], now: datetime) -> list[Condition]:
    """The facts with their times."""
    return merge(resource.status.conditions, facts, resource.metadata.generation, now)
