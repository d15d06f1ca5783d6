"""Batches in groups: every record once an epoch, every token of an answer with the same weight."""

from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from slm_trainer.batch import Batch
from slm_trainer.feed import Feed, groups, weight
from slm_trainer.losses import IGNORED
from slm_trainer.tokens import Record
from slmops.contract import Hyperparameters


def feed(count: int, **fields: Any) -> Feed:
    records = [Record([n % 9 + 1] * (2 + n % 5), 1) for n in range(count)]
    return Feed(records, Hyperparameters.model_validate(fields), 0)


@pytest.mark.parametrize(
    ("records", "batch", "accumulation", "steps"),
    [(64, 8, 1, 8), (65, 8, 1, 9), (1, 8, 1, 1), (64, 8, 4, 2), (8, 8, 64, 1), (20, 8, 2, 2)],
)
def test_an_epoch_has_the_groups_that_it_promises_and_every_record_once(
    records: int, batch: int, accumulation: int, steps: int
) -> None:
    found = feed(records, batch_size=batch, gradient_accumulation=accumulation)
    made = list(found.epoch(0))
    assert len(made) == found.per_epoch == steps
    assert sum(len(b.tokens) for group in made for b in group) == records
    assert all(len(group) == accumulation for group in made[:-1])
    assert 1 <= len(made[-1]) <= accumulation


def test_what_is_left_of_an_epoch_is_a_step_of_its_own() -> None:
    found = feed(24, batch_size=8, gradient_accumulation=2)
    endless = found.endless()
    assert [len(next(endless)) for _ in range(4)] == [2, 1, 2, 1]


def test_the_weights_of_a_group_make_the_mean_over_its_tokens() -> None:
    labels = [torch.tensor([[IGNORED, 1, 2, 3]]), torch.tensor([[IGNORED, 1, IGNORED, IGNORED]])]
    group = [Batch.of(torch.ones(1, 4, dtype=torch.long), torch.ones(1, 4), label) for label in labels]
    assert [batch.answered for batch in group] == [3, 1]
    assert [weight(batch, group) for batch in group] == [0.75, 0.25]
    assert weight(group[0], group[:1]) == 1.0


def test_a_group_without_an_answer_weighs_nothing() -> None:
    nothing = Batch.of(torch.ones(1, 2, dtype=torch.long), torch.ones(1, 2), torch.full((1, 2), IGNORED))
    assert weight(nothing, [nothing]) == 0.0


def test_groups_of_nothing_are_none() -> None:
    assert list(groups([], 3)) == []
