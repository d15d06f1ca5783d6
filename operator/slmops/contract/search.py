"""A search for hyperparameters: what can be tried, what was, and which values are to be tried next.

Nothing is kept anywhere but in the Jobs and their reports: whoever goes on with a search is told all of it.
"""

from typing import Literal

from slmops.contract.base import Message
from slmops.contract.report import TrialResult, Value
from slmops.contract.sources import Run, Sink


class Span(Message):
    """Numbers between two bounds, both among them."""

    min: float
    max: float


class Hyperparameter(Message):
    """Something to try: exactly one of the rest is set."""

    name: str
    log: Span | None = None
    uniform: Span | None = None
    integer: Span | None = None
    choice: tuple[Value, ...] = ()


class Tried(Message):
    """A trial that is over."""

    parameters: tuple[Value, ...]
    """In the order of the space."""
    result: TrialResult | None = None
    """Absent: it failed."""


class Search(Message):
    """What is searched for, and all trials so far, by number from 0."""

    metric: Literal["evalLoss", "ExactMatch"] = "evalLoss"
    direction: Literal["Minimize", "Maximize"] = "Minimize"
    sampler: Literal["TPE", "Random"] = "TPE"
    pruner: Literal["Median", "Hyperband", "None"] = "Median"
    seed: int = 42
    space: tuple[Hyperparameter, ...]
    tried: tuple[Tried, ...] = ()


class Trial(Message):
    """A training that is a trial: it reports a ``TrialResult`` and publishes nothing."""

    number: int
    """Those between the last of ``search.tried`` and this one run beside it."""
    search: Search


class SuggestRun(Run):
    """Choose the values of the next trials, and report them as ``suggestions``."""

    type: Literal["Suggest"] = "Suggest"
    search: Search
    count: int
    page: Sink | None = None
    """Where a page on the trials so far is published."""
