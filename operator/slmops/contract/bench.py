"""What a benchmark has seen of servers on a node, and how sure that is. It is untrusted like the rest of a report.

Figures that are measured with each request have the names of the API: TokensPerSecond, TimeToFirstToken,
RequestLatency, ExactMatch.
"""

from typing import Annotated

from pydantic import Field

from slmops.contract.base import Amount, Count, Message, Share, Word

Disturbance = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9 .,%'-]+$")]
"""A few words: they are printed on terminals as they stand."""


class Round(Message):
    """One round of a benchmark against one target: medians and totals over its prompts."""

    time_to_first_token_seconds: Amount
    tokens_per_second: Amount
    request_seconds: Amount


class TargetFigures(Message):
    """What the benchmark saw of one server."""

    rounds: Annotated[tuple[Round, ...], Field(max_length=16)]
    """A single one, of medians, where the report would be too long."""
    time_to_first_token_p95_seconds: Amount | None = None
    request_p95_seconds: Amount | None = None
    requests: Count
    errors: Count
    exact_match: Share | None = None
    peak_memory_bytes: Count | None = None
    intervals: Annotated[dict[Word, tuple[Amount, Amount]], Field(max_length=8)] = {}
    """95 % confidence intervals of the medians over the rounds, and of ``ExactMatch``, in the figure's unit."""


class Paired(Message):
    """The candidate beside the stable server, by the prompts that both were asked in the same round."""

    ratio: Amount
    """Candidate / stable: the geometric mean over the pairs, of ``ExactMatch`` the ratio of the two shares."""
    low: Amount
    high: Amount
    """95 % confidence interval of the ratio."""
    pairs: Count
    """Of answers that both have given; of ``ExactMatch`` of all that were asked for."""


class Statistics(Message):
    """What came of the comparison, and what may have spoiled it."""

    paired: Annotated[dict[Word, Paired], Field(max_length=8)] = {}
    noise: Annotated[dict[Word, Amount], Field(max_length=8)] = {}
    """How far the same server may be from itself when it is asked the same again: 0.1 is 10 %."""
    apart: bool = False
    """Whether the stable server was measured before, since the node holds one server only."""
    disturbances: Annotated[tuple[Disturbance, ...], Field(max_length=4)] = ()
    """What else went on on the node."""
