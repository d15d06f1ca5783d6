"""What a server tells of the requests that it answered: counts in fixed bins, which add up over minutes and over nodes.

Never a text, nor what one could be made from: of a prompt and of its answer there are their lengths, and how many of their
tokens fell into each of some buckets, of which each has hundreds of a vocabulary.
"""

from typing import Annotated, Literal

from pydantic import Field

from slmops.contract.base import Amount, Count, Message

BENCHMARK_HEADER = "Slmops-Benchmark"
"""A request with this header is none of the users': it is answered like any other and left out here. Whoever can ask can
set it; it hides a request from the watch over the model and gives no right."""
MONITORED_SECONDS = 24 * 3600
"""How far back a server remembers."""
TOKEN_EDGES = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192)
"""Upper ends of the bins of lengths; one more bin has what is longer."""
SECOND_EDGES = tuple(float(f"{10 ** (n / 8 - 3):.4g}") for n in range(41))
"""Upper ends of the bins of times, eight for each power of ten from 1 ms to 100 s; one more bin has what takes longer."""
BUCKETS = 256
"""Of tokens, by a hash of their numbers."""
FINISHES = ("stop", "length")
"""How answers end: by themselves or at a stop text, and at the longest that was allowed."""

Lengths = Annotated[tuple[Count, ...], Field(min_length=len(TOKEN_EDGES) + 1, max_length=len(TOKEN_EDGES) + 1)]
Times = Annotated[tuple[Count, ...], Field(min_length=len(SECOND_EDGES) + 1, max_length=len(SECOND_EDGES) + 1)]
Tokens = Annotated[tuple[Count, ...], Field(min_length=BUCKETS, max_length=BUCKETS)]
Ends = Annotated[tuple[Count, ...], Field(min_length=len(FINISHES), max_length=len(FINISHES))]
BINS = {
    "prompt_tokens": len(TOKEN_EDGES) + 1, "answer_tokens": len(TOKEN_EDGES) + 1, "finish": len(FINISHES),
    "prompt_content": BUCKETS, "prompt_content_half": BUCKETS,
    "answer_content": BUCKETS, "answer_content_half": BUCKETS,
    "request_seconds": len(SECOND_EDGES) + 1, "first_token_seconds": len(SECOND_EDGES) + 1,
}  # fmt: skip
"""Histograms, and how many bins each has."""


class Served(Message):
    """Requests of some time, on one node or on several."""

    bins: Literal[1] = 1
    """Which bins: histograms of others cannot be added to these."""
    seconds: Amount = 0.0
    """How long the servers were there in that time."""
    answers: Count = 0
    """Requests that were answered in full: as many as each histogram has, but for those of tokens."""
    errors: Count = 0
    """Requests that ended with a status of 500 or more, or with an error in the midst of a stream."""
    refused: Count = 0
    """Requests that found the queue full (429)."""
    invalid: Count = 0
    """Requests that were wrong in themselves (other 4xx)."""
    waited_seconds: Amount = 0.0
    """Time that answered requests spent in the queue, in all."""
    ran_seconds: Amount = 0.0
    """Time that the model worked on them, in all."""
    peak_memory: Count = 0
    """Most memory that the process held since its start, in bytes; of several nodes where it was nearest to its limit."""
    memory_limit: Count = 0
    """What it may hold there; 0 where there is no limit, or none is known."""
    prompt_tokens: Lengths = (0,) * BINS["prompt_tokens"]
    """Requests by the length of the prompt."""
    answer_tokens: Lengths = (0,) * BINS["answer_tokens"]
    """Requests by the length of the answer."""
    finish: Ends = (0,) * len(FINISHES)
    """Requests by how the answer ended."""
    prompt_content: Tokens = (0,) * BUCKETS
    """Tokens of prompts by bucket."""
    prompt_content_half: Tokens = (0,) * BUCKETS
    """Those of every second prompt: how far these are from the others is what chance makes of that many."""
    answer_content: Tokens = (0,) * BUCKETS
    """Tokens of answers by bucket."""
    answer_content_half: Tokens = (0,) * BUCKETS
    """Those of every second answer."""
    request_seconds: Times = (0,) * BINS["request_seconds"]
    """Requests by the time from their arrival to the last token."""
    first_token_seconds: Times = (0,) * BINS["first_token_seconds"]
    """Requests by the time from their arrival to the first token."""

    @property
    def requests(self) -> int:
        """All of them."""
        return self.answers + self.errors + self.refused + self.invalid
