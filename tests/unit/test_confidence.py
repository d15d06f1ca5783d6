"""Intervals of differences and ratios: against the formulas, against simulated samples, and at the edges."""

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from slmops.confidence import Interval, difference, holding, ratio

shares = st.floats(0.01, 0.99)
widths = st.floats(0, 0.5)


@cache
def wilson(right: int, of: int) -> Interval:
    found = binomtest(right, of).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def test_two_independent_shares_as_in_the_literature() -> None:
    """56 of 70 against 48 of 80: Newcombe (1998), Statistics in Medicine 17, table II, example (a), method 10."""
    found = difference(56 / 70, wilson(56, 70), 48 / 80, wilson(48, 80))
    assert found == pytest.approx((0.0524, 0.3339), abs=5e-5)


@pytest.mark.parametrize("correlation", [0.0, 0.6])
@pytest.mark.parametrize(("ours", "theirs"), [(0.95, 0.97), (0.8, 0.9), (0.5, 0.6)])
def test_the_true_ratio_lies_within_in_95_of_100_samples(ours: float, theirs: float, correlation: float) -> None:
    rng = np.random.default_rng(7)
    both = ours * theirs + correlation * math.sqrt(ours * (1 - ours) * theirs * (1 - theirs))
    chances = [both, ours - both, theirs - both, 1 - ours - theirs + both]
    if min(chances) < 0:
        pytest.skip("no two shares go together like that")
    count, held = 400, 0
    draws = rng.multinomial(count, chances, size=1000)
    for a, b, c, d in draws:
        first, second = int(a + b), int(a + c)
        spread = math.sqrt(first * (count - first) * second * (count - second))
        phi = float(a * d - b * c) / spread if spread else 0.0
        found = ratio(first / count, wilson(first, count), second / count, wilson(second, count), phi)
        assert found is not None
        held += found[0] <= ours / theirs <= found[1]
    assert 0.93 <= held / len(draws) <= 0.98


@settings(derandomize=True)
@given(shares, widths, widths, shares, widths, widths, st.floats(-1, 1))
def test_a_ratio_lies_within_its_interval(a: float, b: float, c: float, d: float, e: float, f: float, r: float) -> None:
    mine, other = (max(0.0, a - b), a + c), (max(0.0, d - e), d + f)
    found = ratio(a, mine, d, other, r)
    if found is None:
        assert other[0] == 0
        return
    assert found[0] <= a / d * (1 + 1e-9)
    assert found[1] >= a / d * (1 - 1e-9)
    assert math.isfinite(found[1])


@settings(derandomize=True)
@given(shares, widths, shares, widths, st.floats(0, 1))
def test_what_errs_together_is_compared_more_surely(a: float, b: float, c: float, d: float, r: float) -> None:
    assume(b > 1e-6 and d > 1e-6)
    mine, other = (a - b, a + b), (c - d, c + d)
    together, apart = difference(a, mine, c, other, r), difference(a, mine, c, other)
    assert together[1] - together[0] <= apart[1] - apart[0] + 1e-12


def test_nothing_right_retains_nothing_and_perhaps_a_little() -> None:
    assert ratio(0.0, (0.0, 0.03), 0.6, (0.5, 0.7)) == (0.0, pytest.approx(0.05))


def test_an_interval_is_made_to_hold_its_value() -> None:
    assert holding(0.5, (0.6, 0.7)) == (0.5, 0.7)
    assert holding(0.5, (0.1, 0.4)) == (0.1, 0.5)
    assert holding(0.5, (0.1, 0.7)) == (0.1, 0.7)
