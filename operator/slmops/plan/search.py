"""A search -> the Jobs of its trials, generation by generation, and of those that choose their values; then one training
with the best, as without a search."""

from collections.abc import Iterator
from dataclasses import replace

from slmops import contract
from slmops.api.conditions import ConditionType
from slmops.api.finetune import FineTune, FineTuneSpec
from slmops.api.lora import Lora
from slmops.api.run import RunSpec
from slmops.api.search import LORA, Search
from slmops.api.training import Training
from slmops.plan.adaptation import TRAIN, signed_training, training
from slmops.plan.batch import batch_plan
from slmops.plan.job import Work, work
from slmops.plan.sources import Sources, Unresolved
from slmops.search import Row, Searched, Values, answered, end, suggested
from slmops.settings import Settings
from slmops.state import Observed, Plan, Problem


def plan_search(resource: FineTune, search: Search, observed: Observed, settings: Settings) -> Plan:
    """The Jobs that the FineTune needs now."""
    hunt = _Hunt(resource, search, observed, settings)
    works: list[Work] = []
    problem = None
    try:
        for item in hunt.works():
            works.append(item)  # those before one that cannot be described stay
        works += signed_training(resource, works, observed, settings)
    except Unresolved as unresolved:
        problem = unresolved.problem
    searched = hunt.searched
    # A trial that failed is part of what the later ones were chosen by: none is tried again, unless nothing came of any.
    lost = searched.over(search) and not searched.improvements(search)
    settled = set() if lost else {row.job for row in searched.rows if row.outcome == "Failed"}
    return replace(batch_plan(resource, observed, works, problem, settled), detail=searched)


def with_values(spec: FineTuneSpec, search: Search, values: Values) -> FineTuneSpec:
    """The spec of one training of the search."""
    chosen = {p.name: value for p, value in zip(search.space, values, strict=True)}
    lora = {name.removeprefix(LORA): value for name, value in chosen.items() if name.startswith(LORA)}
    plain = {name: value for name, value in chosen.items() if not name.startswith(LORA)}
    own = {"training": Training.model_validate(spec.training.dump() | plain), "search": None}
    adapter = {"lora": Lora.model_validate((spec.lora or Lora()).dump() | lora)} if lora else {}
    return spec.model_copy(update=own | adapter)


class _Hunt:
    """One pass over the search."""

    def __init__(self, resource: FineTune, search: Search, observed: Observed, settings: Settings) -> None:
        self._resource, self._search, self._observed, self._settings = resource, search, observed, settings
        self.searched = Searched()

    def works(self) -> Iterator[Work]:
        """All that is wanted now. Raises Unresolved where that cannot be described."""
        search, generation = self._search, 0
        while not self.searched.over(search):
            count = min(search.parallelism, search.trials - len(self.searched.rows))
            told = self._told()
            suggest = self._suggest(f"suggest-{generation}", told, count)
            yield suggest
            self.searched = replace(self.searched, choosing=suggest.step.name)
            state = self._observed.job(suggest.step.name)
            if state.phase != "Succeeded":
                return
            chosen = suggested(state.report, search.space, count)
            if chosen is None:
                raise _no_answer(suggest.step.name)
            page = state.report.artifacts.get("search") if state.report else None
            self.searched = replace(self.searched, choosing=None, page=page.reference if page else self.searched.page)
            yield from self._trials(told, chosen)
            if any(row.end is None for row in self.searched.rows):
                return
            generation += 1
        found = self.searched.improvements(search)
        if found:
            yield self._last(found[-1][0].values)

    def _trials(self, told: contract.Search, chosen: tuple[Values, ...]) -> Iterator[Work]:
        spec, first = self._resource.spec, len(self.searched.rows)
        quick = spec.model_copy(update={"base_task": None, "merge": False})
        for number, values in enumerate(chosen, first):
            trial = contract.Trial(number=number, search=told)
            item = training(self._resource, f"trial-{number}", with_values(quick, self._search, values), self._observed,
                            self._settings, trial=trial)  # fmt: skip
            yield item
            state = self._observed.job(item.step.name)
            if not answered(state):
                raise _no_answer(item.step.name)
            row = Row(number, item.step.name, values, end(values, state))
            self.searched = replace(self.searched, rows=(*self.searched.rows, row))

    def _last(self, values: Values) -> Work:
        spec = with_values(self._resource.spec, self._search, values)
        return training(self._resource, TRAIN, spec, self._observed, self._settings, searched=self._told())

    def _told(self) -> contract.Search:
        search = self._search
        return contract.Search(
            metric=search.objective.metric,
            direction=search.objective.direction,
            sampler=search.sampler,
            pruner=search.pruner,
            seed=search.seed,
            space=tuple(
                contract.Hyperparameter.model_validate(p.model_dump(exclude={"choice"}) | {"choice": p.choices})
                for p in search.space
            ),
            tried=self.searched.tried,
        )

    def _suggest(self, role: str, told: contract.Search, count: int) -> Work:
        """It computes for a second, so it gets no GPU and no volume."""
        place = RunSpec.model_validate(self._resource.spec.run.model_dump(exclude={"resources", "runtime_class_name"}))
        sources = Sources(self._observed)
        page = sources.sink(self._resource.spec.output) if told.tried else None
        run = contract.SuggestRun(run="", search=told, count=count, page=page)
        return work(self._resource, role, run, image=self._settings.images.trainer, run_spec=place, sources=sources,
                    settings=self._settings)  # fmt: skip


def _no_answer(job: str) -> Unresolved:
    text = (
        f"the Job {job} reports success and nothing that the search can use; install images of the operator's version, "
        "then delete it"
    )
    return Unresolved(Problem(ConditionType.INPUTS_RESOLVED, "AnswerMissing", text))
