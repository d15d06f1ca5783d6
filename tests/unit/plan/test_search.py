"""A search -> trials generation by generation, each chosen by what came of all before; then one training with the best."""

import itertools
from typing import Any

import pytest
from pydantic import ValidationError

from slmops.api.search import Search
from slmops.contract import TrialResult
from slmops.search import Searched
from slmops.state import ANNOTATION_RETRY
from tests.unit.builders import SETTINGS, report
from tests.unit.searches import PRUNED, SPACE, Story, generation, searching, value


def test_the_first_values_are_chosen_before_anything_is_trained() -> None:
    story = Story(searching({"run": {"resources": {"limits": {"nvidia.com/gpu": 1}}}}, sampler="Random", seed=7))
    story.carry_out()
    assert list(story.roles()) == ["suggest-0"]
    told = story.told("suggest-0")
    assert (told["type"], told["count"], told["search"]["tried"]) == ("Suggest", 2, [])
    assert (told["search"]["sampler"], told["search"]["seed"], told["search"]["pruner"]) == ("Random", 7, "Median")
    assert [p["name"] for p in told["search"]["space"]] == ["learningRate", "lora.rank"]
    assert told["search"]["space"][1]["choice"] == [8, 16]
    (container,) = story.objects["Job", story.roles()["suggest-0"]]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == SETTINGS.images.trainer
    assert "nvidia.com/gpu" not in container["resources"]["limits"], "it computes for a second"


def test_a_trial_trains_with_its_values_and_everything_else_as_the_spec_says() -> None:
    story = Story(searching({"training": {"epochs": 2}, "lora": {"alpha": 9}, "baseTask": {"uri": "oci://a/b:c"}}))
    assert story.suggest() == ["trial-0", "trial-1"]
    told = story.told("trial-1")
    assert (told["hyperparameters"]["learning_rate"], told["hyperparameters"]["epochs"]) == (2e-3, 2)
    assert (told["lora"]["rank"], told["lora"]["alpha"]) == (16, 9)
    assert (told["trial"]["number"], told["trial"]["search"]["tried"]) == (1, [])
    assert (told["merge"], told["base_task"], told["searched"]) == (False, None, None)


def test_a_trial_measures_what_it_is_compared_by_and_the_last_training_everything() -> None:
    story = Story(searching(trials=1))
    story.end({story.suggest()[0]: value(0.5)})
    assert story.told("trial-0")["evaluation"]["metrics"] == []
    assert {"ExactMatch", "F1", "PeakMemory"} <= set(story.told("train")["evaluation"]["metrics"])


def test_every_hyperparameter_that_can_be_searched_reaches_its_field() -> None:
    values: dict[str, Any] = {"learningRate": 0.5, "batchSize": 3, "epochs": 4, "maxSteps": 5, "warmupRatio": 0.25,
              "weightDecay": 0.125, "scheduler": "Linear", "gradientAccumulation": 6, "lora.rank": 7, "lora.alpha": 11,
              "lora.dropout": 0.75}  # fmt: skip
    space = [{"name": name, "choice": [str(v) if isinstance(v, float) else v]} for name, v in values.items()]
    story = Story(searching(space=space, trials=1, parallelism=1))
    story.carry_out()
    story.end({"suggest-0": report(suggestions=(tuple(values.values()),))})
    told = story.told("trial-0")
    found = told["hyperparameters"] | {f"lora.{name}": v for name, v in told["lora"].items()}
    assert {"learning_rate": 0.5, "batch_size": 3, "epochs": 4, "max_steps": 5, "warmup_ratio": 0.25,
            "weight_decay": 0.125, "scheduler": "Linear", "gradient_accumulation": 6, "lora.rank": 7, "lora.alpha": 11,
            "lora.dropout": 0.75}.items() <= found.items()  # fmt: skip


def test_the_next_values_wait_for_all_trials_and_know_how_they_ended() -> None:
    story = Story(searching())
    first, second = story.suggest()
    story.end({second: "TrainingDiverged"})
    assert "suggest-1" not in story.roles()
    story.end({first: value(0.5, 0.9, 0.5)})
    assert list(story.roles()) == ["suggest-0", "trial-0", "trial-1", "suggest-1"]
    assert story.told("suggest-1")["search"]["tried"] == [
        {"parameters": [1e-3, 8], "result": {"value": 0.5, "pruned": False, "measured": [0.9, 0.5]}},
        {"parameters": [2e-3, 16], "result": None},
    ]
    assert story.suggest() == ["trial-2", "trial-3"]


def test_whoever_chooses_the_next_values_shows_the_trials_before_and_is_the_same_job_wherever_that_goes() -> None:
    first, second = (Story(searching({"output": {"repository": f"registry.example/{name}"}})) for name in "ab")
    for story in (first, second):
        generation(story, value(0.5), value(0.25))
    assert first.told("suggest-0")["page"] is None, "there is nothing to show yet"
    assert first.told("suggest-1")["page"]["repository"] == "registry.example/a"
    assert second.told("suggest-1")["page"]["repository"] == "registry.example/b"
    assert first.roles()["suggest-1"] == second.roles()["suggest-1"]


def test_after_the_last_trial_the_best_values_are_trained_with_as_without_a_search() -> None:
    story = Story(searching(trials=3))
    generation(story, value(0.5), value(0.25))
    generation(story, value(0.75))
    assert list(story.roles())[-2:] == ["trial-2", "train"]
    told = story.told("train")
    assert (told["hyperparameters"]["learning_rate"], told["lora"]["rank"], told["merge"]) == (2e-3, 16, True)
    assert told["trial"] is None
    assert [tried["result"]["value"] for tried in told["searched"]["tried"]] == [0.5, 0.25, 0.75]
    story.end({"train": report("adapter", "model", "search")})
    assert (story.plan.apply, story.plan.remove, story.plan.deadline) == ((), (), None)


def test_the_greatest_value_is_the_best_where_that_is_wanted_and_the_earlier_of_two_equal_ones() -> None:
    story = Story(searching(trials=2, objective={"metric": "ExactMatch", "direction": "Maximize"}, pruner="None"))
    generation(story, value(0.5), value(0.75))
    assert story.told("train")["lora"]["rank"] == 16
    story = Story(searching(trials=2))
    generation(story, value(0.5), value(0.5))
    assert story.told("train")["lora"]["rank"] == 8


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_order_in_which_trials_end_changes_nothing(order: tuple[int, ...]) -> None:
    ends = [value(0.5), "OutOfMemory", PRUNED]
    story = Story(searching(trials=4, parallelism=3))
    trials = story.suggest()
    story.end({trials[at]: ends[at] for at in order})
    other = Story(searching(trials=4, parallelism=3))
    generation(other, *ends)
    assert story.roles() == other.roles()


def test_an_operator_that_was_started_anew_asks_for_the_same_jobs_at_every_step() -> None:
    """Nothing is remembered but the Jobs, whose pods may be gone too."""
    story = Story(searching())
    steps = [lambda: story.carry_out(), lambda: generation(story, value(0.5), "TrainingDiverged"), story.suggest,
             lambda: story.end({"trial-2": PRUNED}), lambda: story.end({"trial-3": value(0.25)})]  # fmt: skip
    for step in steps:
        step()
        before = story.roles()
        story.pods.clear()
        plan = story.carry_out()
        assert story.roles() == before
        assert [m for m in plan.apply if m["kind"] == "Job"] == []
        assert plan.remove == ()
    assert list(story.roles())[-1] == "train"


def test_more_trials_go_on_where_the_search_ended() -> None:
    story = Story(searching(trials=2))
    generation(story, value(0.5), value(0.25))
    jobs = story.roles()
    story.resource = searching(trials=4)
    assert story.roles().items() >= {role: jobs[role] for role in ("suggest-0", "trial-0", "trial-1")}.items()
    assert list(story.roles())[-1] == "suggest-1"


def test_a_trial_that_failed_is_not_tried_again_with_what_came_after_it() -> None:
    story = Story(searching(trials=2))
    generation(story, value(0.5), "TrainingDiverged")
    story.end({"train": "OutOfMemory"})
    metadata = story.resource.metadata.model_copy(update={"annotations": {ANNOTATION_RETRY: "1"}})
    story.resource = story.resource.model_copy(update={"metadata": metadata})
    assert [job["metadata"]["name"] for job in story.plan.remove] == [story.roles()["train"]]


def test_where_all_failed_all_are_tried_again() -> None:
    story = Story(searching(trials=2))
    generation(story, "TrainingDiverged", "OutOfMemory")
    assert "train" not in story.roles()
    metadata = story.resource.metadata.model_copy(update={"annotations": {ANNOTATION_RETRY: "1"}})
    story.resource = story.resource.model_copy(update={"metadata": metadata})
    removed = {job["metadata"]["name"] for job in story.plan.remove}
    assert removed == {story.roles()[role] for role in ("trial-0", "trial-1")}


@pytest.mark.parametrize("reason", ["SourceNotFound", "InvalidData", "BudgetExceeded"])
def test_a_reason_that_no_values_mend_stops_the_search_until_it_is_tried_again(reason: str) -> None:
    story = Story(searching())
    first, second = story.suggest()
    story.end({first: value(0.5), second: reason})
    assert list(story.roles()) == ["suggest-0", "trial-0", "trial-1"]
    assert isinstance(story.plan.detail, Searched)
    assert [row.outcome for row in story.plan.detail.rows] == ["Succeeded", "Open"]


@pytest.mark.parametrize(
    "suggestions",
    [(), ((1e-3, 8),), ((1e-3, 8), (2e-3, 9)), ((1e-3, 8), (2.0, 16)), ((1e-3, 8), (1e-3,)), ((1e-3, 8), ("x", 8))],
)
def test_values_that_are_not_of_the_space_are_not_trained_with(suggestions: Any) -> None:
    """What a pod says is untrusted."""
    story = Story(searching())
    story.carry_out()
    story.end({"suggest-0": report(suggestions=suggestions)})
    assert list(story.roles()) == ["suggest-0"]
    assert story.plan.problem is not None
    assert story.plan.problem.reason == "AnswerMissing"
    assert story.roles()["suggest-0"] in story.plan.problem.message


@pytest.mark.parametrize("end", [report("model"), report(trial=TrialResult())])
def test_a_trial_that_says_nothing_of_its_value_is_named(end: Any) -> None:
    """An image of an older version trains and publishes, and knows no trials."""
    story = Story(searching())
    first, _ = story.suggest()
    story.end({first: end})
    assert story.plan.problem is not None
    assert (story.plan.problem.reason, story.plan.remove) == ("AnswerMissing", ())


def test_a_base_that_is_not_there_is_waited_for_and_no_trial_is_lost() -> None:
    story = Story(searching({"base": {"distillation": {"name": "student"}}}))
    story.carry_out()
    story.end({"suggest-0": report(suggestions=((1e-3, 8), (2e-3, 16)))})
    assert story.plan.problem is not None
    assert story.plan.problem.reason == "ReferenceNotFound"
    assert story.plan.remove == ()


BAD = [
    ({"name": "learningRate", "log": {"min": 0.1, "max": 2}}, "learningRate cannot be 2.0"),
    ({"name": "lora.rank", "choice": [8, 0]}, "lora.rank cannot be 0"),
    ({"name": "lora.rank", "choice": [8, "many"]}, "choice of lora.rank: each has to be a whole number"),
    ({"name": "warmupRatio", "choice": ["0.1", "x"]}, "choice of warmupRatio: each has to be a number"),
    ({"name": "scheduler", "choice": ["Cosine", "Sine"]}, "scheduler cannot be Sine"),
    ({"name": "lora.dropout", "uniform": {"min": 0, "max": 1}}, "lora.dropout cannot be 1.0"),
]


@pytest.mark.parametrize(("dimension", "text"), BAD, ids=[text for _, text in BAD])
def test_values_that_the_field_cannot_have_are_refused_with_its_name(dimension: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        Search.model_validate({"space": [dimension]})
    assert Search.model_validate({"space": SPACE}).trials == 20
