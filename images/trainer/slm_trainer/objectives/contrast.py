"""Contrast: batches hold pairs of answers, and the better one is to be likelier."""

from typing import Any

from torch import Tensor

from slm_trainer.losses import contrastive_loss
from slm_trainer.objectives.base import Objective
from slmops.contract import Contrast


def by_contrast(wanted: Contrast) -> Objective:
    """The objective over batches of ``pairs.Pairs``."""

    def loss(output: Any, tokens: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        return contrastive_loss(output.logits, labels, margin=wanted.margin)

    return Objective(loss)
