"""The stages of a run that are known beforehand, and how far along all of them it is.

Each stage has a weight, the time that it is expected to take beside the others. What is done of a run are the weights of
the stages before the one that runs, and as much of its own as is done of it; a stage that cannot tell counts when it is
over. What is left is reckoned from the time so far, as if the rest went on at that pace.
"""

from collections.abc import Mapping
from typing import NamedTuple

LEAST = 0.02
"""Share of the run that has to be done before its end is reckoned: what came first says little on the pace."""


class Place(NamedTuple):
    """Where a run is on its course."""

    part: int
    """Which stage, counted from 1."""
    parts: int
    share: float
    """How much of all is done."""
    eta_seconds: float | None


class Course:
    """Stages by name, with their weights, in their order."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = dict(weights)
        self._share = 0.0

    def place(self, stage: str, done: float, elapsed: float) -> Place | None:
        """Where a run is that has done a share of a stage, ``elapsed`` seconds after it began. It never goes back: a stage
        may grow once it has begun. None for a stage that is not on the course."""
        if stage not in self._weights:
            return None
        names, total = list(self._weights), sum(self._weights.values())
        part = names.index(stage)
        before = sum(self._weights[name] for name in names[:part])
        self._share = max(self._share, (before + self._weights[stage] * min(max(done, 0.0), 1.0)) / total)
        share = self._share
        return Place(part + 1, len(names), share, elapsed / share * (1 - share) if share >= LEAST else None)
