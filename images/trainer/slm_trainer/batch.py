"""One forward pass's worth of records."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from slm_trainer.losses import IGNORED


@dataclass(frozen=True)
class Batch:
    """Some records as tensors of shape (batch, length)."""

    tokens: Tensor
    mask: Tensor
    """1 where there is a token, 0 where there is padding."""
    labels: Tensor
    """``IGNORED`` where the token is not part of an answer."""
    positions: Tensor | None = None
    """Where several records share a row: the place of each token in its own record. A model tells records apart by it."""
    answered: int = 0
    """What the loss is a mean over: tokens of answers, or pairs of answers."""

    @classmethod
    def of(cls, tokens: Tensor, mask: Tensor, labels: Tensor, positions: Tensor | None = None) -> "Batch":
        """A batch, its answers counted."""
        return cls(tokens, mask, labels, positions, int((labels[:, 1:] != IGNORED).sum()))

    def to(self, device: torch.device) -> "Batch":
        """On another device."""
        positions = None if self.positions is None else self.positions.to(device)
        return Batch(self.tokens.to(device), self.mask.to(device), self.labels.to(device), positions, self.answered)

    def inputs(self) -> dict[str, Any]:
        """Arguments of the model. No mask: padding follows a record, where a causal model does not look, and with a mask
        PyTorch would choose slower kernels. Packed rows have places; their padding is a record of its own."""
        places = {} if self.positions is None else {"position_ids": self.positions}
        return {"input_ids": self.tokens, "use_cache": False} | places
