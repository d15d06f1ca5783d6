"""Answers, times and losses -> figures with their intervals."""

from collections.abc import Callable, Collection, Sequence
from statistics import median

import numpy as np

from slmkit.apart import Seen
from slmkit.metrics.intervals import Interval, bootstrap, of_median, of_share, rounded, wilson
from slmkit.metrics.measured import Measured
from slmkit.metrics.words import MEASURES, Statistic, alike, perplexity, same
from slmops.contract import Evaluation, Figures, Metric

DIGITS = 5


def judged(seen: Seen, expected: Sequence[str], wanted: Evaluation) -> Measured:
    """All that is wanted of a model that has answered, or has only read what was expected."""
    if seen.answers:
        made = scored(seen.answers, expected, wanted.metrics, wanted.task)
    else:
        made = Measured(Figures(samples=len(expected)), ())
    found: dict[str, float | int | None] = {"weight_bytes": seen.weight_bytes, "parameters": seen.parameters}
    sure: dict[str, Interval | None] = {}
    read = [(nats, tokens) for nats, tokens in zip(seen.nats, seen.tokens, strict=True) if tokens]
    if read:  # records that are longer than the model can read say nothing of it
        nats, tokens = zip(*read, strict=True)
        found["perplexity"], sure[Metric.PERPLEXITY] = _estimate(perplexity(nats, tokens), len(read), bootstrap)
    for metric, field, times in (
        (Metric.INFERENCE_TIME, "inference_seconds", seen.seconds),
        (Metric.TIME_TO_FIRST_TOKEN, "first_token_seconds", seen.first_token_seconds),
    ):
        if times:
            found[field], sure[metric] = rounded(median(times), DIGITS), of_median(times)
    if Metric.PEAK_MEMORY in wanted.metrics:
        found["peak_memory_bytes"] = seen.peak_memory_bytes
    return Measured(_figures(found, sure, made.figures), made.right)


def scored(answers: Sequence[str], expected: Sequence[str], metrics: Collection[Metric], task: str) -> Measured:
    """What is wanted of the words alone, of one answer at least; exact match in any case."""
    pairs = list(zip(answers, expected, strict=True))
    exact, close = ([equal(answer, wanted) for answer, wanted in pairs] for equal in (same, alike))
    found: dict[str, float | int | None] = {
        "samples": len(pairs),
        "exact_match": rounded(sum(exact) / len(exact), DIGITS),
    }
    sure: dict[str, Interval | None] = {Metric.EXACT_MATCH: wilson(sum(exact), len(exact))}
    if Metric.ACCURACY in metrics:
        found["accuracy"], sure[Metric.ACCURACY] = (
            rounded(sum(close) / len(close), DIGITS),
            wilson(sum(close), len(close)),
        )
    for metric, measure in MEASURES.items():
        if metric in metrics:
            field = metric.lower()
            found[field], sure[metric] = _estimate(measure(answers, expected, task), len(pairs), of_share)
    return Measured(_figures(found, sure), tuple(close if Metric.ACCURACY in metrics else exact))


def _estimate(
    statistic: Statistic, records: int, interval: Callable[[int, Statistic], Interval | None]
) -> tuple[float, Interval | None]:
    return rounded(statistic(np.ones(records)), DIGITS), interval(records, statistic)


def _figures(
    found: dict[str, float | int | None], sure: dict[str, Interval | None], more: Figures | None = None
) -> Figures:
    intervals = {str(metric): interval for metric, interval in sure.items() if interval is not None}
    told = more or Figures()
    return Figures.model_validate(told.model_dump() | found | {"intervals": told.intervals | intervals})
