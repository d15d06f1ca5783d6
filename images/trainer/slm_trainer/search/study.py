"""Optuna's study of the trials so far: they are played again, in their order, so that the study knows all that it would
know had it been there."""

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from slmops.contract import Hyperparameter, Search, Tried

NAME = "search"
"""Hyperband shares trials out by the study's name and the trial's number, so it is always the same."""
optuna.logging.set_verbosity(optuna.logging.WARNING)


def replayed(search: Search) -> optuna.Study:
    """The study after all trials so far. Numbers are those of the search."""
    study = optuna.create_study(
        study_name=NAME, direction=search.direction.lower(), sampler=_sampler(search), pruner=_pruner(search)
    )
    space = distributions(search)
    for tried in search.tried:
        _play(study, space, search, tried)
    return study


def distributions(search: Search) -> dict[str, BaseDistribution]:
    """The space in Optuna's terms, in its order."""
    return {p.name: _distribution(p) for p in search.space}


def _play(study: optuna.Study, space: dict[str, BaseDistribution], search: Search, tried: Tried) -> None:
    values = zip(search.space, tried.parameters, strict=True)
    study.enqueue_trial({p.name: value for p, value in values})
    trial = study.ask(space)
    for number, loss in enumerate(tried.result.measured if tried.result else (), 1):
        trial.report(loss, number)
        trial.should_prune()  # Hyperband keeps with the trial how far it came
    if tried.result is None:
        study.tell(trial, state=TrialState.FAIL)
    elif tried.result.pruned or tried.result.value is None:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, tried.result.value)


def _distribution(wanted: Hyperparameter) -> BaseDistribution:
    if wanted.log:
        return FloatDistribution(wanted.log.min, wanted.log.max, log=True)
    if wanted.uniform:
        return FloatDistribution(wanted.uniform.min, wanted.uniform.max)
    if wanted.integer:
        return IntDistribution(int(wanted.integer.min), int(wanted.integer.max))
    return CategoricalDistribution(wanted.choice)


def _sampler(search: Search) -> BaseSampler:
    """Seeded by how many trials there were, too: each generation is drawn by a sampler that has drawn nothing yet, and
    would draw the same again."""
    seed = search.seed + len(search.tried)
    return RandomSampler(seed) if search.sampler == "Random" else TPESampler(seed=seed)


def _pruner(search: Search) -> BasePruner:
    """With their defaults. What is counted are measurements, so that trials of other batch sizes stay comparable."""
    if search.pruner == "Median":
        return MedianPruner()
    return HyperbandPruner() if search.pruner == "Hyperband" else NopPruner()
