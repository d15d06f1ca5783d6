"""Counts in bins: sums over servers, percentiles, and how far two of them are from each other."""

import math
import random

import pytest
from scipy.special import rel_entr
from scipy.stats import expon

from slmops.contract import BINS, BUCKETS, LARGEST, SECOND_EDGES, Served
from slmops.monitoring.counts import (
    DISTRIBUTIONS,
    MOST_REQUESTS,
    chance,
    drift,
    fullness,
    index,
    plausible,
    quantile,
    together,
)
from tests.unit.monitoring.worlds import NORMAL, OTHER, served

# --- the index


def test_the_index_is_what_the_formula_says() -> None:
    """By hand: shares 0.5, 0.3, 0.2 against 0.4, 0.3, 0.3, from counts that are too many for the half to matter."""
    expected, actual = (5_000_000, 3_000_000, 2_000_000), (4_000_000, 3_000_000, 3_000_000)
    by_hand = (0.4 - 0.5) * math.log(0.4 / 0.5) + 0.0 + (0.3 - 0.2) * math.log(0.3 / 0.2)
    assert by_hand == pytest.approx(0.0628609, abs=1e-6)
    assert index(expected, actual) == pytest.approx(by_hand, abs=1e-6)


def test_the_index_is_both_relative_entropies_together() -> None:
    draw = random.Random(3)
    expected, actual = ([draw.randrange(1000, 9000) for _ in range(30)] for _ in range(2))
    e, a = ([(count + 0.5) / sum(c + 0.5 for c in side) for count in side] for side in (expected, actual))
    assert index(expected, actual) == pytest.approx(sum(rel_entr(e, a)) + sum(rel_entr(a, e)), rel=1e-12)


@pytest.mark.parametrize("counts", [(1, 2, 3), (0, 0, 5), (10**9, 1, 0)])
def test_what_is_alike_has_no_distance(counts: tuple[int, ...]) -> None:
    assert index(counts, counts) == 0


def test_an_empty_bin_makes_no_endless_index_and_one_that_is_empty_twice_none() -> None:
    found = index((100, 0), (0, 100))
    assert math.isfinite(found)
    assert found > 5
    assert index((100, 50, 0, 0), (80, 70, 0, 0)) == index((100, 50), (80, 70))
    assert index((0, 0), (0, 0)) == 0


def test_the_conventional_reading_of_the_index() -> None:
    """A shift of a tenth of all from one of ten bins to another is one, a shift of a hundredth is none."""
    even, little, much = [1000] * 10, [1100, 900] + [1000] * 8, [1900, 100] + [1000] * 8
    assert index(even, little) < 0.1
    assert index(even, much) > 0.2


@pytest.mark.parametrize(("bins", "expected", "actual"), [(10, 500, 200), (2, 500, 2000), (20, 5000, 100)])
def test_chance_makes_of_small_samples_what_is_taken_off(bins: int, expected: int, actual: int) -> None:
    draw = random.Random(7)

    def sample(count: int) -> list[int]:
        drawn = [draw.randrange(bins) for _ in range(count)]
        return [drawn.count(place) for place in range(bins)]

    mean = sum(index(sample(expected), sample(actual)) for _ in range(60)) / 60
    assert mean == pytest.approx(chance(bins, expected, actual), rel=0.35)


def texts(count: int, topics: list[list[int]], draw: random.Random) -> Served:
    """Prompts of 30 tokens, each from one topic; what comes of tokens comes together."""
    tokens, half = [0] * BUCKETS, [0] * BUCKETS
    for number in range(count):
        for token in draw.choices(draw.choice(topics), k=30):
            tokens[token] += 1
            half[token] += number % 2
    return served(count, prompt_content=tuple(tokens), prompt_content_half=tuple(half))


def test_of_tokens_that_come_together_chance_makes_more_and_that_is_measured() -> None:
    """Each topic has ten tokens of its own: thousands of tokens are as few observations as there are prompts."""
    draw = random.Random(5)
    topics = [draw.sample(range(BUCKETS), 10) for _ in range(12)]
    others = [draw.sample(range(BUCKETS), 10) for _ in range(12)]
    baseline = texts(500, topics, draw)
    alike = [drift(baseline, texts(200, topics, draw))["PromptContent"] for _ in range(10)]
    raw = [index(baseline.prompt_content, texts(200, topics, draw).prompt_content) for _ in range(10)]
    assert max(alike) < 0.1, "no shift"
    assert min(raw) > sum(alike) / 10, "what chance makes is off"
    assert drift(baseline, texts(200, others, draw))["PromptContent"] > 1


def test_each_distribution_has_an_index_of_its_own() -> None:
    baseline = served(1000)
    found = drift(baseline, served(1000, OTHER))
    assert set(found) == set(DISTRIBUTIONS)
    assert found["PromptContent"] > 1
    assert found["PromptTokens"] == found["AnswerTokens"] == found["FinishReason"] == 0
    cut = drift(baseline, served(1000, finish=(300, 700)))
    assert cut["FinishReason"] > 0.2
    assert cut["PromptContent"] == 0


def test_of_no_answers_nothing_is_said() -> None:
    assert drift(served(0), served(100)) == drift(served(100), served(0)) == {}


# --- percentiles


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_a_percentile_is_within_a_sixth_of_the_true_one(share: float) -> None:
    draw = random.Random(1)
    values = [draw.expovariate(1 / 0.7) for _ in range(20_000)]
    counts = [0] * BINS["request_seconds"]
    for value in values:
        counts[sum(value > edge for edge in SECOND_EDGES)] += 1
    found = quantile(SECOND_EDGES, counts, share)
    assert found == pytest.approx(expon(scale=0.7).ppf(share), rel=1 / 6)


def test_percentiles_at_the_ends() -> None:
    edges = (1.0, 2.0, 4.0)
    assert quantile(edges, (0, 0, 0, 0), 0.5) is None
    assert quantile(edges, (4, 0, 0, 0), 0.5) == 0.5, "from 0, straight"
    assert quantile(edges, (0, 0, 4, 0), 0.5) == 3.0
    assert quantile(edges, (0, 0, 0, 9), 0.5) == 4.0, "beyond the last edge nothing is known"
    assert quantile(edges, (1, 0, 0, 1), 1.0) == 4.0


# --- sums


def test_the_sum_has_the_memory_of_the_server_that_is_nearest_to_its_limit() -> None:
    parts = [served(1, peak_memory=800, memory_limit=1000), served(2, peak_memory=900, memory_limit=9000),
             served(3, peak_memory=5000, memory_limit=0)]  # fmt: skip
    found = together(parts)
    assert found.answers == 6
    assert (found.peak_memory, found.memory_limit) == (800, 1000)
    assert fullness(found) == 0.8
    assert together([]).answers == 0


# --- what cannot be


@pytest.mark.parametrize(
    "fields",
    [
        {"answers": 5}, {"finish": (1, 1)}, {"errors": MOST_REQUESTS}, {"prompt_content": (10**11,) * BUCKETS},
        {"prompt_content_half": (9,) * BUCKETS}, {"request_seconds": (0,) * BINS["request_seconds"]},
    ],
)  # fmt: skip
def test_what_one_server_cannot_have_seen_is_not_believed(fields: dict[str, object]) -> None:
    assert plausible(served(1))
    assert not plausible(Served.model_validate(served(1).model_dump() | fields))


def test_the_sum_over_a_fleet_of_liars_is_exact() -> None:
    most = 10**12 // (2 * len(NORMAL))
    liar = served(1, prompt_content=tuple(most if at in NORMAL else 0 for at in range(BUCKETS)))
    assert plausible(liar)
    assert max(together([liar] * 5000).prompt_content) < LARGEST
