"""Logits: the student learns the teacher's next-token distributions beside the words."""

from typing import Any

from torch import Tensor

from slm_trainer.losses import distillation_loss
from slm_trainer.objectives.base import Objective
from slm_trainer.objectives.hints import Hints
from slmops import contract


def by_logits(hints: Hints, wanted: contract.Objective) -> Objective:
    """The objective over hints that were filled."""

    def loss(output: Any, tokens: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        best, index = hints.of(tokens, mask, labels)
        return distillation_loss(output.logits, labels, best, index, temperature=wanted.temperature, alpha=wanted.alpha)

    return Objective(loss)
