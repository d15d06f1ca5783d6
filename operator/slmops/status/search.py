"""The status of a search: how many trials there are of each kind, the best one, and what the search waits for."""

from collections import Counter
from dataclasses import dataclass

from slmops.api.batch import ProgressStatus
from slmops.api.conditions import ConditionType, Fact, false, unknown
from slmops.api.search import BestTrial, Search, SearchPoint, SearchStatus, TrialCounts
from slmops.contract import Report
from slmops.figures import significant
from slmops.search import Row, Searched
from slmops.state import JobState, Observed, Plan
from slmops.status.remedies import with_remedy

SEARCHING = "Searching"
MOST_POINTS = 16


def hunt_of(search: Search | None, observed: Observed, plan: Plan) -> "Hunt | None":
    """The search of this pass, where there is one."""
    if search is None or not isinstance(plan.detail, Searched):
        return None
    return Hunt(search, plan.detail, observed)


@dataclass(frozen=True)
class Hunt:
    """A search, and what its Jobs do now."""

    search: Search
    searched: Searched
    observed: Observed

    @property
    def over(self) -> bool:
        """Whether the search has led to the last training."""
        return self.searched.over(self.search) and self._best() is not None

    def counts(self) -> TrialCounts:
        """How many trials there are of each kind."""
        found = Counter(row.outcome for row in self.searched.rows)
        under_way = sum(not self.observed.job(row.job).failing for row in self._open())
        return TrialCounts(succeeded=found["Succeeded"], pruned=found["Pruned"], failed=found["Failed"],
                           running=under_way, of=self.search.trials)  # fmt: skip

    def best(self) -> BestTrial | None:
        """The best trial so far."""
        found = self._best()
        if found is None:
            return None
        row, value = found
        named = zip(self.search.space, row.values, strict=True)
        return BestTrial(trial=row.number, parameters={p.name: str(value) for p, value in named},
                         value=significant(value))  # fmt: skip

    def status(self, last: Report | None) -> SearchStatus:
        """The curve, and the newest page: the last training's, until then that of whoever chose values last."""
        points = [SearchPoint(trial=row.number, value=significant(value))
                  for row, value in self.searched.improvements(self.search)]  # fmt: skip
        page = last.artifacts.get("search") if last else None
        curve = points if len(points) <= MOST_POINTS else [points[0], *points[1 - MOST_POINTS :]]
        return SearchStatus(curve=curve, report=page.reference if page else self.searched.page)

    def trained(self) -> Fact:
        """Trained, while it is not known with which values: False where nothing goes on by itself."""
        for name, state in self._jobs():
            if state.failing:
                return false(ConditionType.TRAINED, state.reason, with_remedy(state.reason, f"{name}: {state.message}"))
        if self.searched.over(self.search):
            last = self.observed.job(self.searched.rows[-1].job)
            text = f"none of {self.search.trials} trials came to a value; the last one: {last.reason}: {last.message}"
            return false(ConditionType.TRAINED, "SearchFailed", with_remedy("SearchFailed", text))
        return unknown(ConditionType.TRAINED, SEARCHING, self._told())

    def running(self) -> tuple[JobState, str]:
        """The Job that stands for all, and the phase while it runs. What a trial says of itself is not the whole."""
        states = [state for _, state in self._jobs()]
        queued = bool(states) and all(state.phase == "Queued" for state in states)
        return JobState("Queued" if queued else "Running"), SEARCHING

    def progress(self) -> ProgressStatus:
        """How many trials are over."""
        done, of = len(self.searched.tried), self.search.trials
        return ProgressStatus(stage=SEARCHING, step=done, of=of, unit="Trials", done=f"{done}/{of}",
                              percent=100 * done // of)  # fmt: skip

    def _best(self) -> tuple[Row, float] | None:
        found = self.searched.improvements(self.search)
        return found[-1] if found else None

    def _open(self) -> list[Row]:
        return [row for row in self.searched.rows if row.end is None]

    def _jobs(self) -> list[tuple[str, JobState]]:
        """What the search waits for."""
        choosing = [("choosing the next values", self.searched.choosing)] if self.searched.choosing else []
        trials = [(f"trial {row.number}", row.job) for row in self._open()]
        return [(name, self.observed.job(job)) for name, job in choosing + trials]

    def _told(self) -> str:
        counts, best = self.counts(), self.best()
        done = f"{len(self.searched.tried)} of {counts.of} trials are over"
        kinds = [f"{count} {word}" for word, count in (("pruned", counts.pruned), ("failed", counts.failed)) if count]
        told = f"{done} ({', '.join(kinds)})" if kinds else done
        if best is None:
            return told
        values = ", ".join(f"{name} {value}" for name, value in best.parameters.items())
        return f"{told}; the best is trial {best.trial} with {self.search.objective.metric} {best.value:g}: {values}"
