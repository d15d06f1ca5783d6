"""How many steps a training has, and how large each may be."""

import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_trainer.schedule import COOLDOWN, measure_every, rate, total_steps
from slmops.contract import Hyperparameters

SCHEDULERS = get_args(Hyperparameters.model_fields["scheduler"].annotation)


@pytest.mark.parametrize(
    ("per_epoch", "fields", "steps"),
    [
        (8, {"epochs": 3}, 24), (1, {"epochs": 1}, 1), (2, {"epochs": 3}, 6), (8, {"epochs": 3, "max_steps": 5}, 5),
        (1, {"epochs": 1, "max_steps": 500}, 1),
    ],
)  # fmt: skip
def test_the_number_of_steps(per_epoch: int, fields: dict[str, int], steps: int) -> None:
    assert total_steps(per_epoch, Hyperparameters.model_validate(fields)) == steps


def test_held_out_records_are_measured_once_an_epoch_unless_told_otherwise() -> None:
    assert measure_every(12, Hyperparameters()) == 12
    assert measure_every(12, Hyperparameters(evaluate_every=5)) == 5


@given(st.integers(1, 500), st.floats(0, 1), st.sampled_from(SCHEDULERS))
def test_the_learning_rate_rises_once_and_never_leaves_its_bounds(steps: int, warmup: float, scheduler: Any) -> None:
    plan = Hyperparameters(warmup_ratio=warmup, scheduler=scheduler)
    rates = [rate(step, steps, plan) for step in range(steps)]
    assert all(0 <= value <= 1 for value in rates)
    peak = math.ceil(steps * warmup)
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[0] > 0, "no step is made for nothing"
    if peak < steps:
        assert rates[peak] == 1
        assert scheduler != "Constant" or set(rates[peak:]) == {1.0}
        bound = 0.25 if scheduler == "WarmupStableDecay" else 0.02  # a root falls late
        assert scheduler == "Constant" or steps - peak < 100 or rates[-1] < bound


def test_warmup_stable_decay_holds_the_rate_until_its_last_part() -> None:
    plan = Hyperparameters(warmup_ratio=0.0, scheduler="WarmupStableDecay")
    rates = [rate(step, 1000, plan) for step in range(1000)]
    held = round(1000 * (1 - COOLDOWN))
    assert set(rates[: held + 1]) == {1.0}
    assert rates[held + 50] == pytest.approx(1 - math.sqrt(50 / (1000 - held)))
    assert rates[-1] < 0.01
