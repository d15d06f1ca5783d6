"""How sure a figure of a benchmark is: 95 % intervals, without any assumption about how times are distributed.

Two-stage bootstrap (Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13, for the percentiles;
Davison and Hinkley 1997, "Bootstrap Methods and their Application", section 3.8, for the two stages): rounds are drawn
again from the rounds, then requests from each of them. Requests alone would not do: whatever disturbs a node for some
seconds makes a whole round faster or slower, so that its requests err together. The two stages count the chance within a
round twice, so without any such disturbance the intervals are too wide, by four tenths at most. Of two or three rounds
that disturb each other they are too narrow all the same: so few draws cannot show more.

Ratios are averaged by their geometric mean (Fleming and Wallace 1986, doi 10.1145/5666.5673): twice as fast and half as
fast are as fast, whichever of the two one divides by.

The kit's own intervals (``slmkit.metrics``) are of whole data sets and need numpy and scipy, which this image does without.
"""

import math
import random
from collections.abc import Callable, Sequence
from itertools import chain
from statistics import fmean
from typing import TypeVar

T = TypeVar("T")
Rounds = Sequence[Sequence[T]]
Interval = tuple[float, float]

RESAMPLES, FEWEST = 2000, 200
DRAWS = 1_000_000
"""Where a benchmark has very many requests fewer resamples are made, so that a small node is busy for seconds and not for
minutes: the interval is narrow then, and a little more chance in its ends does no harm."""
TAIL = 0.025
SEED = 20261130
"""Equal inputs give equal intervals."""
NORMAL = 1.959964
LIMIT = 1000.0
"""Where next to nothing of the other one is right, a ratio has no upper end."""


def interval(rounds: Rounds[T], figure: Callable[[Rounds[T]], float]) -> Interval | None:
    """Of any figure of the rounds. None with fewer than two requests."""
    filled = [each for each in rounds if each]
    size = sum(map(len, filled))
    if size < 2:
        return None
    times = max(FEWEST, min(RESAMPLES, DRAWS // size))
    chance = random.Random(SEED)  # noqa: S311  (no secret)
    found = sorted(
        figure([chance.choices(each, k=len(each)) for each in chance.choices(filled, k=len(filled))])
        for _ in range(times)
    )
    cut, value = int(times * TAIL), figure(filled)
    # Of a skewed figure the percentiles may narrowly miss the figure itself.
    return min(found[cut - 1], value), max(found[-cut], value)


def geometric(logs: Rounds[float]) -> float:
    """Geometric mean of ratios, of which these are the logarithms."""
    return math.exp(fmean([*chain.from_iterable(logs)]))  # of a list, which has a length, it is twice as fast


def ratio(logs: Rounds[float]) -> tuple[float, Interval] | None:
    """The geometric mean of ratios, and its interval. None with fewer than two."""
    sure = interval(logs, geometric)
    return None if sure is None else (geometric([each for each in logs if each]), sure)


def share_ratio(rights: Rounds[tuple[bool, bool]]) -> float:
    """How many are right of the first, as a share of how many are right of the second."""
    first, second = (sum(right[side] for each in rights for right in each) for side in (0, 1))
    return min(LIMIT, first / second) if second else (LIMIT if first else 1.0)


def wilson(right: int, of: int) -> Interval:
    """Of a share (Wilson 1927). A bootstrap would take a share of which all or none was right for certain."""
    share, z = right / of, NORMAL * NORMAL / of
    middle = (share + z / 2) / (1 + z)
    half = NORMAL / (1 + z) * math.sqrt(share * (1 - share) / of + z / (4 * of))
    return max(0.0, middle - half), min(1.0, middle + half)


def percentile(values: Sequence[float], percent: int) -> float | None:
    """Nearest rank; None without values."""
    if not values:
        return None
    ordered = sorted(values)
    return digits(ordered[min(len(ordered) - 1, -(-percent * len(ordered) // 100) - 1)])


def digits(value: float) -> float:
    """Four that count."""
    return float(f"{value:.4g}")
