"""How fast a training is and how its loss moves: what is shown of it while it runs."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

OLD = 0.95
"""Share of the smoothed loss that stays from one step to the next."""


class Pace:
    """Counts tokens and time of this process; the smoothed loss goes on from one attempt to the next."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.loss: float | None = None
        """Smoothed."""
        self._clock, self._begun, self._tokens, self._paused = clock, clock(), 0, 0.0

    def step(self, loss: float, tokens: int) -> None:
        """A step was made, over so many tokens."""
        self.loss = loss if self.loss is None else OLD * self.loss + (1 - OLD) * loss
        self._tokens += tokens

    @property
    def speed(self) -> float:
        """Tokens in a second."""
        return self._tokens / max(self._clock() - self._begun - self._paused, 1e-9)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Around what is no training."""
        since = self._clock()
        yield
        self._paused += self._clock() - since

    def state_dict(self) -> dict[str, Any]:
        """What the next attempt goes on with."""
        return {"loss": self.loss}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with it."""
        self.loss = state["loss"]
