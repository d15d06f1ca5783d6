"""Counts in bins: added up over servers, read as percentiles, and compared with those of another time."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from slmops.contract import BINS, Served

DISTRIBUTIONS = {
    "PromptTokens": "prompt_tokens", "PromptContent": "prompt_content", "AnswerTokens": "answer_tokens",
    "AnswerContent": "answer_content", "FinishReason": "finish",
}  # fmt: skip
"""What is compared with the baseline, and the field that counts it."""
INPUTS = ("PromptTokens", "PromptContent")
CONTENT = ("PromptContent", "AnswerContent")
ADDED = ("seconds", "answers", "errors", "refused", "invalid", "waited_seconds", "ran_seconds")
PER_ANSWER = ("prompt_tokens", "answer_tokens", "finish", "request_seconds", "first_token_seconds")
MOST_REQUESTS, MOST_TOKENS = 10**9, 10**12
"""More than a server answers in a day; so the sum over a fleet stays exact, whoever lies."""
NOTHING = 0.5
"""What is added to every bin of both sides, so that an empty one does not make an endless index."""


def plausible(said: Served) -> bool:
    """Whether one server can have told this: each answer is in each histogram once, and there are not more than can be."""
    tokens = sum(said.prompt_content) + sum(said.answer_content)
    agreed = all(sum(getattr(said, name)) == said.answers for name in PER_ANSWER)
    for name in ("prompt_content", "answer_content"):
        both = zip(getattr(said, f"{name}_half"), getattr(said, name), strict=True)
        agreed = agreed and all(half <= whole for half, whole in both)
    return agreed and said.requests <= MOST_REQUESTS and tokens <= MOST_TOKENS


def together(parts: Iterable[Served]) -> Served:
    """The sum. Of memory the server that was nearest to its limit."""
    all_ = list(parts)
    sums: dict[str, Any] = {name: sum(getattr(part, name) for part in all_) for name in ADDED}
    for name, size in BINS.items():
        sums[name] = tuple(map(sum, zip(*(getattr(part, name) for part in all_), strict=True))) or (0,) * size
    fullest = max(all_, key=fullness, default=Served())
    memory = {"peak_memory": fullest.peak_memory, "memory_limit": fullest.memory_limit}
    return Served().model_copy(update=sums | memory)


def fullness(said: Served) -> float:
    """How near a server was to its limit of memory; 0 where none is known."""
    return said.peak_memory / said.memory_limit if said.memory_limit else 0.0


def quantile(edges: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """The value that so large a share of all does not exceed, as histogram_quantile of Prometheus has it: straight from
    the lower to the upper end of the bin, and the last edge for what lies beyond it."""
    total, below = sum(counts), 0
    if not total:
        return None
    rank = share * total
    for place, count in enumerate(counts[: len(edges)]):
        if count and below + count >= rank:
            low = edges[place - 1] if place else 0.0
            return low + (edges[place] - low) * max(0.0, rank - below) / count
        below += count
    return edges[-1]


def index(expected: Sequence[int], actual: Sequence[int]) -> float:
    """Population stability index: the sum of (a - e) ln(a / e) over the bins, a and e being the shares of what is seen and
    of what is expected (Siddiqi, Credit Risk Scorecards, 2006). It is the symmetric form of the Kullback-Leibler
    divergence (Jeffreys), 0 where both are alike. Bins that are empty on both sides are none."""
    pairs = [(e + NOTHING, a + NOTHING) for e, a in zip(expected, actual, strict=True) if e or a]
    all_expected, all_actual = sum(e for e, _ in pairs), sum(a for _, a in pairs)
    shares = [(e / all_expected, a / all_actual) for e, a in pairs]
    return sum((a - e) * math.log(a / e) for e, a in shares)


def chance(bins: int, expected: int, actual: int) -> float:
    """The index that two samples of the same population have in the mean, by so many observations: (B - 1)(1/n + 1/m)
    (Yurdakul and Naranjo, Statistical properties of the population stability index, Journal of Risk Model Validation,
    2020)."""
    return (bins - 1) * (1 / expected + 1 / actual)


def chance_of_content(baseline: Served, field: str, actual: int) -> float:
    """The same of tokens. Those of one text come together, so that they are fewer observations than they are tokens; how
    many fewer is measured: the two halves of the baseline differ by chance alone, and what they differ by is (B - 1)(2/n +
    2/n) of the formula."""
    half, all_ = getattr(baseline, f"{field}_half"), getattr(baseline, field)
    rest = [max(0, whole - part) for whole, part in zip(all_, half, strict=True)]
    n = baseline.answers
    return index(half, rest) * n / 4 * (1 / n + 1 / actual)


def drift(baseline: Served, window: Served) -> dict[str, float]:
    """The index of each distribution, less what chance makes of it, and not below 0. Nothing where there were no
    answers."""
    if not baseline.answers or not window.answers:
        return {}
    found = {}
    for name, field in DISTRIBUTIONS.items():
        expected, actual = getattr(baseline, field), getattr(window, field)
        bins = sum(bool(e or a) for e, a in zip(expected, actual, strict=True))
        if name in CONTENT:
            by_chance = chance_of_content(baseline, field, window.answers)
        else:
            by_chance = chance(max(1, bins), baseline.answers, window.answers)
        found[name] = max(0.0, index(expected, actual) - by_chance)
    return found
