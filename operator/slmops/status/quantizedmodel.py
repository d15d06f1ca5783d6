"""The status of a QuantizedModel: each variant by itself, then all of them together."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from slmops.api.batch import ProgressStatus
from slmops.api.conditions import ConditionType, Fact, false, true, unknown
from slmops.api.quantizedmodel import (
    ComparisonRow,
    PackedAdapterStatus,
    QuantizedModel,
    QuantizedModelStatus,
    TriedStatus,
    VariantStatus,
    VerificationStatus,
)
from slmops.contract import Artifact, Compared
from slmops.figures import display, incomparable, intervals, significant, size, values
from slmops.ladder import COMPARE, INDEX, Climb, Rung, comparison
from slmops.state import JobState, Observed, Plan
from slmops.status.batch import artifact, conditions, intake, judged, phase, progress, shortfall, stage, succeeded
from slmops.status.remedies import with_remedy
from slmops.status.signing import at_work, sign_state, signed

C = ConditionType


def quantizedmodel_status(
    resource: QuantizedModel, observed: Observed, plan: Plan, now: datetime
) -> QuantizedModelStatus:
    """What has become of the QuantizedModel."""
    climbs = plan.detail if isinstance(plan.detail, tuple) else ()
    before = {row.name: row.progress for row in resource.status.variants}
    variants = [_variant(climb, before) for climb in climbs] or _unplanned(resource)
    states = [climb.now.state for climb in climbs] or [JobState("Absent")] * len(variants)
    sign = sign_state(plan.steps, observed)
    done = all(state.phase == "Succeeded" for state in states)
    last = {step.role: observed.job(step.name) for step in plan.steps if step.role in (COMPARE, INDEX)}
    facts: list[Fact] = [
        *intake(plan),
        _together(C.QUANTIZED, "Built", variants, states),
        _judged(variants) if done else unknown(C.EVALUATED, "Pending"),
        _published([*last.values()]) if done else unknown(C.PUBLISHED, "Pending"),
        *signed(resource.spec.output, sign),
    ]
    facts.append(succeeded(facts, ""))
    running, doing = _running(states, [*last.values()] if done else [], sign)
    return QuantizedModelStatus(
        phase=phase(facts, (running, doing), resource.status.phase),
        observed_generation=resource.metadata.generation,
        inputs={k: v for state in states if state.report for k, v in state.report.inputs.items()},
        verified={k: v for state in states if state.report for k, v in state.report.verified.items()},
        progress=progress(running, resource.status.progress),
        variants=variants,
        ready=f"{sum(v.phase == 'Ready' for v in variants)}/{len(variants)}",
        comparison=[_row(row) for row in comparison(climbs)[1]] if done else [],
        report=page.reference if (page := _made(last, COMPARE, "comparison")) else None,
        index=artifact(_made(last, INDEX, "index")),
        conditions=conditions(resource, facts, now),
    )


def _made(last: Mapping[str, JobState], role: str, name: str) -> Artifact | None:
    state = last.get(role)
    return state.report.artifacts.get(name) if state and state.report and state.phase == "Succeeded" else None


def _running(states: Sequence[JobState], last: Sequence[JobState], sign: JobState) -> tuple[JobState, str]:
    """The Job that stands for all, and what is done meanwhile."""
    building = next((state for state in states if state.phase == "Running"), None)
    if building is not None:
        return building, "Quantizing"
    for state in last:
        if not state.finished:
            return state, "Publishing"
    return (sign, "Signing") if at_work(sign) else (states[0], "Quantizing")


def _unplanned(resource: QuantizedModel) -> list[VariantStatus]:
    """Variants of which nothing is known. By name: where the plan refused one that is used twice, it is there once."""
    wanted = {variant.name: variant for variant in resource.spec.variants}.values()
    return [_variant(Climb((Rung(variant, "", JobState("Absent")),)), {}) for variant in wanted]


def _variant(climb: Climb, before: Mapping[str, ProgressStatus | None]) -> VariantStatus:
    """``before``: the progress of each variant in the status that stands."""
    rung = climb.now
    state = rung.state
    image = rung.image
    missed = _gates(rung)
    return VariantStatus(
        name=rung.variant.name,
        phase=_phase(state, missed),
        reference=image.reference if image else None,
        size=size(image.size) if image else None,
        format=rung.variant.format,
        precision=rung.variant.precision,
        tried=[_tried(earlier) for earlier in climb.rungs[:-1]],
        architecture=rung.variant.target.architecture,
        device=rung.variant.target.device,
        verification=_verified(rung),
        adapters=_packed(rung),
        evaluation=values(rung.figures),
        intervals=intervals(rung.figures),
        gates=rung.gates,
        progress=progress(state, before.get(rung.variant.name)),
        message=_message(rung, missed) or None,
    )


def _verified(rung: Rung) -> VerificationStatus | None:
    report = rung.state.report if rung.state.phase == "Succeeded" else None
    found = report.verification if report else None
    if found is None:
        return None
    return VerificationStatus(
        loads=found.loaded_on == rung.variant.target.device,
        similarity=significant(found.similarity),
        greedy_agreement=significant(found.greedy_agreement),
    )


def _packed(rung: Rung) -> list[PackedAdapterStatus]:
    report = rung.state.report if rung.state.phase == "Succeeded" else None
    return [
        PackedAdapterStatus(
            name=name, layer=found.layer, size=size(found.size),
            similarity=None if found.similarity is None else significant(found.similarity),
        ) for name, found in (report.adapters.items() if report else ())
    ]  # fmt: skip


def _tried(rung: Rung) -> TriedStatus:
    image = rung.image
    return TriedStatus(
        precision=rung.variant.precision,
        outcome="Rejected" if image else "Failed",
        # What to do about it is done.
        message=shortfall([gate for gate in rung.gates if gate.outcome != "Passed"]) if image else rung.state.message,
        reference=image.reference if image else None,
    )


def _gates(rung: Rung) -> Fact:
    return judged(rung.gates, incomparable(rung.gates, values(rung.figures), "reference"))


def _message(rung: Rung, missed: Fact) -> str:
    state = rung.state
    if state.phase == "Succeeded":
        return "" if missed.status == "True" else missed.message
    return with_remedy(state.reason, state.message) if state.failing else state.message


def _row(row: Compared) -> ComparisonRow:
    return ComparisonRow(
        name=row.name,
        precision=row.precision,
        quality=display("Accuracy", row.quality),
        latency=None if row.seconds is None else display("InferenceTime", row.seconds),
        memory=None if row.memory_bytes is None else size(row.memory_bytes),
        size=size(row.weight_bytes),
        optimal=row.optimal,
    )


def _published(last: Sequence[JobState]) -> Fact:
    """The images are there once they are built; page and index where there is something to compare, and to choose from."""
    facts = [stage(C.PUBLISHED, "Pushed", state) for state in last] or [true(C.PUBLISHED, "Pushed")]
    return min(facts, key=lambda fact: ("False", "Unknown", "True").index(fact.status))


def _judged(variants: Sequence[VariantStatus]) -> Fact:
    why: dict[str, str] = {}
    for variant in variants:
        why |= incomparable(variant.gates, variant.evaluation, "reference")
    return judged([gate for variant in variants for gate in variant.gates], why)


def _phase(state: JobState, gates: Fact) -> str:
    if state.phase == "Succeeded":
        return "Ready" if gates.status == "True" else "Rejected"
    return "Pending" if state.phase in ("Absent", "Starting") else state.phase


def _together(type: ConditionType, done: str, variants: Sequence[VariantStatus], states: Sequence[JobState]) -> Fact:
    failed = [(v, s) for v, s in zip(variants, states, strict=True) if s.failing]
    if failed:
        reason = failed[0][1].reason
        return false(type, reason, "; ".join(f"{v.name}: {v.message}" for v, _ in failed))
    if all(state.phase == "Succeeded" for state in states):
        return true(type, done)
    waiting = next((state for state in states if state.phase != "Succeeded"), states[0])
    return unknown(type, "Pending" if waiting.phase == "Absent" else waiting.phase, waiting.message)
