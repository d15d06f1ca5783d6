"""When a training has nothing more to learn, and when it learns by heart."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_trainer.early import Best, overfitted, thinned
from slmops.contract import CurvePoint, EarlyStopping


def stopped_at(losses: list[float], **wanted: float) -> tuple[int | None, int]:
    """(index of the measurement after which training ends, step of the best one)."""
    best = Best(EarlyStopping.model_validate(wanted))
    for index, loss in enumerate(losses):
        best.see(index, loss)
        if best.over:
            return index, best.step
    return None, best.step


def test_training_ends_after_so_many_measurements_without_an_improvement() -> None:
    assert stopped_at([1.0, 0.5, 0.6, 0.7, 0.8], patience=2) == (3, 1)
    assert stopped_at([1.0, 0.5, 0.6, 0.4, 0.5, 0.5], patience=2) == (5, 3), "an improvement begins the count anew"
    assert stopped_at([1.0, 0.9, 0.8], patience=1) == (None, 2)
    assert stopped_at([1.0, 1.0], patience=1) == (1, 0), "the same again is no improvement"


def test_an_improvement_below_the_least_is_none() -> None:
    assert stopped_at([1.0, 0.95, 0.9], patience=2, min_delta=0.2) == (2, 0)
    assert stopped_at([1.0, 0.75, 0.5], patience=2, min_delta=0.2) == (None, 2)


def test_a_loss_that_is_no_number_is_never_the_best() -> None:
    best = Best(EarlyStopping(patience=2))
    assert [best.see(step, loss) for step, loss in enumerate([float("nan"), 2.0, float("nan")])] == [False, True, False]
    assert best.loss == 2.0


def test_without_early_stopping_the_best_is_known_and_nothing_ends() -> None:
    best = Best()
    for step, loss in enumerate([1.0, 0.5, *[0.9] * 50]):
        best.see(step, loss)
    assert (best.step, best.loss, best.over) == (1, 0.5, False)


def curve(*pairs: tuple[float | None, float | None]) -> list[CurvePoint]:
    """Points of (training loss, loss on held-out records)."""
    return [CurvePoint(step=10 * n, train_loss=train, eval_loss=held) for n, (train, held) in enumerate(pairs, 1)]


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        (((1.0, 1.0), (0.5, 0.8), (0.1, 1.2)), True),
        (((1.0, 1.0), (0.5, 0.8), (0.1, 0.7)), False),  # still falls
        (((1.0, 1.0), (0.5, 0.8), (0.6, 1.2)), False),  # both rise: that is another trouble
        (((1.0, 1.0), (0.5, 0.8), (0.1, 0.83)), False),  # noise
        (((0.01, 0.001), (0.005, 0.002)), False),  # a large share of nearly nothing
        (((0.5, 0.5),), False), ((), False), (((None, 0.5), (0.1, 0.9)), False),
    ],
)  # fmt: skip
def test_overfitting_is_a_loss_that_rises_on_held_out_records_alone(points: tuple[tuple[float, float], ...],
                                                                    expected: bool) -> None:  # fmt: skip
    assert overfitted(curve(*points)) is expected


@given(st.integers(0, 300), st.data())
def test_a_thinned_curve_keeps_its_ends_and_what_is_asked_for(length: int, data: st.DataObject) -> None:
    points = [CurvePoint(step=n) for n in range(length)]
    best = data.draw(st.integers(0, max(0, length - 1)))
    found = thinned(points, {best})
    steps = [point.step for point in found]
    assert len(steps) == min(length, 16)
    assert steps == sorted(set(steps))
    assert length == 0 or {0, best, length - 1} <= set(steps)
    if length > 16:
        assert max(b - a for a, b in pairwise(steps)) <= 2 * length / 13 + 2, "evenly spread"
