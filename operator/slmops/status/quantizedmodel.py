"""The status of a QuantizedModel: each variant by itself, then all of them together."""

from collections.abc import Sequence
from datetime import datetime

from slmops.api.conditions import ConditionType, Fact, false, true, unknown
from slmops.api.quantizedmodel import QuantizedModel, QuantizedModelStatus, Variant, VariantStatus
from slmops.figures import evaluation, incomparable, intervals, quality_gates, size, values
from slmops.state import JobState, Observed, Plan
from slmops.status.batch import artifact, conditions, intake, judged, phase, progress, stage, succeeded
from slmops.status.remedies import with_remedy

C = ConditionType
INDEX = "index"
"""Role of the Job that publishes an index of all variants."""


def quantizedmodel_status(
    resource: QuantizedModel, observed: Observed, plan: Plan, now: datetime
) -> QuantizedModelStatus:
    """What has become of the QuantizedModel."""
    # By name: where the plan refused a name that is used twice, the status has it once.
    wanted = list({variant.name: variant for variant in resource.spec.variants}.values())
    steps = [step for step in plan.steps if step.role != INDEX]
    states = [observed.job(step.name) for step in steps] or [JobState("Absent")] * len(wanted)
    index = next((observed.job(step.name) for step in plan.steps if step.role == INDEX), None)
    variants = [_variant(resource, v, s) for v, s in zip(wanted, states, strict=True)]
    done = all(state.phase == "Succeeded" for state in states)
    facts: list[Fact] = [
        *intake(plan),
        _together(C.QUANTIZED, "Built", variants, states),
        _judged(variants) if done else unknown(C.EVALUATED, "Pending"),
        _published(index) if done else unknown(C.PUBLISHED, "Pending"),
    ]
    facts.append(succeeded(facts, ""))
    current = index if done and index else states[0]
    running = next((state for state in states if state.phase == "Running"), current)
    return QuantizedModelStatus(
        phase=phase(facts, (running, "Publishing" if running is index else "Quantizing")),
        observed_generation=resource.metadata.generation,
        inputs={k: v for state in states if state.report for k, v in state.report.inputs.items()},
        progress=progress(running),
        variants=variants,
        ready=f"{sum(v.phase == 'Ready' for v in variants)}/{len(variants)}",
        index=artifact(index.report.artifacts.get("index")) if index and index.report else None,
        conditions=conditions(resource, facts, now),
    )


def _variant(resource: QuantizedModel, variant: Variant, state: JobState) -> VariantStatus:
    report = state.report if state.phase == "Succeeded" else None
    image = report.artifacts.get("image") if report else None
    figures = evaluation(report.evaluation if report else {}, ("reference",))
    gates = quality_gates(resource.spec.gates, figures) if report else []
    missed = judged(gates, incomparable(gates, values(figures), "reference"))
    message = with_remedy(state.reason, state.message) if state.failing else state.message
    if report and missed.status != "True":
        message = missed.message
    return VariantStatus(
        name=variant.name,
        phase=_phase(state, missed),
        reference=image.reference if image else None,
        size=size(image.size) if image else None,
        precision=variant.precision,
        architecture=variant.target.architecture,
        evaluation=values(figures),
        intervals=intervals(figures),
        gates=gates,
        progress=progress(state),
        message=message or None,
    )


def _published(index: JobState | None) -> Fact:
    return true(C.PUBLISHED, "Pushed") if index is None else stage(C.PUBLISHED, "Pushed", index)


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
