"""Losses against their formulas, written out one number at a time."""

import math
from typing import Any

import pytest

pytest.importorskip("torch")

import numpy as np
import torch

from slm_trainer.losses import IGNORED, answer_loss, attention_loss, distillation_loss, hint_loss, likeliest

BATCH, LENGTH, WORDS = 3, 6, 7


def numbers(seed: int, *shape: int) -> "torch.Tensor":
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def some_labels() -> "torch.Tensor":
    """The first tokens are prompt, the last ones of a short record are padding."""
    labels = torch.randint(0, WORDS, (BATCH, LENGTH), generator=torch.Generator().manual_seed(5))
    labels[:, :2] = IGNORED
    labels[1, 4:] = IGNORED
    return labels


def log_softmax(row: list[float]) -> list[float]:
    top = max(row)
    whole = math.log(sum(math.exp(value - top) for value in row)) + top
    return [value - whole for value in row]


def places(labels: "torch.Tensor") -> list[tuple[int, int, int]]:
    """(record, position that predicts, right token) of every token of an answer."""
    return [
        (b, t - 1, int(labels[b, t])) for b in range(len(labels)) for t in range(1, LENGTH) if labels[b, t] != IGNORED
    ]


def written_out_answer_loss(logits: "torch.Tensor", labels: "torch.Tensor") -> float:
    terms = [-log_softmax(logits[b, t].tolist())[right] for b, t, right in places(labels)]
    return sum(terms) / len(terms)


def written_out_divergence(
    logits: "torch.Tensor", teacher: "torch.Tensor", labels: "torch.Tensor", heat: float, top: int
) -> float:
    terms = []
    for b, t, _ in places(labels):
        student = log_softmax([value / heat for value in logits[b, t].tolist()])
        hints = [value / heat for value in teacher[b, t].tolist()]
        best = sorted(range(WORDS), key=lambda word: -hints[word])[:top]
        target = log_softmax([hints[word] for word in best])
        terms.append(sum(math.exp(p) * (p - student[word]) for p, word in zip(target, best, strict=True)))
    return sum(terms) / len(terms)


def test_the_loss_of_an_answer_is_its_formula() -> None:
    logits, labels = numbers(1, BATCH, LENGTH, WORDS), some_labels()
    assert float(answer_loss(logits, labels)) == pytest.approx(written_out_answer_loss(logits, labels), rel=1e-5)


def test_the_prompt_is_not_learned() -> None:
    logits, labels = numbers(1, BATCH, LENGTH, WORDS), some_labels()
    before = answer_loss(logits, labels)
    logits[:, 0] += 100 * numbers(2, BATCH, WORDS)  # predicts the second token of the prompt
    logits[:, -1] += 100 * numbers(3, BATCH, WORDS)  # predicts what comes after the end
    logits[1, 3:] += 100  # predicts padding
    assert answer_loss(logits, labels) == before
    logits[:, 1, 0] += 1  # predicts the answer's first token
    assert answer_loss(logits, labels) != before


def test_a_model_that_knows_the_answer_loses_nothing_one_that_knows_nothing_loses_its_choice() -> None:
    labels = some_labels()
    right = torch.zeros(BATCH, LENGTH, WORDS)
    for b, t, token in places(labels):
        right[b, t, token] = 50
    assert float(answer_loss(right, labels)) == pytest.approx(0, abs=1e-6)
    assert float(answer_loss(torch.zeros(BATCH, LENGTH, WORDS), labels)) == pytest.approx(math.log(WORDS), rel=1e-5)


def taught(
    logits: "torch.Tensor", labels: "torch.Tensor", teacher: "torch.Tensor", heat: float, alpha: float, top: int
) -> "torch.Tensor":
    """The loss of distillation from a teacher's logits."""
    best, index = likeliest(teacher, labels, top, WORDS)
    return distillation_loss(logits, labels, best, index, temperature=heat, alpha=alpha)


@pytest.mark.parametrize("heat", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("top", [1, 3, WORDS, 100])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_loss_of_distillation_is_its_formula(heat: float, top: int, alpha: float) -> None:
    logits, teacher, labels = numbers(1, BATCH, LENGTH, WORDS), 3 * numbers(2, BATCH, LENGTH, WORDS), some_labels()
    found = taught(logits, labels, teacher, heat, alpha, top)
    divergence = written_out_divergence(logits, teacher, labels, heat, top)
    wanted = alpha * heat**2 * divergence + (1 - alpha) * written_out_answer_loss(logits, labels)
    assert float(found) == pytest.approx(wanted, rel=1e-4)


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_it() -> None:
    logits, labels = numbers(1, BATCH, LENGTH, WORDS), some_labels()
    same = taught(logits, labels, logits.clone(), 2.0, 1.0, WORDS)
    assert float(same) == pytest.approx(0, abs=1e-6)
    other = taught(logits, labels, numbers(9, BATCH, LENGTH, WORDS), 2.0, 1.0, WORDS)
    assert float(other) > 0.01


def test_temperature_does_not_change_the_size_of_the_gradients() -> None:
    teacher, labels = numbers(2, BATCH, LENGTH, WORDS), some_labels()

    def size(heat: float) -> float:
        logits = numbers(1, BATCH, LENGTH, WORDS).requires_grad_()
        taught(logits, labels, teacher, heat, 1.0, WORDS).backward()
        assert logits.grad is not None
        return float(logits.grad.norm())

    assert size(20.0) == pytest.approx(size(40.0), rel=0.05)
    assert size(20.0) == pytest.approx(size(1.0), rel=0.5)


def test_half_precision_is_left_before_anything_is_summed() -> None:
    logits, labels = numbers(1, BATCH, LENGTH, WORDS).bfloat16(), some_labels()
    for loss in (
        answer_loss(logits, labels),
        taught(logits, labels, logits.clone(), 2.0, 0.5, 3),
    ):
        assert loss.dtype == torch.float32


def test_the_prompt_teaches_nothing() -> None:
    logits = numbers(1, BATCH, LENGTH, WORDS).requires_grad_()
    taught(logits, some_labels(), numbers(2, BATCH, LENGTH, WORDS), 2.0, 0.5, 3).backward()
    assert logits.grad is not None
    assert float(logits.grad[:, 0].abs().sum()) == 0


def test_a_padded_vocabulary_is_never_the_likeliest() -> None:
    teacher, labels = numbers(2, BATCH, LENGTH, WORDS), some_labels()
    padded = torch.cat([teacher, torch.full((BATCH, LENGTH, 3), 1000.0)], dim=-1)
    for wide, narrow in zip(likeliest(padded, labels, 4, WORDS), likeliest(teacher, labels, 4, WORDS), strict=True):
        assert torch.equal(wide, narrow)


# --- features ------------------------------------------------------------------------------------------------------

MASK = torch.ones(BATCH, LENGTH, dtype=torch.long)
MASK[1, 4:] = 0


def test_a_hint_is_half_the_squared_distance_of_real_tokens() -> None:
    ours, theirs = numbers(1, BATCH, LENGTH, 5), numbers(2, BATCH, LENGTH, 5)
    real = MASK.numpy() == 1
    wanted = 0.5 * np.mean((theirs.numpy() - ours.numpy())[real] ** 2)
    assert float(hint_loss(ours, theirs, MASK)) == pytest.approx(float(wanted), rel=1e-6)
    ours[1, 5] += 100
    assert float(hint_loss(ours, theirs, MASK)) == pytest.approx(float(wanted), rel=1e-6), "padding is no token"


def written_out_map(attention: "np.ndarray[Any, Any]", length: int) -> "np.ndarray[Any, Any]":
    """One record's map: loops over heads, queries and keys."""
    seen = np.zeros((LENGTH, LENGTH))
    for head in attention:
        for query in range(length):
            for key in range(length):
                seen[query, key] += head[query, key] ** 2
    return seen / math.sqrt(sum(value**2 for value in seen.flatten()))


def test_attention_is_compared_by_its_map_whatever_the_heads() -> None:
    ours = numbers(1, BATCH, 2, LENGTH, LENGTH).softmax(-1)
    theirs = numbers(2, BATCH, 4, LENGTH, LENGTH).softmax(-1)
    terms = []
    for record in range(BATCH):
        length = int(MASK[record].sum())
        apart = written_out_map(ours[record].numpy(), length) - written_out_map(theirs[record].numpy(), length)
        terms.append((apart**2).sum())
    assert float(attention_loss(ours, theirs, MASK)) == pytest.approx(float(np.mean(terms)), rel=1e-5)


def test_who_looks_where_the_teacher_looks_has_nothing_to_learn_even_with_more_heads() -> None:
    theirs = numbers(2, BATCH, 4, LENGTH, LENGTH).softmax(-1)
    assert float(attention_loss(theirs.clone(), theirs, MASK)) == pytest.approx(0, abs=1e-6)
    assert float(attention_loss(theirs.repeat(1, 2, 1, 1), theirs, MASK)) == pytest.approx(0, abs=1e-6)
    assert 0 < float(attention_loss(numbers(3, BATCH, 4, LENGTH, LENGTH).softmax(-1), theirs, MASK)) <= 2


def test_a_record_of_one_token_looks_nowhere_else_and_costs_nothing() -> None:
    mask = torch.zeros(1, LENGTH, dtype=torch.long)
    mask[0, 0] = 1
    ours = torch.zeros(1, 1, LENGTH, LENGTH)
    ours[0, 0, 0, 0] = 1
    ours.requires_grad_()
    loss = attention_loss(ours, ours.detach().clone(), mask)
    loss.backward()
    assert float(loss) == 0
    assert ours.grad is not None
    assert bool(ours.grad.isfinite().all())
