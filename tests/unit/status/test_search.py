"""The status of a search: counts, the best, what it waits for, and what became of it."""

from typing import Any

from slmops.api.finetune import FineTuneStatus
from slmops.contract import Progress
from slmops.state import Observed
from slmops.status.finetune import finetune_status
from tests.unit.builders import DIGEST, NOW, RUNNING, facts, figures, pod, report, told
from tests.unit.searches import PRUNED, VALUES, Story, generation, searching, value

MEASURED = {"model": figures(0.9), "baseline": figures(0.6)}


def status_of(story: Story, observed: Observed | None = None) -> FineTuneStatus:
    return finetune_status(story.resource, observed or story.observed, story.plan, NOW)


def counts(status: FineTuneStatus) -> dict[str, Any]:
    assert status.trials is not None
    return status.trials.dump()


def run(story: Story, role: str, **spec: Any) -> None:
    """A Job of that role runs, or waits."""
    job = story.objects["Job", story.roles()[role]]
    job["spec"] |= spec
    if not spec:
        story.pods[job["metadata"]["name"]] = pod(job, state=RUNNING)


def test_without_a_search_there_is_none_in_the_status() -> None:
    status = status_of(Story(searching({"search": None})))
    assert (status.trials, status.best, status.search) == (None, None, None)


def test_while_values_are_chosen_the_search_has_begun() -> None:
    story = Story(searching())
    story.carry_out()
    status = status_of(story)
    assert (status.phase, facts(status)["Trained"]) == ("Searching", ("Unknown", "Searching"))
    assert counts(status) == {"succeeded": 0, "pruned": 0, "failed": 0, "running": 0, "of": 4}


def test_a_search_that_runs_tells_how_far_it_is_and_the_best_so_far() -> None:
    story = Story(searching(trials=6, parallelism=3))
    generation(story, value(0.512345), PRUNED, "TrainingDiverged")
    story.suggest()
    story.end({"trial-3": value(0.25)})
    run(story, "trial-4")
    progress = Progress(stage="Training", step=3, of=9)
    uid = story.pods[story.roles()["trial-4"]]["metadata"]["uid"]
    observed = story.observed
    status = status_of(story, Observed(observed.children, observed.pods, progress={uid: progress}))
    assert counts(status) == {"succeeded": 2, "pruned": 1, "failed": 1, "running": 2, "of": 6}
    assert status.phase == "Searching", "what a trial says of itself is not the whole"
    assert status.progress is not None
    assert status.progress.dump() == {"stage": "Searching", "step": 4, "of": 6, "unit": "Trials", "done": "4/6",
                                      "percent": 66}  # fmt: skip
    assert status.best is not None
    assert status.best.dump() == {"trial": 3, "parameters": {"learningRate": "0.004", "lora.rank": "16"}, "value": 0.25}
    assert status.search is not None
    assert status.search.dump() == {"curve": [{"trial": 0, "value": 0.5123}, {"trial": 3, "value": 0.25}]}
    assert facts(status)["Trained"] == ("Unknown", "Searching")
    assert told(status, "Trained") == (
        "4 of 6 trials are over (1 pruned, 1 failed); the best is trial 3 with evalLoss 0.25: learningRate 0.004, "
        "lora.rank 16"
    )
    assert facts(status)["Succeeded"] == ("Unknown", "Searching")


def test_trials_that_a_queue_holds_back_are_queued() -> None:
    story = Story(searching())
    for role in story.suggest():
        run(story, role, suspend=True)
    assert status_of(story).phase == "Queued"
    run(story, "trial-0", suspend=False)
    assert status_of(story).phase == "Searching"


def test_after_the_search_the_status_is_that_of_the_last_training_with_the_page_of_all_trials() -> None:
    story = Story(searching(trials=2))
    generation(story, value(0.5), value(0.25))
    run(story, "train")
    status = status_of(story)
    assert (status.phase, facts(status)["Trained"]) == ("Training", ("Unknown", "Running"))
    story.end({"train": report("adapter", "model", "search", evaluation=MEASURED)})
    status = status_of(story)
    assert (status.phase, facts(status)["Succeeded"]) == ("Succeeded", ("True", "Completed"))
    assert status.search is not None
    assert status.search.report == f"registry.example/slm/search@{DIGEST}"
    assert status.best is not None
    assert status.best.trial == 1
    assert status.adapter is not None
    assert status.evaluation["model"]["ExactMatch"] == 0.9
    assert counts(status) == {"succeeded": 2, "pruned": 0, "failed": 0, "running": 0, "of": 2}


def test_the_newest_page_is_shown_while_the_search_goes_on_and_after_it_failed() -> None:
    story = Story(searching(trials=3, parallelism=1))
    for number in range(3):
        pages = ("search",) if number == 1 else ()  # one that could not be published is no reason to forget the last
        story.carry_out()
        story.end({f"suggest-{number}": report(*pages, suggestions=(VALUES[number],))})
        found = status_of(story).search
        assert found is not None
        assert found.report == (f"registry.example/slm/search@{DIGEST}" if number else None)
        story.end({f"trial-{number}": "TrainingDiverged"})
    status = status_of(story)
    assert facts(status)["Trained"] == ("False", "SearchFailed")
    assert status.search is not None
    assert status.search.report == f"registry.example/slm/search@{DIGEST}"


def test_the_curve_stays_short_with_its_first_and_last_points() -> None:
    story = Story(searching(trials=20, parallelism=1, space=[{"name": "maxSteps", "choice": [7]}]))
    for number in range(20):
        story.carry_out()
        story.end({f"suggest-{number}": report(suggestions=((7,),))})
        story.end({f"trial-{number}": value(1 - number / 100)})
    status = status_of(story)
    assert status.search is not None
    assert [point.trial for point in status.search.curve] == [0, *range(5, 20)]


def test_a_search_that_came_to_nothing_fails_with_the_last_reason_and_a_remedy() -> None:
    story = Story(searching(trials=2))
    generation(story, "OutOfMemory", "TrainingDiverged")
    status = status_of(story)
    assert (status.phase, facts(status)["Trained"]) == ("Failed", ("False", "SearchFailed"))
    text = told(status, "Succeeded")
    assert text.startswith("none of 2 trials came to a value; the last one: TrainingDiverged: for a test.")
    assert "Narrow spec.search.space" in text
    assert counts(status)["failed"] == 2


def test_a_reason_that_no_values_mend_is_told_with_the_trial_and_its_remedy() -> None:
    story = Story(searching())
    first, second = story.suggest()
    story.end({first: value(0.5), second: "SourceNotFound"})
    status = status_of(story)
    assert (status.phase, facts(status)["Trained"]) == ("Failed", ("False", "SourceNotFound"))
    assert told(status, "Trained").startswith("trial 1: for a test. Check repository, tag and path")
    assert counts(status) == {"succeeded": 1, "pruned": 0, "failed": 0, "running": 0, "of": 4}


def test_a_budget_that_is_spent_stops_the_search() -> None:
    story = Story(searching())
    first, _ = story.suggest()
    halted = Observed(story.observed.children, story.observed.pods, halted={story.roles()[first]: "spent"})
    assert facts(status_of(story, halted))["Trained"] == ("False", "BudgetExceeded")


def test_values_that_cannot_be_chosen_are_told() -> None:
    story = Story(searching())
    story.carry_out()
    story.end({"suggest-0": "InternalError"})
    status = status_of(story)
    assert facts(status)["Trained"] == ("False", "InternalError")
    assert told(status, "Trained").startswith("choosing the next values: for a test")
