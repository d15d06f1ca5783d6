"""Held-out records while a model trains: their loss, the best weights, when to stop, and what is said of it in the end."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from slm_trainer.batch import Batch
from slm_trainer.curves import Curves
from slm_trainer.early import Best, overfitted, thinned
from slm_trainer.losses import answer_loss
from slm_trainer.precision import autocast
from slm_trainer.search.referee import Referee
from slm_trainer.tokens import Record, batches
from slmkit.run import RunFailed
from slmops.contract import Hyperparameters, Learning, Reason


class Watch:
    """Measures the model that trains. Without records it only keeps the curves."""

    def __init__(
        self, records: Sequence[Record], wanted: Hyperparameters, pad: int, curves: Curves,
        referee: Referee | None = None,
    ) -> None:  # fmt: skip
        """``referee``: of a trial of a search, which it may end."""
        self._records, self._wanted, self._pad, self._referee = records, wanted, pad, referee
        self.curves = curves
        self.best = Best(wanted.early_stopping)
        self.kept: dict[str, torch.Tensor] = {}
        """The trainable weights of the best measurement, where early stopping wants them."""

    def look(self, model: Any, step: int, steps: int, every: int) -> bool:
        """Measure where it is time to. Returns whether the training is to end. Raises RunFailed when the loss is no number
        any more."""
        if not self._records or (step % every and step != steps):
            return False
        loss = held_out_loss(model, self._records, self._wanted, self._pad)
        if not math.isfinite(loss):
            text = f"the loss on held-out records is {loss} after step {step} of {steps}"
            raise RunFailed(Reason.TRAINING_DIVERGED, text)
        self.curves.add(step, eval_loss=loss)
        if self.best.see(step, loss) and self._wanted.early_stopping:
            self.kept = {name: p.detach().cpu().clone() for name, p in model.named_parameters() if p.requires_grad}
        if self._referee is not None:
            self._referee.ends(self._losses, last=self.best.over or step == steps)
        return self.over

    @property
    def over(self) -> bool:
        """Whether the training is to end, by what was measured so far."""
        return self.best.over or (self._referee is not None and self._referee.pruned)

    @property
    def _losses(self) -> list[float]:
        return [point.eval_loss or 0.0 for point in self.curves.points]

    def state_dict(self) -> dict[str, Any]:
        """What a training that is taken up again goes on with."""
        best = {"step": self.best.step, "loss": self.best.loss, "misses": self.best.misses}
        pruned = self._referee is not None and self._referee.pruned
        return {"best": best, "kept": self.kept, "curves": self.curves.state_dict(), "pruned": pruned}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with it."""
        for name, value in state["best"].items():
            setattr(self.best, name, value)
        self.kept = state["kept"]
        self.curves.load_state_dict(state["curves"])
        if self._referee is not None:  # where no step is left, nobody else would tell it
            self._referee.resume(self._losses, state["pruned"])

    def finish(self, model: Any, steps: int) -> Learning:
        """Put the best weights back, where they were kept. Returns what is reported; the files are still open."""
        points, best = self.curves.points, self.best
        if self.kept:
            weights = dict(model.named_parameters())
            with torch.no_grad():
                for name, value in self.kept.items():
                    weights[name].copy_(value)
        if not points:
            return Learning(steps=steps)
        return Learning(
            steps=steps,
            best_step=best.step,
            best_eval_loss=round(best.loss, 6),
            eval_loss=round(best.loss if self.kept else points[-1].eval_loss or 0.0, 6),
            stopped_early=best.over,
            overfitted=not self.kept and overfitted(points),
            curve=tuple(_short(point) for point in thinned(points, {best.step})),
        )


@torch.no_grad()
def held_out_loss(model: Any, records: Sequence[Record], wanted: Hyperparameters, pad: int) -> float:
    """Cross entropy of the answers, in nats for each of their tokens. The model is left in training mode."""
    device = next(model.parameters()).device
    total, answered = 0.0, 0
    model.eval()
    for made in batches(records, wanted.batch_size, pad, wanted.seed):
        batch = Batch.of(*made).to(device)
        with autocast(wanted.precision, device):
            logits = model(**batch.inputs()).logits
        total += float(answer_loss(logits, batch.labels)) * batch.answered if batch.answered else 0.0
        answered += batch.answered
    model.train()
    return total / max(1, answered)


def _short(point: Any) -> Any:
    return point.model_copy(update={
        name: None if (value := getattr(point, name)) is None else float(f"{value:.5g}")
        for name in ("train_loss", "eval_loss")
    })  # fmt: skip
