"""The status of a QuantizedModel: each variant by itself, then all of them together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from slmops.api.batch import ProgressStatus
from slmops.api.compress import PruningStatus
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
from slmops.figures import display, duration, incomparable, intervals, significant, size, values
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
    climbs = [_halted(climb, observed) for climb in (plan.detail if isinstance(plan.detail, tuple) else ())]
    before = {row.name: row.progress for row in resource.status.variants}
    variants = [_variant(climb, before) for climb in climbs] or _unplanned(resource)
    states = [climb.now.state for climb in climbs] or [JobState("Absent")] * len(variants)
    sign = sign_state(plan.steps, observed)
    finished = all(state.finished for state in states)
    some = finished and any(state.phase == "Succeeded" for state in states)
    last = {step.role: observed.job(step.name) for step in plan.steps if step.role in (COMPARE, INDEX)}
    facts: list[Fact] = [
        *intake(plan),
        _together(C.QUANTIZED, "Built", variants, states),
        # Of those that are built: one that failed does not hide what became of the others.
        _judged(variants) if some else unknown(C.EVALUATED, "Pending"),
        _published([*last.values()]) if some else unknown(C.PUBLISHED, "Pending"),
        *signed(resource.spec.output, sign),
    ]
    facts.append(succeeded(facts, ""))
    running, doing = _running(states, [*last.values()] if finished else [], sign)
    shown = progress(running, resource.status.progress)
    return QuantizedModelStatus(
        phase=phase(facts, (running, doing), resource.status.phase),
        observed_generation=resource.metadata.generation,
        inputs={k: v for state in states if state.report for k, v in state.report.inputs.items()},
        licenses={k: v for state in states if state.report for k, v in state.report.licenses.items()},
        verified={k: v for state in states if state.report for k, v in state.report.verified.items()},
        progress=shown if finished else _overall(shown, states),
        variants=variants,
        ready=f"{sum(v.phase == 'Ready' for v in variants)}/{len(variants)}",
        sizes=_each(variants, lambda variant: variant.size),
        retained=_each(variants, _retained),
        comparison=[_row(row) for row in comparison(climbs)[1]] if finished else [],
        report=page.reference if (page := _made(last, COMPARE, "comparison")) else None,
        index=artifact(_made(last, INDEX, "index")),
        conditions=conditions(resource, facts, now),
    )


def _halted(climb: Climb, observed: Observed) -> Climb:
    """Where it stands, with what the budget says of its Job: that is known only once the plan is made."""
    now = climb.now
    if now.job not in observed.halted:
        return climb
    return Climb((*climb.rungs[:-1], replace(now, state=observed.job(now.job))))


def _overall(shown: ProgressStatus | None, states: Sequence[JobState]) -> ProgressStatus | None:
    """What the Job that stands for all shows, with the share that is done and the time that is left of all of them. Nobody
    knows how long takes what has not begun."""
    if shown is None:
        return None
    said = [state.progress for state in states if not (state.finished or (state.ending and not state.message))]
    left = [each.job_eta_seconds if each else None for each in said]
    known = [seconds for seconds in left if seconds is not None]
    shares = [1.0] * (len(states) - len(said)) + [(each.job_share if each else None) or 0.0 for each in said]
    return shown.model_copy(update={
        "job_percent": int(100 * sum(shares) / len(shares)),
        "job_eta": duration(max(known)) if known and len(known) == len(left) else None,
    })  # fmt: skip


def _each(variants: Sequence[VariantStatus], shown: Callable[[VariantStatus], str | None]) -> str | None:
    """One text over all variants, for a column; None where there is nothing to show of any."""
    found = [shown(variant) for variant in variants]
    return ",".join(text or "-" for text in found) if any(found) else None


def _retained(variant: VariantStatus) -> str | None:
    kept = variant.evaluation.get("comparison", {}).get("AccuracyRetained")
    return None if kept is None else display("AccuracyRetained", kept)


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
        pruning=_pruning(rung),
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


def _pruning(rung: Rung) -> PruningStatus | None:
    found = rung.pruned
    if found is None:
        return None
    return PruningStatus(
        sparsity=significant(found.sparsity), similarity=significant(found.similarity),
        packed_size=size(found.packed_bytes), dense_packed_size=size(found.dense_packed_bytes),
    )  # fmt: skip


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
        sparsity=display("Sparsity", row.pruned.sparsity) if row.pruned else None,
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
