"""95 % confidence intervals of one figure. Equal inputs give equal intervals."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]
Weights = NDArray[np.float64]
"""How often each record counts: (records,)."""
RESAMPLES = 1000
SEED = 20260101
TAIL = 0.025


def wilson(right: int, of: int) -> Interval:
    """Of a share (Wilson 1927)."""
    from scipy.stats import binomtest

    found = binomtest(right, of).proportion_ci(confidence_level=1 - 2 * TAIL, method="wilson")
    return rounded(found.low), rounded(found.high)


def bootstrap(records: int, statistic: Callable[[Weights], float]) -> Interval | None:
    """Of any statistic of the records: percentiles over resamples (Efron 1979). None with fewer than two records.

    In memory is one resample at a time.
    """
    if records < 2:
        return None
    rng = np.random.default_rng(SEED)
    found = [
        statistic(np.bincount(rng.integers(0, records, records), minlength=records).astype(np.float64))
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(found, [100 * TAIL, 100 * (1 - TAIL)])
    return rounded(low), rounded(high)


def of_share(records: int, statistic: Callable[[Weights], float]) -> Interval | None:
    """Of a statistic from 0 to 1. Where every record is wholly right, or none is at all, each resample says the same,
    as if nothing were left to chance: there it is Wilson's, of all the records."""
    found = bootstrap(records, statistic)
    if found in ((0.0, 0.0), (1.0, 1.0)):
        return wilson(records if found[0] else 0, records)
    return found


def of_median(values: Sequence[float]) -> Interval | None:
    """Of a median, whatever the distribution: the order statistics between which it lies by the binomial distribution (as
    in Conover 1999, section 3.2). None where the values are too few for 95 %."""
    from scipy.stats import binom

    rank = int(binom.ppf(TAIL, len(values), 0.5)) if values else 0
    if rank < 1:
        return None
    ordered = sorted(values)
    return rounded(ordered[rank - 1]), rounded(ordered[-rank])


def rounded(value: float, digits: int = 4) -> float:
    """To so many significant digits."""
    return float(f"{value:.{digits}g}")
