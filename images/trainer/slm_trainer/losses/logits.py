"""The teacher's next-token distributions, after Hinton, Vinyals and Dean (2015), "Distilling the Knowledge in a Neural
Network", arXiv 1503.02531, section 2.

Only the teacher's likeliest tokens of a position are looked at, normalized again: they hold nearly all of the
probability, and a few of them fit on a disk where a whole vocabulary does not.
"""

from torch import Tensor

from slm_trainer.losses.labels import IGNORED, answer_loss


def likeliest(logits: Tensor, labels: Tensor, k: int, vocabulary: int) -> tuple[Tensor, Tensor]:
    """The teacher's ``k`` likeliest tokens at each position that predicts a token of the answer.

    ``logits``: (batch, length, at least ``vocabulary``), of which what is beyond the vocabulary is padding and never
    taken; ``labels``: (batch, length). Returns (logits less the position's largest, token ids), both (positions, k),
    positions in the order of rows and then of time.
    """
    wanted = labels[:, 1:] != IGNORED
    found = logits[:, :-1][wanted][:, :vocabulary].float()
    best, index = found.topk(min(k, vocabulary), dim=-1)
    return best - best[:, :1], index


def divergence(student: Tensor, best: Tensor, index: Tensor, temperature: float) -> Tensor:
    """KL(teacher ‖ student) at a temperature, the mean over positions, in nats.

    ``student``: (positions, vocabulary) logits; ``best``, ``index``: (positions, k) as of ``likeliest``.
    """
    target = (best.float() / temperature).log_softmax(dim=-1)
    predicted = (student.float() / temperature).log_softmax(dim=-1).gather(-1, index)
    return (target.exp() * (target - predicted)).sum(-1).mean()


def distillation_loss(
    logits: Tensor, labels: Tensor, best: Tensor, index: Tensor, *, temperature: float, alpha: float
) -> Tensor:
    """``alpha`` T² KL(teacher ‖ student) + (1 - ``alpha``) cross entropy. T² keeps the size of the gradients independent
    of the temperature. Shapes as in ``answer_loss`` and ``likeliest``."""
    student = logits[:, :-1][labels[:, 1:] != IGNORED]
    words = answer_loss(logits, labels)
    return alpha * temperature**2 * divergence(student, best, index, temperature) + (1 - alpha) * words
