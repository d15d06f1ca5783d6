"""What is minimized. Pure functions of tensors; every formula with its source."""

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


def distillation_loss(
    logits: Tensor, labels: Tensor, teacher_logits: Tensor, *, temperature: float, alpha: float, top_k: int
) -> Tensor:
    """``alpha`` T² KL(teacher ‖ student) + (1 - ``alpha``) cross entropy, after Hinton, Vinyals and Dean (2015),
    "Distilling the Knowledge in a Neural Network", arXiv 1503.02531, section 2.

    The teacher's distribution is cut to its ``top_k`` tokens of each position and normalized again; T² keeps the size of
    the gradients independent of the temperature. Shapes as in ``answer_loss``; ``teacher_logits`` as ``logits``.
    """
    wanted = labels[:, 1:] != IGNORED
    student = logits[:, :-1][wanted].float() / temperature
    teacher = teacher_logits[:, :-1][wanted].float() / temperature
    best, index = teacher.topk(min(top_k, teacher.shape[-1]), dim=-1)
    target = best.softmax(dim=-1)
    predicted = student.log_softmax(dim=-1).gather(-1, index)
    divergence = (target * (target.log() - predicted)).sum(-1).mean()
    return alpha * temperature**2 * divergence + (1 - alpha) * answer_loss(logits, labels)
