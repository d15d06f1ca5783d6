"""The status of a FineTune."""

from datetime import datetime

from slmops.api.conditions import ConditionType, Fact, true, unknown
from slmops.api.data import DatasetStatus
from slmops.api.finetune import FineTune, FineTuneStatus
from slmops.figures import evaluation, quality_gates
from slmops.state import JobState, Observed, Plan
from slmops.status.batch import artifact, conditions, dataset, intake, judged, phase, progress, succeeded
from slmops.status.learning import learned, learning

C = ConditionType


def finetune_status(resource: FineTune, observed: Observed, plan: Plan, now: datetime) -> FineTuneStatus:
    """What has become of the FineTune."""
    train = observed.job(plan.steps[0].name) if plan.steps else JobState("Absent")
    trained = train.report if train.phase == "Succeeded" else None
    figures = evaluation(trained.evaluation if trained else {}, ("baseline",))
    gates = quality_gates(resource.spec.gates, figures) if trained else []
    facts: list[Fact] = [
        *intake(plan),
        learned(train),
        judged(gates) if trained else unknown(C.EVALUATED, "Pending"),
        true(C.PUBLISHED, "Pushed") if trained else unknown(C.PUBLISHED, "Pending"),
    ]
    facts.append(succeeded(facts, ""))
    return FineTuneStatus(
        phase=phase(facts, (train, "Training")),
        observed_generation=resource.metadata.generation,
        inputs=dict(trained.inputs) if trained else {},
        licenses=dict(trained.licenses) if trained else {},
        progress=progress(train),
        dataset=dataset(DatasetStatus, trained) if trained else None,
        evaluation=figures,
        gates=gates,
        learning=learning(trained),
        logs=artifact(trained.artifacts.get("logs")) if trained else None,
        adapter=artifact(trained.artifacts.get("adapter")) if trained else None,
        artifact=artifact(trained.artifacts.get("model")) if trained else None,
        conditions=conditions(resource, facts, now),
    )
