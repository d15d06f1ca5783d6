"""The words: cross entropy of an answer's tokens."""

import torch.nn.functional as F  # noqa: N812  (PyTorch's own name for it)
from torch import Tensor

IGNORED = -100


def answer_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of the answer's tokens.

    ``logits``: (batch, length, vocabulary); ``labels``: (batch, length), ``IGNORED`` where the token is not part of the
    answer. Position t predicts token t + 1. Returns the mean over the answer's tokens, in nats.
    """
    return F.cross_entropy(
        logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="mean"
    )
