"""The status of a FineTune of several adapters: each by itself, then all of them together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from slmops.api.adapters import Adapter, AdapterStatus
from slmops.api.conditions import ConditionType, Fact, false, true, unknown
from slmops.api.data import DatasetStatus
from slmops.api.evaluation import QualityGate
from slmops.api.finetune import FineTune, FineTuneStatus
from slmops.contract import Artifact, Report
from slmops.figures import evaluation, incomparable, intervals, quality_gates, size, values
from slmops.state import JobPhase, JobState, Observed, Plan
from slmops.status.batch import (
    artifact,
    at_stage,
    conditions,
    dataset,
    intake,
    judged,
    phase,
    progress,
    stage,
    succeeded,
)
from slmops.status.learning import learned, learning
from slmops.status.signing import at_work, sign_state, signed

C = ConditionType
ABSENT = JobState("Absent")
ORDER: tuple[JobPhase, ...] = ("Running", "Starting", "Queued", "Absent")
"""Of what has not ended, by how far it has come."""


@dataclass(frozen=True)
class Row:
    """One adapter: its status, and what its Jobs say."""

    status: AdapterStatus
    current: JobState
    report: Report | None
    """Of its training, once that has succeeded."""
    trained: Fact
    evaluated: Fact


def adapters_status(
    resource: FineTune, adapters: Sequence[Adapter], observed: Observed, plan: Plan, now: datetime
) -> FineTuneStatus:
    """What has become of the FineTune."""
    states = {step.role: observed.job(step.name) for step in plan.steps}
    before = {row.name: row for row in resource.status.adapters}
    # Where something else is in the way of all, or of what runs, a condition says so.
    most = resource.spec.parallelism or 1
    turn = "" if plan.problem or plan.halted else f"waits for its turn: spec.parallelism is {most}"
    rows = [_row(adapter, resource.spec.gates, states, before.get(adapter.name), turn) for adapter in adapters]
    reports = [row.report for row in rows if row.report is not None]
    join, sign = states.get("join", ABSENT), sign_state(plan.steps, observed)
    joined = join.report if join.phase == "Succeeded" else None
    facts: list[Fact] = [
        *intake(plan),
        together(C.TRAINED, {row.status.name: row.trained for row in rows}),
        together(C.EVALUATED, {row.status.name: row.evaluated for row in rows}),
        stage(C.PUBLISHED, "Pushed", join),
        *signed(resource.spec.output, sign),
    ]
    facts.append(succeeded(facts, ""))
    current = sign if joined and at_work(sign) else _current(rows, join)
    doing = "Signing" if current is sign else "Publishing" if current is join else "Training"
    return FineTuneStatus(
        phase=phase(facts, (current, doing), resource.status.phase),
        observed_generation=resource.metadata.generation,
        inputs={role: uri for report in reports for role, uri in report.inputs.items() if role == "base"},
        licenses={role: found for report in reports for role, found in report.licenses.items()},
        verified={role: found for report in reports for role, found in report.verified.items()},
        progress=progress(current, resource.status.progress),
        adapters=[row.status for row in rows],
        ready=f"{sum(row.status.phase == 'Ready' for row in rows)}/{len(rows)}",
        image=artifact(joined.artifacts.get("image")) if joined else None,
        conditions=conditions(resource, facts, now),
    )


def together(type: ConditionType, facts: Mapping[str, Fact]) -> Fact:
    """One condition over all adapters: False as soon as one is, True when all are. Messages name theirs."""
    for status, make in (("False", false), ("Unknown", unknown)):
        found = {name: fact for name, fact in facts.items() if fact.status == status}
        if found:
            return make(type, next(iter(found.values())).reason, _told(found))
    # A warning (Overfitting) goes before what is said when all is well.
    telling = {name: fact for name, fact in facts.items() if fact.message}
    return true(type, next(iter((telling or facts).values())).reason, _told(telling))


def _told(facts: Mapping[str, Fact]) -> str:
    """Names and messages; what is said of several is said once, for all of them may wait for one queue."""
    names: dict[str, list[str]] = {}
    for name, fact in facts.items():
        if fact.message:
            names.setdefault(fact.message, []).append(name)
    return "; ".join(f"{', '.join(who)}: {message}" for message, who in names.items())


def _current(rows: Sequence[Row], join: JobState) -> JobState:
    """The Job that stands for all: the one that has come furthest of those that go on."""
    if all(row.report is not None for row in rows):
        return join
    unfinished = [row.current for row in rows if not row.current.failing and row.report is None]
    return min(unfinished, key=lambda state: ORDER.index(state.phase), default=ABSENT)


def _row(
    adapter: Adapter, gates_of_all: Sequence[QualityGate], states: Mapping[str, JobState],
    before: AdapterStatus | None, turn: str,
) -> Row:  # fmt: skip
    """``turn``: what is said of one that has no Job yet."""
    train = states.get(f"train-{adapter.name}", ABSENT)
    # Where another engine learns, it is done when its Job is, and the training Job measures and publishes.
    learner = states.get(f"olive-{adapter.name}", train)
    current = train if learner.phase == "Succeeded" else learner
    report = train.report if train.phase == "Succeeded" else None
    figures = evaluation(report.evaluation if report else {}, ("baseline",))
    gates = quality_gates(gates_of_all if adapter.gates is None else adapter.gates, figures) if report else []
    trained = learned(learner)
    if report is not None:
        evaluated = judged(gates, incomparable(gates, values(figures), "baseline"))
    else:
        # A training that fails says so in Trained, one after another engine's here.
        evaluated = unknown(C.EVALUATED, "Pending") if learner is train else stage(C.EVALUATED, "Measured", train)
    made = report.artifacts if report else {}
    status = AdapterStatus(
        name=adapter.name,
        phase=_phase(current, report, evaluated, before.phase if before else None),
        reference=_reference(made.get("adapter")),
        size=size(made["adapter"].size) if "adapter" in made else None,
        layer=_reference(made.get("layer")),
        logs=_reference(made.get("logs")),
        inputs=dict(report.inputs) if report else {},
        dataset=dataset(DatasetStatus, report) if report else None,
        evaluation=values(figures),
        intervals=intervals(figures),
        gates=gates,
        learning=learning(learner.report if learner.phase == "Succeeded" else None),
        progress=progress(current, before.progress if before else None),
        message=(turn if learner.phase == "Absent" else _message(trained, evaluated)) or None,
    )
    return Row(status, current, report, trained, evaluated)


def _reference(made: Artifact | None) -> str | None:
    return made.reference if made else None


def _phase(current: JobState, report: Report | None, evaluated: Fact, before: str | None) -> str:
    """As a variant of a QuantizedModel has it."""
    if report is not None:
        return "Ready" if evaluated.status == "True" else "Rejected"
    if current.phase == "Failed":
        return "Failed"
    if current.phase in ("Absent", "Starting"):
        return "Pending"
    return at_stage(current, current.phase, before)


def _message(*facts: Fact) -> str:
    """What is said first of what does not hold, else of what does."""
    ranked = sorted(facts, key=lambda fact: ("False", "Unknown", "True").index(fact.status))
    return next((fact.message for fact in ranked if fact.message), "")
