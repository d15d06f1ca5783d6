"""A better and a worse answer to the same prompt."""

import torch.nn.functional as F  # noqa: N812  (PyTorch's own name for it)
from torch import Tensor

from slm_trainer.losses.labels import IGNORED


def log_likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """Of each row's answer given its prompt, in nats: (batch,), the sum over the answer's tokens.

    ``logits``: (batch, length, vocabulary); ``labels``: (batch, length), ``IGNORED`` where the token is not part of the
    answer. Position t predicts token t + 1.
    """
    aims = labels[:, 1:]
    nats = F.cross_entropy(logits[:, :-1].float().transpose(1, 2), aims, ignore_index=IGNORED, reduction="none")
    return -nats.sum(dim=1)


def contrastive_loss(logits: Tensor, labels: Tensor, *, margin: float) -> Tensor:
    """max(0, ``margin`` - log p(better) + log p(worse)) - log p(better), the mean over the pairs, in nats.

    Zhao et al. 2023, "SLiC-HF: Sequence Likelihood Calibration with Human Feedback", arXiv 2305.10425, equation 1, with
    the better answer as the reference and weight 1 of its likelihood. The first half of the rows are the better answers,
    the second half the worse ones, in the same order; shapes as in ``log_likelihood``.
    """
    better, worse = log_likelihood(logits, labels).chunk(2)
    return ((margin - better + worse).clamp_min(0) - better).mean()
