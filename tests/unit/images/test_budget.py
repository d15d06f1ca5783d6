"""The estimate from a measured warm-up: early enough to spare the long part, and not before the pace is known."""

from pathlib import Path

import pytest

from slmkit.budget import Guard
from slmkit.run import Context, RunFailed
from slmops.contract import Budget, Reason


def judged(budget: Budget, pace: float, of: int, *, first: int = 5, begun: float = 100.0) -> tuple[int, str]:
    """The step at which a run with a steady pace is stopped, and what it is told; the last one and nothing else."""
    guard = Guard(budget)
    for number in range(first, of + 1, 5):
        said = guard.step("Training", number, of, begun + pace * number)
        if said:
            return number, said
    return of, ""


def test_a_run_that_would_pass_the_bound_ends_after_its_warm_up() -> None:
    at, said = judged(Budget(gpus=2, gpu_hours=1.0), pace=36.0, of=1000)
    assert at == 55, "a twentieth of the steps, after the first report"
    assert "about 20.1 GPU hours are needed, 1 are left of the budget" in said
    assert "36 s a step, and 945 steps are left" in said


def test_a_run_that_fits_goes_on_to_its_end() -> None:
    assert judged(Budget(gpus=2, gpu_hours=21.0), pace=36.0, of=1000) == (1000, "")


def test_money_is_counted_by_the_hour_of_the_whole_run() -> None:
    assert judged(Budget(hourly=10.0, cost=100.5, currency="EUR"), pace=36.0, of=1000)[1] == ""
    said = judged(Budget(hourly=10.0, cost=99.0, currency="EUR"), pace=36.0, of=1000)[1]
    assert "about 100 EUR are needed, 99 EUR are left of the budget" in said


def test_what_comes_before_the_first_report_says_nothing_about_the_pace() -> None:
    guard = Guard(Budget(gpus=1, gpu_hours=1.0))
    assert guard.step("Training", 5, 100, 1800.0) == ""  # half an hour of loading and compiling
    assert guard.step("Training", 10, 100, 1805.0) == ""  # 1 s a step: 1895 s in all


def test_a_resumed_run_is_measured_by_the_steps_that_it_makes_itself() -> None:
    assert judged(Budget(gpus=1, gpu_hours=1.0), pace=10.0, of=1000, first=900, begun=-9000.0) == (1000, "")


def test_stages_of_unknown_length_are_not_judged() -> None:
    guard = Guard(Budget(gpus=1, gpu_hours=0.0))
    assert [guard.step("Reading", number, 0, 10.0 * number) for number in range(100)] == [""] * 100


def test_a_run_ends_for_the_budget_by_its_own_steps(tmp_path: Path) -> None:
    now = [0.0]
    context = Context(tmp_path, clock=lambda: now[0])
    context.guard = Guard(Budget(gpus=1, gpu_hours=0.01))
    context.stage("Training", of=100)
    for number in range(1, 6):
        now[0] += 1.0
        context.step(number)
    now[0] += 1.0
    with pytest.raises(RunFailed) as failed:
        context.step(6)
    assert failed.value.reason is Reason.BUDGET_EXCEEDED
