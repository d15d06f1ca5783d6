"""The status of a Distillation."""

from datetime import datetime

from slmops.api.conditions import ConditionType, Fact, true, unknown
from slmops.api.distillation import Distillation, DistillationStatus, LabelledStatus
from slmops.figures import evaluation, incomparable, intervals, quality_gates, size, values
from slmops.state import JobState, Observed, Plan
from slmops.status.batch import artifact, conditions, dataset, intake, judged, phase, progress, stage, succeeded
from slmops.status.learning import learned, learning
from slmops.status.signing import at_work, sign_state, signed

C = ConditionType


def distillation_status(resource: Distillation, observed: Observed, plan: Plan, now: datetime) -> DistillationStatus:
    """What has become of the Distillation."""
    states = {step.role: observed.job(step.name) for step in plan.steps}
    label, train = (states.get(role, JobState("Absent")) for role in ("label", "train"))
    sign = sign_state(plan.steps, observed)
    labelled, trained = label.report, train.report if train.phase == "Succeeded" else None
    figures = evaluation(
        {**(labelled.evaluation if labelled else {}), **(trained.evaluation if trained else {})},
        ("teacher",),  # to be better than the untrained student is not to be as good as the teacher
    )
    gates = quality_gates(resource.spec.gates, figures) if trained else []
    facts: list[Fact] = [
        *intake(plan),
        stage(C.SYNTHESIZED, "Labelled", label),
        learned(train),
        judged(gates, incomparable(gates, values(figures), "teacher")) if trained else unknown(C.EVALUATED, "Pending"),
        true(C.PUBLISHED, "Pushed") if trained else unknown(C.PUBLISHED, "Pending"),
        *signed(resource.spec.output, sign),
    ]
    made = trained.artifacts.get("model") if trained else None
    facts.append(succeeded(facts, f"the student is {size(made.size)}" if made else ""))
    current = sign if trained and at_work(sign) else train if label.phase == "Succeeded" else label
    doing = "Signing" if current is sign else "Training" if current is train else "Labelling"
    return DistillationStatus(
        phase=phase(facts, (current, doing), resource.status.phase),
        observed_generation=resource.metadata.generation,
        # What came from outside; the training itself reads the data set that labelling made.
        inputs={**(trained.inputs if trained else {}), **(labelled.inputs if labelled else {})},
        licenses={**(trained.licenses if trained else {}), **(labelled.licenses if labelled else {})},
        verified={**(trained.verified if trained else {}), **(labelled.verified if labelled else {})},
        progress=progress(current, resource.status.progress),
        dataset=dataset(LabelledStatus, labelled, "dataset", "dataset") if labelled else None,
        evaluation=values(figures),
        intervals=intervals(figures),
        gates=gates,
        learning=learning(trained),
        logs=artifact(trained.artifacts.get("logs")) if trained else None,
        artifact=artifact(made),
        conditions=conditions(resource, facts, now),
    )
