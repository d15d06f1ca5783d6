"""A search with the real Optuna: it is played again from what is told, chooses, prunes, and shows all trials."""

import json
from pathlib import Path
from typing import Any

import pytest

from slm_trainer.search import suggest as suggesting
from slm_trainer.search.page import write_page
from slm_trainer.search.referee import MOST, Referee
from slm_trainer.search.study import replayed
from slm_trainer.search.suggest import suggest
from slmkit.reporting import write_report
from slmkit.run import Context
from slmops.contract import (
    REPORT_LIMIT,
    REPORT_TYPE,
    Report,
    Search,
    Sink,
    SuggestRun,
    Trial,
    TrialResult,
    Tried,
    Value,
)
from tests.unit.images.fakeregistry import Answer, FakeRegistry

SPACE: list[dict[str, Any]] = [
    {"name": "learningRate", "log": {"min": 1e-5, "max": 1e-2}},
    {"name": "lora.rank", "choice": [8, 16]},
    {"name": "batchSize", "integer": {"min": 2, "max": 9}},
    {"name": "warmupRatio", "uniform": {"min": 0, "max": 0.3}},
    {"name": "scheduler", "choice": ["Linear", "Cosine"]},
]


def search(*tried: Tried, **fields: Any) -> Search:
    return Search.model_validate({"space": SPACE, "tried": tried} | fields)


def tried(rate: float, value: float | None = None, *measured: float, pruned: bool = False) -> Tried:
    """A trial; failed without a value, unless it was pruned."""
    result = TrialResult(value=value, pruned=pruned, measured=measured) if pruned or value is not None else None
    return Tried(parameters=(rate, 8, 4, 0.1, "Linear"), result=result)


def chosen(wanted: Search, count: int, tmp_path: Path) -> tuple[tuple[Value, ...], ...]:
    return suggest(SuggestRun(run="r", search=wanted, count=count), Context(work=tmp_path)).suggestions


GOOD_AT_1E3 = [tried(rate, abs(rate - 1e-3) * 1000) for rate in (1e-5, 1e-4, 5e-4, 9e-4, 1e-3, 2e-3, 5e-3, 9e-3) * 3]


@pytest.mark.parametrize("sampler", ["TPE", "Random"])
def test_values_lie_in_the_space_and_the_same_seed_gives_the_same(sampler: str, tmp_path: Path) -> None:
    wanted = search(*GOOD_AT_1E3, tried(0.003), sampler=sampler)
    found = chosen(wanted, 4, tmp_path)
    assert len(set(found)) == 4
    for rate, rank, size, warmup, scheduler in found:
        assert isinstance(rate, float)
        assert 1e-5 <= rate <= 1e-2
        assert rate == float(f"{rate:.4g}"), "people write it into a spec"
        assert (rank in (8, 16), size in range(2, 10), scheduler in ("Linear", "Cosine")) == (True, True, True)
        assert isinstance(warmup, float)
        assert 0 <= warmup <= 0.3
    assert chosen(wanted, 4, tmp_path) == found
    assert chosen(wanted.model_copy(update={"seed": 43}), 4, tmp_path) != found


@pytest.mark.parametrize("sampler", ["TPE", "Random"])
def test_generations_draw_other_values_though_each_has_a_sampler_of_its_own(sampler: str, tmp_path: Path) -> None:
    first = chosen(search(sampler=sampler), 2, tmp_path)
    ended = [Tried(parameters=values, result=TrialResult(value=1.0)) for values in first]
    second = chosen(search(*ended, sampler=sampler), 2, tmp_path)
    assert not set(first) & set(second)


def test_tpe_goes_where_trials_were_good(tmp_path: Path) -> None:
    rates = [float(values[0]) for values in chosen(search(*GOOD_AT_1E3), 16, tmp_path)]
    near = [rate for rate in rates if 3e-4 < rate < 3e-3]
    assert len(near) > len(rates) / 2, "a third of the space, by its logarithm"


def test_the_most_suggestions_fit_into_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("learningRate", "warmupRatio", "weightDecay", "lora.dropout", "epochs", "maxSteps", "batchSize",
             "gradientAccumulation", "lora.rank", "lora.alpha", "scheduler")  # fmt: skip
    span = {"log": {"min": 1.234e-7, "max": 0.1}}
    space = [{"name": n} | (span if at < 10 else {"choice": ["WarmupStableDecay"]}) for at, n in enumerate(names)]
    monkeypatch.setenv("TERMINATION_PATH", str(tmp_path / "report"))
    made = suggest(SuggestRun(run="r", search=search(space=space), count=16), Context(work=tmp_path))
    assert write_report(made) == made
    assert len((tmp_path / "report").read_bytes()) < REPORT_LIMIT
    assert Report.model_validate(json.loads((tmp_path / "report").read_text())) == made


RESOURCE = {"slmops.dev/kind": "FineTune", "slmops.dev/name": "farm"}


def shown(wanted: Search, registry: FakeRegistry, tmp_path: Path) -> Report:
    """What is reported by whoever chooses values and has where to publish a page."""
    sink = Sink(repository=f"{registry.host}/slm/assistant")
    run = SuggestRun(run="farm-suggest-1", search=wanted, count=2, page=sink, registry=registry.settings,
                     annotations=RESOURCE)  # fmt: skip
    return suggest(run, Context(work=tmp_path))


@pytest.mark.parametrize(
    ("trials", "words"),
    [
        ([tried(1e-3, 0.5), tried(1e-2)], "Trial 0 of 2 is the best."),
        ([tried(1e-3), tried(1e-4, None, 2.0, pruned=True)], "None of 2 trials has come to a value."),
    ],
)
def test_the_trials_so_far_are_published_when_values_are_chosen(
    trials: list[Tried], words: str, registry: FakeRegistry, tmp_path: Path
) -> None:
    made = shown(search(*trials), registry, tmp_path)
    assert made.suggestions == chosen(search(*trials), 2, tmp_path)
    manifest = registry.manifest("slm/assistant", made.artifacts["search"].reference.partition("@")[2])
    assert (manifest["artifactType"], manifest["annotations"]) == (REPORT_TYPE, RESOURCE)
    html = (tmp_path / "search-page" / "search.html").read_text()
    assert words in html
    assert ("<svg" in html) == ("best" in words)


def test_before_the_first_trial_there_is_nothing_to_publish(registry: FakeRegistry, tmp_path: Path) -> None:
    assert shown(search(), registry, tmp_path).artifacts == {}


def test_a_search_goes_on_without_a_page_that_cannot_be_published(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.always("POST ", Answer(403))
    made = shown(search(tried(1e-3, 0.5)), registry, tmp_path)
    assert (made.outcome, len(made.suggestions), made.artifacts) == ("Succeeded", 2, {})


def test_where_a_report_has_no_room_for_both_the_values_go_before_the_page(
    registry: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suggesting, "ROOM", REPORT_LIMIT)
    made = shown(search(tried(1e-3, 0.5)), registry, tmp_path)
    assert (len(made.suggestions), made.artifacts) == (2, {})


def test_a_study_knows_what_it_would_know_had_it_been_there() -> None:
    study = replayed(search(tried(1e-3, 0.5, 0.9, 0.6), tried(1e-2), tried(1e-4, None, 2.0, pruned=True)))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "PRUNED"]
    assert study.best_trial.params["learningRate"] == 1e-3
    assert study.trials[0].intermediate_values == {1: 0.9, 2: 0.6}
    assert study.trials[2].value == 2.0
    assert replayed(search(tried(1e-3, 0.5), tried(1e-2, 0.7), direction="Maximize")).best_value == 0.7


FIVE = [tried(1e-3, 0.1, 0.9, 0.5, 0.1) for _ in range(5)]


def test_a_trial_that_is_worse_than_the_median_is_ended_once_five_have_been_trained() -> None:
    bad, good = Referee(Trial(number=6, search=search(*FIVE))), Referee(Trial(number=5, search=search(*FIVE)))
    assert not bad.ends([0.9], last=False)
    assert bad.ends([0.9, 0.8], last=False)
    assert bad.result(0.8) == TrialResult(pruned=True, measured=(0.9, 0.8))
    assert not any(good.ends(losses, last=False) for losses in ([0.8], [0.8, 0.4]))
    assert not good.ends([0.8, 0.4, 0.05], last=True)
    assert good.result(0.05) == TrialResult(value=0.05, measured=(0.8, 0.4, 0.05))
    assert not Referee(Trial(number=4, search=search(*FIVE[1:]))).ends([9.0, 9.0], last=False)
    assert not Referee(Trial(number=5, search=search(*FIVE, pruner="None"))).ends([9.0, 9.0], last=False)


def test_what_is_trained_to_its_end_counts_as_that() -> None:
    referee = Referee(Trial(number=5, search=search(*FIVE)))
    assert not referee.ends([9.0], last=True)
    assert referee.result(9.0).value == 9.0


def test_another_attempt_of_a_trial_is_judged_by_all_its_measurements() -> None:
    again = Referee(Trial(number=5, search=search(*FIVE)))
    assert again.ends([0.9, 0.8], last=False)
    assert again.result(None).measured == (0.9, 0.8)


def test_another_attempt_with_nothing_left_to_train_says_what_was_measured() -> None:
    trained, ended, other = (Referee(Trial(number=5, search=search(*FIVE))) for _ in range(3))
    trained.resume([9.0, 8.0], pruned=False)
    assert trained.result(8.0) == TrialResult(value=8.0, measured=(9.0, 8.0))
    ended.resume([0.9, 0.8], pruned=True)
    assert ended.result(None) == TrialResult(pruned=True, measured=(0.9, 0.8))
    other.resume([0.9], pruned=False)
    assert other.ends([0.9, 0.8], last=False), "what comes after is judged"


def test_hyperband_ends_trials_by_those_that_came_as_far() -> None:
    losses = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]
    past = [tried(1e-3, losses[-1], *losses) for _ in range(9)]
    bad = {number: Referee(Trial(number=number, search=search(*past, pruner="Hyperband"))) for number in range(9, 20)}
    ended = {number for number, referee in bad.items() if referee.ends([5.0] * 8, last=False)}
    assert ended
    assert ended < bad.keys(), "some brackets look later than others, so that slow starters get a chance"
    good = [Referee(Trial(number=number, search=search(*past, pruner="Hyperband"))) for number in ended]
    assert not any(referee.ends([0.1], last=False) for referee in good)


def test_only_as_many_measurements_are_looked_at_as_fit_into_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    referee = Referee(Trial(number=0, search=search()))
    referee.ends([1.0 / 3 + n for n in range(MOST)] + [1e9] * 9, last=True)
    made = Report(outcome="Succeeded", trial=referee.result(0.123456))
    assert made.trial is not None
    assert len(made.trial.measured) == MOST
    monkeypatch.setenv("TERMINATION_PATH", str(tmp_path / "report"))
    assert write_report(made) == made


def test_the_page_shows_all_trials_and_the_best_and_is_the_same_again(tmp_path: Path) -> None:
    wanted = search(tried(1e-3, 0.5, 0.9), tried(1e-2), tried(1e-4, None, 2.0, pruned=True), tried(2e-3, 0.25))
    files = write_page(wanted, "farm<b>", tmp_path / "page")
    assert files.keys() == {"search.html", "search.json"}
    found = json.loads(files["search.json"].read_text())
    assert found["best"] == 3
    assert [row["outcome"] for row in found["trials"]] == ["succeeded", "failed", "pruned", "succeeded"]
    assert found["trials"][0]["parameters"]["learningRate"] == 1e-3
    html = files["search.html"].read_text()
    assert "<svg" in html
    assert "<script" not in html
    assert "farm&lt;b&gt;" in html
    assert html.count("<td>pruned</td>") == 1
    again = write_page(wanted, "farm<b>", tmp_path / "again")
    assert again["search.html"].read_bytes() == files["search.html"].read_bytes()
    write_page(search(tried(1e-3, 0.0), direction="Maximize", metric="ExactMatch"), "one", tmp_path / "one")
