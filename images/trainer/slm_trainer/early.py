"""When a training has nothing more to learn, and when it learns by heart. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from slmops.contract import CurvePoint, EarlyStopping

RISE = 0.05
"""Share by which the loss on held-out records rises above its lowest before that is called overfitting; less is noise."""
LEAST = 0.01
"""And nats: the loss of what is known by heart is near zero, and any change of it is a large share."""


@dataclass
class Best:
    """The best measurement so far. ``wanted`` None: it is watched, and nothing is ended."""

    wanted: EarlyStopping | None = None
    step: int = 0
    loss: float = math.inf
    misses: int = 0
    """Measurements since then."""

    def see(self, step: int, loss: float) -> bool:
        """Take in a measurement. True: it is the best one, its weights are to be kept."""
        if loss < self.loss - (self.wanted.min_delta if self.wanted and math.isfinite(self.loss) else 0.0):
            self.step, self.loss, self.misses = step, loss, 0
            return True
        self.misses += 1
        return False

    @property
    def over(self) -> bool:
        """Whether the training is to end."""
        return self.wanted is not None and self.misses >= self.wanted.patience


def overfitted(points: Sequence[CurvePoint]) -> bool:
    """Whether the loss on held-out records ended above its lowest while the training loss went on falling."""
    both = [(p.eval_loss, p.train_loss) for p in points if p.eval_loss is not None and p.train_loss is not None]
    if len(both) < 2:
        return False
    lowest, trained_then = min(both, key=lambda pair: pair[0])
    last, trained_last = both[-1]
    return last > lowest + max(RISE * lowest, LEAST) and trained_last < trained_then


def thinned(points: Sequence[CurvePoint], keep: set[int], limit: int = 16) -> tuple[CurvePoint, ...]:
    """At most ``limit`` points, evenly spread; the first, the last and those at the steps ``keep`` are among them."""
    if len(points) <= limit:
        return tuple(points)
    chosen = {0, len(points) - 1} | {i for i, p in enumerate(points) if p.step in keep}
    spare = limit - len(chosen)
    others = [i for i in range(len(points)) if i not in chosen]
    chosen |= {others[(2 * n + 1) * len(others) // (2 * spare)] for n in range(spare)} if spare > 0 else set()
    return tuple(points[i] for i in sorted(chosen))
