"""One forward pass's worth of records."""

from dataclasses import dataclass, replace
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
    paired: bool = False
    """Whether the second half of the rows are the worse answers to what the first half answers better, in the same
    order."""

    @classmethod
    def of(cls, tokens: Tensor, mask: Tensor, labels: Tensor, positions: Tensor | None = None) -> "Batch":
        """A batch, its answers counted."""
        return cls(tokens, mask, labels, positions, int((labels[:, 1:] != IGNORED).sum()))

    def to(self, device: torch.device) -> "Batch":
        """On another device."""
        positions = None if self.positions is None else self.positions.to(device)
        moved = (self.tokens.to(device), self.mask.to(device), self.labels.to(device))
        return Batch(*moved, positions, self.answered, self.paired)

    def part(self, number: int, of: int) -> "Batch":
        """One of ``of`` parts: every ``of``-th row, or every ``of``-th pair of rows with both of its answers. A part for
        which there is none is the first one, without its answers."""
        count = len(self.tokens) // 2 if self.paired else len(self.tokens)
        mine = list(range(number, count, of)) or [0]
        rows = mine + [count + row for row in mine] if self.paired else mine
        positions = None if self.positions is None else self.positions[rows]
        labels = self.labels[rows] if number < count else torch.full_like(self.labels[rows], IGNORED)
        made = Batch.of(self.tokens[rows], self.mask[rows], labels, positions)
        return replace(made, answered=len(mine) if number < count else 0, paired=True) if self.paired else made

    def inputs(self) -> dict[str, Any]:
        """Arguments of the model. No mask: padding follows a record, where a causal model does not look, and with a mask
        PyTorch would choose slower kernels. Packed rows have places; their padding is a record of its own."""
        places = {} if self.positions is None else {"position_ids": self.positions}
        return {"input_ids": self.tokens, "use_cache": False} | places
