"""Intervals of a benchmark's figures hold the truth as often as they say, and pairs make them narrow."""

import math
import random
from collections.abc import Callable
from statistics import fmean, median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_bench import statistics as module
from slm_bench.statistics import (
    DRAWS,
    FEWEST,
    LIMIT,
    RESAMPLES,
    geometric,
    interval,
    percentile,
    ratio,
    share_ratio,
    wilson,
)

Logs = list[list[float]]
FEW = 300
"""Resamples, where it is not about their number."""


def drawn(chance: random.Random, rounds: int, prompts: int, within: float, between: float = 0.0) -> Logs:
    """Logarithms of ratios around 0.9. ``between``: how far whole rounds are disturbed."""
    shifts = [math.log(0.9) + chance.gauss(0, between) for _ in range(rounds)]
    return [[chance.gauss(shift, within) for _ in range(prompts)] for shift in shifts]


def covered(monkeypatch: pytest.MonkeyPatch, *shape: float, of: int = 100) -> float:
    """How often the interval holds what the ratios were drawn around."""
    monkeypatch.setattr(module, "RESAMPLES", FEW)
    chance = random.Random(1)
    found = [ratio(drawn(chance, int(shape[0]), int(shape[1]), *shape[2:])) for _ in range(of)]
    return sum(told is not None and told[1][0] <= 0.9 <= told[1][1] for told in found) / of


@pytest.mark.parametrize(
    ("shape", "least"),
    [
        ((3, 20, 0.1), 0.93),
        ((8, 8, 0.1), 0.95),
        ((2, 20, 0.3), 0.93),
        ((8, 5, 0.1, 0.05), 0.9),  # whole rounds are disturbed
        ((3, 20, 0.1, 0.05), 0.78),  # so few rounds cannot show more
    ],
)
def test_an_interval_holds_the_truth_as_often_as_it_says(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[float, ...], least: float
) -> None:
    assert covered(monkeypatch, *shape) >= least


def test_what_disturbs_whole_rounds_makes_the_interval_wider() -> None:
    """Twenty requests that err together are no twenty witnesses."""
    calm, rough = (ratio(drawn(random.Random(3), 4, 20, 0.05, between)) for between in (0.0, 0.2))
    assert calm is not None
    assert rough is not None
    assert rough[1][1] - rough[1][0] > 2 * (calm[1][1] - calm[1][0])


def test_pairs_see_what_two_separate_figures_do_not() -> None:
    """Answers are of very different length, and both servers take as much longer for a long one."""
    chance = random.Random(2)
    stable = [[math.log(chance.uniform(0.2, 8)) for _ in range(20)] for _ in range(3)]
    slower = [[log + math.log(1.1) + chance.gauss(0, 0.02) for log in each] for each in stable]
    paired = ratio([[b - a for a, b in zip(x, y, strict=True)] for x, y in zip(stable, slower, strict=True)])
    assert paired is not None
    assert 1.05 < paired[1][0] < 1.1 < paired[1][1] < 1.15
    apart = [ratio(each) for each in (stable, slower)]
    assert all(found is not None for found in apart)
    (_, (_, high)), (_, (low, _)) = (found for found in apart if found)
    assert low < high, "apart, nobody can tell which is slower"


def test_equal_inputs_give_equal_intervals() -> None:
    logs = drawn(random.Random(4), 3, 20, 0.1)
    assert ratio(logs) == ratio(logs)
    random.seed(5)
    before = random.getstate()
    ratio(logs)
    assert random.getstate() == before, "nor does anybody else's chance change"


@settings(derandomize=True, max_examples=60)
@given(st.lists(st.lists(st.floats(-5, 5), max_size=6), max_size=4))
def test_a_ratio_lies_in_its_interval_and_turned_round_it_is_the_inverse(logs: Logs) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "RESAMPLES", FEW)
        found, other = ratio(logs), ratio([[-log for log in each] for each in logs])
    if sum(map(len, logs)) < 2:
        assert found is other is None
        return
    assert found is not None
    assert other is not None
    value, (low, high) = found
    assert low <= value <= high
    assert (other[0], *other[1]) == pytest.approx((1 / value, 1 / high, 1 / low))


def test_very_many_requests_are_drawn_less_often() -> None:
    def calls(rounds: int, prompts: int) -> int:
        made: list[int] = []
        interval([[1.0] * prompts] * rounds, lambda some: made.append(1) or 1.0)
        return len(made) - 1  # once of what was seen itself

    assert calls(3, 20) == RESAMPLES
    assert calls(5, 1000) == FEWEST
    assert FEWEST < (made := calls(8, 200)) < RESAMPLES
    assert made * 1600 < 2 * DRAWS


@pytest.mark.parametrize("figure", [geometric, lambda rounds: median(map(fmean, rounds))])
def test_rounds_without_any_answer_are_left_out(figure: Callable[[Logs], float]) -> None:
    logs = drawn(random.Random(6), 3, 5, 0.1)
    assert interval([[], *logs, []], figure) == interval(logs, figure)
    assert interval([[], [1.0]], figure) is None


def test_prompts_alone_in_their_round_have_the_range_of_the_rounds() -> None:
    assert interval([[1.0], [3.0], [2.0]], lambda rounds: median(map(fmean, rounds))) == (1.0, 3.0)


@pytest.mark.parametrize(
    ("right", "of", "expected"),
    [(0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0)), (81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605))],
)
def test_a_share_has_the_interval_of_wilson(right: int, of: int, expected: tuple[float, float]) -> None:
    """The last two as in Newcombe 1998, table I, method 3."""
    assert wilson(right, of) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(
    ("rights", "expected"),
    [
        ([[(True, True)] * 3, [(False, True)]], 0.75),
        ([[(True, False), (True, True)]], 2.0),
        ([[(False, False)]], 1.0),  # neither knows anything: not worse
        ([[(True, False)]], LIMIT),
        ([[(True, True)] * 2000 + [(True, False)] * 2000], 2.0),
    ],
)
def test_right_answers_as_a_share_of_the_others(rights: list[list[tuple[bool, bool]]], expected: float) -> None:
    assert share_ratio(rights) == expected


@given(st.lists(st.integers(1, 999), min_size=1, max_size=60), st.integers(1, 100))
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(values: list[int], percent: int) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) >= percent * len(values) / 100
    assert sum(value < found for value in values) < percent * len(values) / 100


def test_a_percentile_of_nothing_is_not_known() -> None:
    assert percentile([], 95) is None
