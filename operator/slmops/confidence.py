"""How sure a comparison is: 95 % confidence intervals of a difference and of a ratio, from those of the two figures.

MOVER, the method of variance estimates recovery (Zou and Donner 2008, doi 10.1002/sim.3095; with a correlation Zou 2007,
doi 10.1037/1082-989X.12.4.399): the halves of the two intervals add up like legs of a triangle, so it keeps their
asymmetry, and figures of the same records, which err together, give a narrower interval than figures of different ones.
"""

import math

Interval = tuple[float, float]


def holding(value: float, interval: Interval) -> Interval:
    """The interval, wide enough to hold its value: a percentile bootstrap of a skewed figure may miss it narrowly."""
    return min(interval[0], value), max(interval[1], value)


def difference(ours: float, mine: Interval, theirs: float, other: Interval, correlation: float = 0.0) -> Interval:
    """Interval of ``ours - theirs``, given the interval of each, which hold them."""
    (low, high), (their_low, their_high) = mine, other
    between = ours - theirs
    return (
        between - _leg(ours - low, their_high - theirs, correlation),
        between + _leg(high - ours, theirs - their_low, correlation),
    )


def ratio(
    ours: float, mine: Interval, theirs: float, other: Interval, correlation: float = 0.0
) -> Interval | None:  # fmt: skip
    """Interval of ``ours / theirs``; ``theirs`` is above zero. None where the reference may be zero."""
    if other[0] <= 0:
        return None
    if ours <= 0:  # the limit of what follows
        return 0.0, max(mine[1], 0.0) / theirs
    low = max(mine[0], math.ulp(0.0))
    logs = (
        math.log(ours),
        (math.log(low), math.log(mine[1])),
        math.log(theirs),
        (math.log(other[0]), math.log(other[1])),
    )
    found = difference(*logs, correlation)
    return (0.0 if mine[0] <= 0 else math.exp(found[0])), math.exp(min(found[1], 700.0))


def _leg(a: float, b: float, correlation: float) -> float:
    return math.sqrt(max(0.0, a * a - 2 * correlation * a * b + b * b))
