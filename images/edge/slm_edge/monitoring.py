"""What was asked and answered, minute by minute for a day: counts in fixed bins, and never a text.

It is told by ``GET /monitoring`` as one sum, so that whoever asks needs to remember nothing, and a server that was not
asked for an hour has lost nothing. A day with requests in every minute takes some 8 MB.
"""

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from slm_edge.backend import Answered
from slm_edge.metrics import peak_bytes
from slmops.contract import BINS, BUCKETS, FINISHES, MONITORED_SECONDS, SECOND_EDGES, TOKEN_EDGES, Served

MINUTE = 60
HELD = MONITORED_SECONDS // MINUTE
LIMIT = Path("/sys/fs/cgroup/memory.max")
"""Where a container finds what it may hold (control groups, version 2)."""
HANG_UP = 499
"""The client has gone: neither an answer nor an error of ours."""
BEGIN = dict(zip(BINS, accumulate(BINS.values(), initial=0), strict=False))
"""Where each histogram begins in a minute's counts."""
Tokens = Sequence[int]


@dataclass
class _Minute:
    answers: int = 0
    errors: int = 0
    refused: int = 0
    invalid: int = 0
    waited: float = 0.0
    ran: float = 0.0
    counts: Any = field(default_factory=lambda: np.zeros(sum(BINS.values()), np.uint32))

    def count(self, name: str, place: int) -> None:
        self.counts[BEGIN[name] + place] += 1

    def add(self, name: str, content: Any) -> None:
        self.counts[BEGIN[name] : BEGIN[name] + BUCKETS] += content


def buckets(tokens: Tokens) -> Any:
    """How many tokens fall into each bucket: by their numbers spread evenly, the same in every process (Knuth's
    multiplicative hash)."""
    hashed = np.asarray(tokens, np.uint64) * np.uint64(2654435761) & np.uint64(0xFFFFFFFF)
    places = (hashed * np.uint64(BUCKETS) >> np.uint64(32)).astype(np.int64)
    return np.bincount(places, minlength=BUCKETS).astype(np.uint32)


class Monitoring:
    """Counts of a day. Threads may share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, limit: Path = LIMIT) -> None:
        self._clock, self._limit = clock, limit
        self._began = clock()
        self._second = False
        self._minutes: dict[int, _Minute] = {}
        self._lock = threading.Lock()

    def answered(self, answer: Answered, said: Tokens, *, first_token: float, seconds: float, waited: float) -> None:
        """A request was answered in full. ``said``: the tokens that have a text."""
        content = {"prompt_content": buckets(answer.read), "answer_content": buckets(said)}
        with self._lock:
            minute = self._now()
            minute.answers += 1
            minute.waited += waited
            minute.ran += max(0.0, seconds - waited)
            minute.count("prompt_tokens", bisect_left(TOKEN_EDGES, answer.prompt_tokens))
            minute.count("answer_tokens", bisect_left(TOKEN_EDGES, answer.completion_tokens))
            minute.count("finish", FINISHES.index(answer.finish))
            minute.count("request_seconds", bisect_left(SECOND_EDGES, seconds))
            minute.count("first_token_seconds", bisect_left(SECOND_EDGES, first_token))
            self._second = not self._second
            for name, counts in content.items():
                minute.add(name, counts)
                if self._second:
                    minute.add(f"{name}_half", counts)

    def failed(self, status: int) -> None:
        """A request got an error of this status."""
        if status == HANG_UP:
            return
        with self._lock:
            minute = self._now()
            if status >= 500:
                minute.errors += 1
            elif status == 429:
                minute.refused += 1
            else:
                minute.invalid += 1

    def served(self, seconds: float) -> Served:
        """The sum over the minutes that began within the last so many seconds: nothing in it is older than that."""
        with self._lock:
            now = self._clock()
            found = [minute for number, minute in self._minutes.items() if number * MINUTE >= now - seconds]
            counts = np.sum([minute.counts for minute in found], axis=0, dtype=np.uint64).tolist() if found else []
            return Served(
                seconds=round(min(seconds, now - self._began), 1),
                answers=sum(minute.answers for minute in found), errors=sum(minute.errors for minute in found),
                refused=sum(minute.refused for minute in found), invalid=sum(minute.invalid for minute in found),
                waited_seconds=round(sum(minute.waited for minute in found), 3),
                ran_seconds=round(sum(minute.ran for minute in found), 3),
                peak_memory=int(peak_bytes()), memory_limit=self._memory_limit(),
                **{name: tuple(counts[BEGIN[name] : BEGIN[name] + size]) for name, size in BINS.items() if counts},
            )  # fmt: skip

    def _now(self) -> _Minute:
        """The minute that it is. What is older than a day goes."""
        number = int(self._clock() // MINUTE)
        found = self._minutes.get(number)
        if found is None:
            found = self._minutes[number] = _Minute()
            while (oldest := next(iter(self._minutes))) <= number - HELD:
                del self._minutes[oldest]
        return found

    def _memory_limit(self) -> int:
        try:
            return int(self._limit.read_text())
        except (OSError, ValueError):  # another version of control groups, or the word "max"
            return 0
