"""The status of a FineTune."""

from datetime import datetime

from slmops.api.conditions import ConditionType, Fact, timestamp, true, unknown
from slmops.api.data import DatasetStatus
from slmops.api.finetune import FineTune, FineTuneStatus, RerunStatus
from slmops.figures import evaluation, incomparable, intervals, quality_gates, values
from slmops.retraining import asked
from slmops.state import JobState, Observed, Plan
from slmops.status.adapters import adapters_status
from slmops.status.batch import artifact, conditions, dataset, intake, judged, phase, progress, stage, succeeded
from slmops.status.learning import learned, learning
from slmops.status.search import hunt_of
from slmops.status.signing import at_work, sign_state, signed

C = ConditionType


def finetune_status(resource: FineTune, observed: Observed, plan: Plan, now: datetime) -> FineTuneStatus:
    """What has become of the FineTune, and of which run."""
    return _of_run(resource, observed, plan, now).model_copy(update={"retrain": _rerun(resource, now)})


def _rerun(resource: FineTune, now: datetime) -> RerunStatus | None:
    """The run that was asked for besides, and when that was seen first."""
    word, known = asked(resource), resource.status.retrain
    if word is None or (known is not None and known.why == word):
        return known
    return RerunStatus(why=word, at=timestamp(now))


def _of_run(resource: FineTune, observed: Observed, plan: Plan, now: datetime) -> FineTuneStatus:
    if resource.spec.adapters is not None:
        return adapters_status(resource, resource.spec.adapters, observed, plan, now)
    before = resource.status
    hunt = hunt_of(resource.spec.search, observed, plan)
    states = {step.role: observed.job(step.name) for step in plan.steps}
    train = states.get("train", JobState("Absent"))
    trained = train.report if train.phase == "Succeeded" else None
    # Where another engine learns, it is done when its Job is, and the training Job measures and publishes.
    learner = states.get("olive", train)
    sign = sign_state(plan.steps, observed)
    current = sign if trained and at_work(sign) else train if learner.phase == "Succeeded" else learner
    figures = evaluation(trained.evaluation if trained else {}, ("baseline",))
    gates = quality_gates(resource.spec.gates, figures) if trained else []
    facts: list[Fact] = [
        *intake(plan),
        learned(learner) if hunt is None or hunt.over else hunt.trained(),
        judged(gates, incomparable(gates, values(figures), "baseline")) if trained else _not_evaluated(learner, train),
        true(C.PUBLISHED, "Pushed") if trained else unknown(C.PUBLISHED, "Pending"),
        *signed(resource.spec.output, sign),
    ]
    facts.append(succeeded(facts, ""))
    doing = "Signing" if current is sign else "Training"
    return FineTuneStatus(
        phase=phase(facts, (current, doing) if hunt is None or hunt.over else hunt.running(), before.phase),
        observed_generation=resource.metadata.generation,
        inputs=dict(trained.inputs) if trained else {},
        licenses=dict(trained.licenses) if trained else {},
        verified=dict(trained.verified) if trained else {},
        progress=progress(current, before.progress) if hunt is None or hunt.over else hunt.progress(),
        trials=hunt.counts() if hunt else None,
        best=hunt.best() if hunt else None,
        search=hunt.status(trained) if hunt else None,
        dataset=dataset(DatasetStatus, trained) if trained else None,
        evaluation=values(figures),
        intervals=intervals(figures),
        gates=gates,
        learning=learning(learner.report if learner.phase == "Succeeded" else None),
        logs=artifact(trained.artifacts.get("logs")) if trained else None,
        adapter=artifact(trained.artifacts.get("adapter")) if trained else None,
        artifact=artifact(trained.artifacts.get("model")) if trained else None,
        conditions=conditions(resource, facts, now),
    )


def _not_evaluated(learner: JobState, train: JobState) -> Fact:
    """Evaluated while there is no figure: a training that fails says so in Trained, one after another engine's here."""
    return unknown(C.EVALUATED, "Pending") if learner is train else stage(C.EVALUATED, "Measured", train)
