"""A run that chooses the values of the next trials."""

import logging

from slm_trainer.search.page import write_page
from slm_trainer.search.study import distributions, replayed
from slmkit.registry import Registry
from slmkit.run import Context, RunFailed
from slmops.contract import REPORT_LIMIT, REPORT_TYPE, Artifact, Hyperparameter, Report, SuggestRun, Value

log = logging.getLogger("slm_trainer")
ROOM = 512
"""Bytes of a report that are left for what is added to it."""


def suggest(run: SuggestRun, context: Context) -> Report:
    """Choose values for so many trials side by side."""
    context.stage("Suggesting", of=run.count)
    study, space = replayed(run.search), distributions(run.search)
    trials = [study.ask(space) for _ in range(run.count)]
    chosen = tuple(tuple(short(p, trial.params[p.name]) for p in run.search.space) for trial in trials)
    made = Report(outcome="Succeeded", suggestions=chosen, artifacts=_page(run, context))
    fits = len(made.model_dump_json(exclude_defaults=True)) <= REPORT_LIMIT - ROOM
    return made if fits else made.model_copy(update={"artifacts": {}})


def _page(run: SuggestRun, context: Context) -> dict[str, Artifact]:
    """The trials so far, as a page. A search does not end for want of a picture."""
    if run.page is None or not run.search.tried:
        return {}
    try:
        files = write_page(run.search, run.run, context.work / "search-page")
        page = Registry(run.registry).push_artifact(run.page, files, REPORT_TYPE, context.lineage(run))
    except RunFailed as failed:
        log.warning("no page is published", extra={"reason": failed.reason, "text": failed.message})
        return {}
    return {"search": page}


def short(wanted: Hyperparameter, value: Value) -> Value:
    """A drawn number in four digits, within its bounds: more tell nothing, and people write them into a spec."""
    span = wanted.log or wanted.uniform
    if span is None:
        return value
    return min(max(float(f"{value:.4g}"), span.min), span.max)
