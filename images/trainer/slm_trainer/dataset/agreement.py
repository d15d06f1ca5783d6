"""Several answers to one prompt: the one that most of them give (self-consistency, Wang et al. 2022, arXiv 2203.11171)."""

from collections import Counter
from collections.abc import Sequence


def agreed(answers: Sequence[str], at_least: int) -> int | None:
    """Index of the first of the answers that the most samples gave, if at least so many did; None: they disagree.

    Answers are the same when they differ in white space alone."""
    plain = [" ".join(answer.split()) for answer in answers]
    counts = Counter(answer for answer in plain if answer)
    if not counts:
        return None
    best, number = counts.most_common(1)[0]  # of equals the first, in the order of the answers
    return plain.index(best) if number >= at_least else None
