"""A run that chooses the values of the next trials."""

from slm_trainer.search.study import distributions, replayed
from slmkit.run import Context
from slmops.contract import Hyperparameter, Report, SuggestRun, Value


def suggest(run: SuggestRun, context: Context) -> Report:
    """Choose values for so many trials side by side."""
    context.stage("Suggesting", of=run.count)
    study, space = replayed(run.search), distributions(run.search)
    trials = [study.ask(space) for _ in range(run.count)]
    chosen = tuple(tuple(short(p, trial.params[p.name]) for p in run.search.space) for trial in trials)
    return Report(outcome="Succeeded", suggestions=chosen)


def short(wanted: Hyperparameter, value: Value) -> Value:
    """A drawn number in four digits, within its bounds: more tell nothing, and people write them into a spec."""
    span = wanted.log or wanted.uniform
    if span is None:
        return value
    return min(max(float(f"{value:.4g}"), span.min), span.max)
