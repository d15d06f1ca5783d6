"""An objective as the training loop sees it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from slm_trainer.losses import answer_loss

Loss = Callable[[Any, Tensor, Tensor, Tensor], Tensor]
"""(the model's output, tokens, mask, labels) -> loss"""


def by_labels(output: Any, tokens: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
    """The answer's words alone."""
    return answer_loss(output.logits, labels)


@dataclass(frozen=True)
class Objective:
    """What one batch costs."""

    loss: Loss = by_labels
    options: Mapping[str, bool] = field(default_factory=dict)
    """What the model is asked to show besides its logits, for example ``output_hidden_states``."""
    extra: nn.Module = field(default_factory=nn.Module)
    """Weights that are trained beside the model, and not published with it."""
