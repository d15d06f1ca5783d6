"""One model's figures, and what they have in common with another's."""

from dataclasses import dataclass

import numpy as np

from slmops.contract import Figures, Metric

COMPARED = (Metric.EXACT_MATCH, Metric.ACCURACY, Metric.INFERENCE_TIME)
"""Intervals that a comparison is made from. A reference's others are not told: a report has 4096 bytes."""


@dataclass(frozen=True)
class Measured:
    """The figures, and which answers were right."""

    figures: Figures
    right: tuple[bool, ...]
    """For each record, by Accuracy where that is measured, else by exact match."""


def compared(model: Measured, reference: Measured) -> Figures:
    """The reference's figures, with how its right answers go with the model's."""
    intervals = {name: pair for name, pair in reference.figures.intervals.items() if name in COMPARED}
    update = {"intervals": intervals, "correlation": phi(model.right, reference.right)}
    return reference.figures.model_copy(update=update)


def phi(ours: tuple[bool, ...], theirs: tuple[bool, ...]) -> float | None:
    """Phi coefficient of two yes-or-no series over the same records. None where one of them is always the same, so that
    nothing can be told, or where the records are not the same."""
    if len(ours) != len(theirs) or len(set(ours)) < 2 or len(set(theirs)) < 2:
        return None
    return round(float(np.clip(np.corrcoef(ours, theirs)[0, 1], -1, 1)), 3)
