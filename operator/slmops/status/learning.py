"""How a training went: the condition Trained, and the curves in a status."""

from slmops.api.batch import CurvePointStatus, LearningStatus
from slmops.api.conditions import ConditionType, Fact, true
from slmops.contract import Learning, Report
from slmops.figures import significant
from slmops.state import JobState
from slmops.status.batch import stage
from slmops.status.remedies import with_remedy


def learned(state: JobState) -> Fact:
    """Trained. Endless answers and overfitting are warnings: the model is there, and the gates say whether it is good
    enough."""
    fact = stage(ConditionType.TRAINED, "Trained", state)
    found = state.report.learning if fact.status == "True" and state.report else None
    if found is None:
        return fact
    if found.endless:
        text = "the chat template ends an answer with no special token, so answers go on to their limit of tokens"
        return true(ConditionType.TRAINED, "EndlessAnswers", with_remedy("EndlessAnswers", text))
    if found.overfitted and found.best_eval_loss is not None and found.eval_loss is not None:
        text = (
            f"the loss on held-out records was {found.best_eval_loss:.4g} after step {found.best_step} and is "
            f"{found.eval_loss:.4g} after step {found.steps}, while the training loss went on falling"
        )
        return true(ConditionType.TRAINED, "Overfitting", with_remedy("Overfitting", text))
    if found.stopped_early:
        text = f"stopped early after step {found.steps}; the weights are those of step {found.best_step}"
        return true(ConditionType.TRAINED, "Trained", text)
    return fact


def learning(report: Report | None) -> LearningStatus | None:
    """The figures of a training, in four digits."""
    if report is None or report.learning is None:
        return None
    found: Learning = report.learning
    return LearningStatus(
        steps=found.steps,
        best_step=found.best_step,
        best_eval_loss=_short(found.best_eval_loss),
        eval_loss=_short(found.eval_loss),
        stopped_early=found.stopped_early,
        overfitted=found.overfitted,
        curve=[
            CurvePointStatus(step=p.step, train_loss=_short(p.train_loss), eval_loss=_short(p.eval_loss))
            for p in found.curve
        ],
    )


def _short(value: float | None) -> float | None:
    return None if value is None else significant(value)
