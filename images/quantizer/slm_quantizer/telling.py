"""How far Olive's training is: it runs transformers' Trainer, which tells callbacks.

Olive logs what is raised in a training and goes on as if it had ended well, so nothing is raised through it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import TrainerCallback, trainer

from slm_trainer.early import thinned
from slmkit.run import Context, RunFailed
from slmops.contract import CurvePoint


class Telling(TrainerCallback):
    """Passes step and loss on, and ends the training where the pod is to stop."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._points: list[CurvePoint] = []
        self.steps = 0
        self.failed: RunFailed | None = None
        """Why the training was ended."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """A loss, after each step."""
        if logs and "loss" in logs:
            try:
                self._context.step(state.global_step, loss=logs["loss"])
            except RunFailed as failed:
                self.failed = failed
                control.should_training_stop = True
            self._points.append(CurvePoint(step=state.global_step, train_loss=max(0.0, logs["loss"])))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A step is done."""
        self.steps = state.global_step
        if self._context.stopping.is_set():
            control.should_training_stop = True

    def check(self) -> None:
        """Raise what the training was ended for, or RunFailed when the pod is being taken away."""
        if self.failed is not None:
            raise self.failed
        self._context.check()

    def curve(self) -> tuple[CurvePoint, ...]:
        """The training loss, thinned out."""
        return thinned(self._points, set())


@contextmanager
def told(telling: Telling) -> Iterator[None]:
    """Every Trainer that is made meanwhile tells."""
    trainer.DEFAULT_CALLBACKS.append(telling)
    try:
        yield
    finally:
        trainer.DEFAULT_CALLBACKS.remove(telling)
