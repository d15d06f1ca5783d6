"""How far a search is, read from its Jobs and their reports: there is nothing else that it is kept in. Pure.

Trials come in generations of ``parallelism``. Each generation's values are chosen by a Job that knows how all trials
before it ended; those ends are final, so every pass, also of an operator that was started anew, asks for the same Jobs.
"""

from dataclasses import dataclass
from typing import Literal

from slmops.api.search import Hyperparameter, Search, Value
from slmops.contract import Reason, Report, Tried
from slmops.jobs import JobState

NOT_BY_VALUES = {
    Reason.INVALID_CONFIGURATION, Reason.INVALID_DATA, Reason.SOURCE_UNREACHABLE, Reason.SOURCE_NOT_FOUND,
    Reason.SOURCE_UNAUTHORIZED, Reason.UNSAFE_SOURCE, Reason.EGRESS_REFUSED, Reason.LICENSE_REFUSED,
    Reason.UNSUPPORTED_MODEL, Reason.INVALID_TEMPLATE, Reason.BUDGET_EXCEEDED,
}  # fmt: skip
"""Reasons that no other values mend: every trial would fail for them, so the search waits for somebody to do something."""
Values = tuple[Value, ...]
"""Of the hyperparameters, in the order of the space."""


@dataclass(frozen=True)
class Row:
    """A trial whose values are known."""

    number: int
    job: str
    values: Values
    end: Tried | None = None
    """How it ended; None while it may still succeed."""

    @property
    def outcome(self) -> Literal["Open", "Succeeded", "Pruned", "Failed"]:
        """In one word."""
        if self.end is None:
            return "Open"
        if self.end.result is None:
            return "Failed"
        return "Pruned" if self.end.result.pruned else "Succeeded"

    @property
    def value(self) -> float | None:
        """By which it is compared, where it has succeeded."""
        return self.end.result.value if self.end and self.end.result and self.outcome == "Succeeded" else None


@dataclass(frozen=True)
class Searched:
    """The whole search as it is now."""

    rows: tuple[Row, ...] = ()
    choosing: str | None = None
    """The Job that chooses the next values, while they are not known."""
    page: str | None = None
    """Reference of the newest page on the trials."""

    @property
    def tried(self) -> tuple[Tried, ...]:
        """The trials that are over."""
        return tuple(row.end for row in self.rows if row.end is not None)

    def over(self, search: Search) -> bool:
        """Whether all trials have ended."""
        return len(self.tried) >= search.trials

    def improvements(self, search: Search) -> list[tuple[Row, float]]:
        """The trials that were better than all before them, by number, each with its value."""
        found: list[tuple[Row, float]] = []
        for row in self.rows:
            value = row.value
            if value is None:
                continue
            sign = 1 if search.objective.direction == "Minimize" else -1
            if not found or sign * value < sign * found[-1][1]:
                found.append((row, value))
        return found


def end(values: Values, state: JobState) -> Tried | None:
    """How a trial ended; None where it may still succeed, or failed for a reason that is not its values'."""
    if state.phase == "Succeeded" and state.report is not None and state.report.trial is not None:
        return Tried(parameters=values, result=state.report.trial)
    if state.phase == "Failed" and state.reason not in NOT_BY_VALUES:
        return Tried(parameters=values)
    return None


def answered(state: JobState) -> bool:
    """Whether a trial that succeeded says what it came to: a value, unless it was pruned."""
    found = state.report.trial if state.report else None
    return state.phase != "Succeeded" or (found is not None and (found.pruned or found.value is not None))


def suggested(report: Report | None, space: list[Hyperparameter], count: int) -> tuple[Values, ...] | None:
    """The values of so many trials; None where a report has others. What a pod says is untrusted."""
    found = report.suggestions if report else ()
    good = len(found) == count and all(
        len(values) == len(space) and all(p.holds(v) for p, v in zip(space, values, strict=True)) for values in found
    )
    return found if good else None
