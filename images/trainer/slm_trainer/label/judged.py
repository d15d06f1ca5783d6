"""How good the teacher is, by held-out records that have an answer of their own."""

import heapq
import random

from slmkit.data import Example
from slmkit.metrics import scored
from slmops.contract import ANSWERS, Figures, LabelRun, Metric, Task

METRICS: dict[Task, tuple[Metric, ...]] = {
    "Generation": (Metric.ACCURACY,),
    "Classification": (Metric.ACCURACY, Metric.F1),
    "Summarization": (Metric.F1, Metric.BLEU, Metric.ROUGE),
}
"""Whatever the training is measured by: another wish there asks no teacher again."""
MOST = 10_000
"""Records that are looked at: an interval is half a percent wide then, and memory bounded."""


class Judged:
    """Answers beside those of the records; of more than ``MOST`` a sample, the same one for the same seed."""

    def __init__(self, run: LabelRun) -> None:
        self._task: Task = ANSWERS.get(run.task or "", "Generation")
        self._rng = random.Random(run.seed)  # noqa: S311  (a sample, not a secret)
        self._seen = 0
        self._chosen: list[tuple[float, int, str, str]] = []

    def add(self, example: Example, said: str) -> None:
        """Look at an answer, if there is anything to compare it with."""
        if example.completion is None:
            return
        self._seen += 1
        item = (self._rng.random(), self._seen, said, example.completion)
        keep = heapq.heappush if len(self._chosen) < MOST else heapq.heappushpop
        keep(self._chosen, item)

    def figures(self) -> Figures:
        """No time: what an answer takes over the network, among others, compares with nothing measured elsewhere."""
        if not self._chosen:
            return Figures()
        pairs = sorted(self._chosen, key=lambda item: item[1])
        said, wanted = ([pair[index] for pair in pairs] for index in (2, 3))
        return scored(said, wanted, METRICS[self._task], self._task).figures
