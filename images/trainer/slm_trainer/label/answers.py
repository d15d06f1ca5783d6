"""What a teacher is asked and what it says: the words that all parts of labelling share."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from slmops.contract import Sampling

CHARACTERS_PER_TOKEN = 4
"""For teachers that do not say what an answer took. About right for English with the usual vocabularies of 100,000."""
REFUSAL = "refusal"
"""How an answer ends that says in the API's own field that there will be none."""


class Trouble(StrEnum):
    """Why a prompt got no answer, or none to learn from. Counted in the data set's report under these names."""

    RATE_LIMITED = "RateLimited"
    SERVER_ERROR = "ServerError"
    TIMED_OUT = "TimedOut"
    DISCONNECTED = "Disconnected"
    BAD_ANSWER = "BadAnswer"
    """No JSON, or not of the form that the API has."""
    NO_CHOICES = "NoChoices"
    CONTEXT_TOO_LONG = "ContextTooLong"
    FILTERED = "Filtered"
    """A content filter of the teacher's took offence, at the prompt or at the answer; or the teacher itself did."""
    REFUSED = "Refused"
    """Another definite no: 400, 403, 404, …"""
    CUT_SHORT = "CutShort"
    """The answer reached ``maxTokens``. A student would learn to stop in the middle."""
    EMPTY_ANSWER = "EmptyAnswer"
    NO_FINAL_ANSWER = "NoFinalAnswer"
    """The teacher thought aloud and came to nothing that could be read."""


PASSING = frozenset(
    (Trouble.RATE_LIMITED, Trouble.SERVER_ERROR, Trouble.TIMED_OUT, Trouble.DISCONNECTED, Trouble.BAD_ANSWER,
     Trouble.NO_CHOICES)
)  # fmt: skip
"""What says nothing of the teacher's worth: another attempt may get an answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, as the teacher gave it."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish: str = "stop"
    """Why it ends: ``stop``, ``length``, ``content_filter``, ``refusal``, or another word of the server's."""
    estimated: bool = False
    """The tokens are our estimate: the teacher sent no usage."""

    @property
    def trouble(self) -> Trouble | None:
        """Why nobody should learn from it."""
        if self.finish in ("content_filter", REFUSAL):
            return Trouble.FILTERED
        if self.finish == "length":
            return Trouble.CUT_SHORT
        return None if self.text.strip() else Trouble.EMPTY_ANSWER


@dataclass(frozen=True, slots=True)
class Question:
    """One request: what is asked, and which of several samples it is."""

    messages: tuple[dict[str, str], ...]
    seed: int
    key: str
    """Hash over all that shapes the answer: teacher, messages, sampling, seed. Equal questions have equal keys."""


def question(teacher: str, messages: tuple[dict[str, str], ...], sampling: Sampling, seed: int) -> Question:
    """A question to ``teacher``, an address by digest or a URL with the model's name."""
    asked: list[Any] = [teacher, messages, sampling.model_dump(mode="json", exclude={"samples"}), seed]
    text = json.dumps(asked, sort_keys=True, ensure_ascii=False)
    return Question(messages, seed, hashlib.sha256(text.encode()).hexdigest()[:40])


def estimated(text: str) -> int:
    """Tokens of a text, where the teacher does not say."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def stopped(text: str, stops: Iterable[str]) -> str:
    """A text up to the first of the stop texts in it."""
    for stop in stops:
        text = text.partition(stop)[0]
    return text
