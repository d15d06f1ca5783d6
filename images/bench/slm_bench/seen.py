"""Answers -> figures: of each server, of one beside the other, and of a server beside itself."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median

from slm_bench.asking import Answer
from slm_bench.statistics import digits, interval, percentile, ratio, share_ratio, wilson
from slmkit.data import Example
from slmops.contract import Paired, Round, TargetFigures

Asked = tuple[Example, Answer]
Repeats = list[list[tuple[Answer, Answer]]]
"""Answers to the same prompts, round by round."""
EXACT_MATCH = "ExactMatch"


@dataclass
class Seen:
    """All that was seen of one target."""

    rounds: list[list[Asked]] = field(default_factory=list)
    peak: int | None = None


def speed(answers: Sequence[Answer]) -> float:
    """Tokens a second, of all answers together."""
    return sum(a.tokens for a in answers) / sum(a.seconds for a in answers)


def first_token(answers: Sequence[Answer]) -> float:
    """Median time to the first token."""
    return median(a.first_token for a in answers)


def whole(answers: Sequence[Answer]) -> float:
    """Median time of a request."""
    return median(a.seconds for a in answers)


OF_A_ROUND: dict[str, Callable[[Sequence[Answer]], float]] = {
    "TokensPerSecond": speed,
    "TimeToFirstToken": first_token,
    "RequestLatency": whole,
}


def figures(seen: Seen) -> TargetFigures:
    """What one server is like."""
    rounds = [good for each in seen.rounds if (good := [a for _, a in each if a.error is None])]
    answers = [answer for good in rounds for answer in good]
    rights = [right for each in seen.rounds for e, a in each if (right := is_right(e, a)) is not None]
    sure = {name: interval(rounds, partial(_typical, of)) for name, of in OF_A_ROUND.items()}
    if rights:
        sure[EXACT_MATCH] = wilson(sum(rights), len(rights))
    asked = sum(map(len, seen.rounds))
    return TargetFigures(
        rounds=tuple(
            Round(
                time_to_first_token_seconds=digits(first_token(good)),
                tokens_per_second=digits(speed(good)),
                request_seconds=digits(whole(good)),
            )
            for good in rounds
        ),
        time_to_first_token_p95_seconds=percentile([a.first_token for a in answers], 95),
        request_p95_seconds=percentile([a.seconds for a in answers], 95),
        requests=asked,
        errors=asked - len(answers),
        exact_match=digits(sum(rights) / len(rights)) if rights else None,
        peak_memory_bytes=seen.peak,
        intervals={name: (digits(ends[0]), digits(ends[1])) for name, ends in sure.items() if ends is not None},
    )


def paired(candidate: Seen, stable: Seen) -> dict[str, Paired]:
    """How the two compare on the prompts that both were asked in the same round: a long answer is long for both, so
    what the prompts differ in is no noise."""
    both = [list(zip(a, b, strict=True)) for a, b in zip(candidate.rounds, stable.rounds, strict=True)]
    found = _ratios([[(ours, theirs) for (_, ours), (_, theirs) in each] for each in both])
    told = {name: _paired(value, ends, pairs) for name, (value, ends, pairs) in found.items()}
    rights = [
        [(bool(is_right(example, ours)), bool(is_right(example, theirs))) for (example, ours), (_, theirs) in each
         if example.completion is not None]
        for each in both
    ]  # fmt: skip
    if (ends := interval(rights, share_ratio)) is not None:
        told[EXACT_MATCH] = _paired(share_ratio(rights), ends, sum(map(len, rights)))
    return told


def noise(repeats: Repeats) -> dict[str, float]:
    """How far a server may be from itself: the end of the interval that is furthest from 1, either way."""
    found = _ratios(repeats)
    return {name: digits(max(high, 1 / low) - 1) for name, (_, (low, high), _) in found.items()}


def is_right(example: Example, answer: Answer) -> bool | None:
    """Whether an answer is the expected one; an error is none. None where nobody knows what to expect."""
    if example.completion is None:
        return None
    return answer.error is None and answer.text.strip() == example.completion.strip()


def _typical(of: Callable[[Sequence[Answer]], float], rounds: Sequence[Sequence[Answer]]) -> float:
    """As status tells it: the median of the rounds' figures."""
    return median(map(of, rounds))


def _ratios(pairs: Iterable[Iterable[tuple[Answer, Answer]]]) -> dict[str, tuple[float, tuple[float, float], int]]:
    """Geometric mean of the ratios, its interval, and of how many."""
    good = [[(a, b) for a, b in each if a.error is None and b.error is None] for each in pairs]
    found = {}
    for name, of in OF_A_ROUND.items():
        logs = [[math.log(x / y) for a, b in each if (x := of([a])) > 0 and (y := of([b])) > 0] for each in good]
        if (told := ratio(logs)) is not None:
            found[name] = (*told, sum(map(len, logs)))
    return found


def _paired(value: float, ends: tuple[float, float], pairs: int) -> Paired:
    return Paired(ratio=digits(value), low=digits(ends[0]), high=digits(ends[1]), pairs=pairs)
