"""Figures of answers and their intervals: against libraries, against known values, and at the edges."""

import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from slmkit.apart import Seen, finite
from slmkit.metrics import Measured, compared, intervals, judged, scored, words
from slmkit.metrics.intervals import bootstrap, of_median, wilson
from slmkit.metrics.roles import side_by_side
from slmkit.metrics.words import alike, f1, perplexity, same
from slmops.contract import Evaluation, Figures, Metric, Report

ONES = np.ones


def worth(answers: list[str], expected: list[str], task: str) -> float:
    return f1(answers, expected, task)(ONES(len(answers)))


# --- right or wrong


@pytest.mark.parametrize(
    ("answer", "expected", "exactly", "nearly"),
    [
        ("yes", "yes", True, True),
        (" yes\n", "yes", True, True),
        ("Yes", "yes", False, True),
        ("yes.", "yes", False, True),
        ("so  it\tis", "so it is", False, True),
        ("yes..", "yes", False, False),
        ("no", "yes", False, False),
        ("", "yes", False, False),
        ("STRASSE", "straße", False, True),
    ],
)
def test_exact_match_and_accuracy(answer: str, expected: str, exactly: bool, nearly: bool) -> None:
    assert (same(answer, expected), alike(answer, expected)) == (exactly, nearly)


@settings(derandomize=True)
@given(st.text(), st.text())
def test_what_matches_exactly_is_accurate(answer: str, expected: str) -> None:
    assert alike(answer, expected) or not same(answer, expected)
    assert same(answer, answer)


def test_of_texts_that_nobody_answers_the_loss_alone_is_told() -> None:
    wanted = Evaluation(metrics=(Metric.EXACT_MATCH, Metric.ACCURACY, Metric.PERPLEXITY))
    seen = Seen(answers=[], nats=[2.0, 4.0], tokens=[2, 1], peak_memory_bytes=1, weight_bytes=9)
    found = judged(seen, ["a text", "another"], wanted)
    assert found.figures.perplexity == pytest.approx(math.exp(2.0), rel=1e-4)
    assert (found.figures.samples, found.figures.weight_bytes) == (2, 9)
    assert (found.figures.exact_match, found.figures.accuracy, found.right) == (None, None, ())
    assert compared(found, found).correlation is None


# --- F1


def test_labels_count_alike_however_rare_they_are() -> None:
    wanted = ["good"] * 90 + ["bad"] * 10
    assert worth(["good"] * 100, wanted, "Classification") == pytest.approx((2 * 0.9 / 1.9) / 2)
    assert worth([*["good"] * 89, "so so", *["Bad."] * 10], wanted, "Classification") == pytest.approx(
        (2 * 89 / 179 + 1) / 2
    )


@settings(derandomize=True, max_examples=50)
@given(st.lists(st.tuples(st.sampled_from("abc?"), st.sampled_from("abc"), st.integers(0, 4)), min_size=1, max_size=20))
def test_labels_as_the_library_counts_them(records: list[tuple[str, str, int]]) -> None:
    """Of all records, and of any resample of them."""
    answers, expected, times = (list(part) for part in zip(*records, strict=True))
    for weights in np.ones(len(times)), np.array(times, float):
        drawn = sorted({label for label, weight in zip(expected, weights, strict=True) if weight})
        found = f1_score(
            expected, answers, labels=drawn, average="macro", sample_weight=weights, zero_division=0
        ) if drawn else 0.0  # fmt: skip
        assert f1(answers, expected, "Classification")(weights) == pytest.approx(found, rel=1e-12)


def test_intervals_of_labels_are_those_that_the_librarys_f1_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 100)
    rng = np.random.default_rng(4)
    wanted = rng.choice(list("aaab"), 60)
    said = np.where(rng.random(60) < 0.7, wanted, "c")

    def by_the_library(weights: np.ndarray) -> float:
        drawn = sorted(set(wanted[weights > 0]))
        return float(f1_score(wanted, said, labels=drawn, average="macro", sample_weight=weights, zero_division=0))

    found = f1(list(said), list(wanted), "Classification")
    assert bootstrap(60, found) == bootstrap(60, by_the_library)


def test_a_hundred_thousand_labels_have_a_narrow_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 200)
    rng = np.random.default_rng(6)
    wanted = [f"label {number}" for number in rng.integers(0, 100, 100_000)]
    seen, plain = Counter[str](), words._plain

    def counted(text: str) -> str:
        seen[text] += 1
        return plain(text)

    monkeypatch.setattr(words, "_plain", counted)
    found = scored(wanted[::-1], wanted, (Metric.F1,), "Classification").figures
    assert seen.total() == 5 * 100_000, "two for right and wrong, three for F1: no resample looks through the records"
    low, high = found.intervals["F1"]
    assert 0 < low < 0.01 < high < 0.02


@pytest.mark.parametrize(
    ("answer", "expected", "value"),
    [
        ({"a": 1, "b": "x"}, {"a": 1, "b": "x"}, 1.0),
        ({"a": 1, "b": "y"}, {"a": 1, "b": "x"}, 0.5),
        ({"a": 1}, {"a": 1, "b": "x"}, 2 / 3),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, 0.5),
        ({"a": " x "}, {"a": "x"}, 1.0),
        ({"a": None}, {"a": 0}, 0.0),
        ({"b": 1}, {"a": 1}, 0.0),
        ([{"a": 1}], {"a": 1}, 0.0),
        ({}, {}, 1.0),
        ({"a": 1.0}, {"a": 1}, 1.0),
        ({"a": 1}, {"a": True}, 0.0),
        ({"a/b": 1}, {"a": {"b": 1}}, 0.0),
        ({"a": [1]}, {"a": {"0": 1}}, 0.0),
    ],
)
def test_fields_by_place_and_value(answer: object, expected: object, value: float) -> None:
    assert worth([json.dumps(answer)], [json.dumps(expected)], "Extraction") == pytest.approx(value)


def test_an_answer_that_is_no_json_has_no_field_and_takes_nothing_from_others() -> None:
    right = '{"a": 1, "b": 2}'
    assert worth(["{a", right], [right, right], "Extraction") == pytest.approx(2 * 2 / (2 + 4))
    assert worth(["[" * 100_000], [right], "Extraction") == 0


# --- intervals


def test_a_share_as_in_the_literature() -> None:
    """81 of 263: Newcombe (1998), Statistics in Medicine 17, 857-872, table I, method 3."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=6e-5)
    assert wilson(0, 20) == (0.0, pytest.approx(0.1611, abs=6e-5))
    assert wilson(20, 20)[1] == 1.0


def test_a_median_lies_between_order_statistics() -> None:
    """Of 30 values the 10th and the 21st: 95.7 % by the binomial distribution."""
    assert of_median([float(value) for value in range(30, 0, -1)]) == (10.0, 21.0)
    assert of_median([1.0] * 6) == (1.0, 1.0)
    assert of_median([1.0] * 5) is None
    assert of_median([]) is None


def test_the_true_median_lies_within_in_95_of_100_samples() -> None:
    rng = np.random.default_rng(5)
    held = [of_median(list(rng.lognormal(size=30))) for _ in range(1000)]
    assert sum(pair is not None and pair[0] <= 1 <= pair[1] for pair in held) >= 940


def test_a_mean_by_the_bootstrap_is_as_by_theory_and_the_same_each_time() -> None:
    values = np.random.default_rng(3).normal(size=400)

    def mean(weights: np.ndarray) -> float:
        return float(weights @ values / weights.sum())

    found = bootstrap(400, mean)
    assert found is not None
    half = 1.96 * values.std() / math.sqrt(400)
    assert found == pytest.approx((values.mean() - half, values.mean() + half), abs=0.015)
    assert bootstrap(400, mean) == found
    assert bootstrap(1, mean) is None


@pytest.mark.parametrize(("said", "interval"), [("a", (0.8620, 1.0)), ("b", (0.0, 0.1380))])
def test_records_that_are_all_right_or_all_wrong_leave_something_to_chance(
    said: str, interval: tuple[float, float]
) -> None:
    """24 / (24 + 1.96^2) by Wilson's formula: resamples of equal records all say the same."""
    answers, expected = ([json.dumps({"crop": crop})] * 24 for crop in (said, "a"))
    found = scored(answers, expected, (Metric.F1,), "Extraction").figures
    assert found.intervals["F1"] == pytest.approx(interval, abs=6e-5)


# --- all together


def seen(answers: list[str], **fields: object) -> Seen:
    return Seen.model_validate({"answers": answers, "peak_memory_bytes": 2**20, "weight_bytes": 5} | fields)


TEXT = (Metric.ACCURACY, Metric.F1)


def test_every_figure_has_its_interval_and_what_is_exact_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 100)
    said = ["a", "b", "A.", "c"] * 25
    told = seen(said, seconds=[0.1 * n for n in range(1, 31)], first_token_seconds=[0.01] * 30, nats=[1.0, 3.0] * 50,
                tokens=[2] * 100, parameters=9)  # fmt: skip
    wanted = Evaluation(metrics=(*TEXT, Metric.PERPLEXITY, Metric.PEAK_MEMORY), task="Classification")
    found = judged(told, ["a", "b", "a", "a"] * 25, wanted)
    figures = found.figures
    assert (figures.exact_match, figures.accuracy, figures.samples) == (0.5, 0.75, 100)
    assert figures.perplexity == pytest.approx(math.e, rel=1e-4)
    assert (figures.inference_seconds, figures.first_token_seconds) == (1.55, 0.01)
    assert figures.intervals.keys() == {
        "ExactMatch", "Accuracy", "F1", "Perplexity", "InferenceTime", "TimeToFirstToken"
    }  # fmt: skip
    assert figures.intervals["InferenceTime"] == (1.0, 2.1)
    assert found.right == (True, True, True, False) * 25


def test_memory_is_told_where_it_is_wanted() -> None:
    assert judged(seen(["a"]), ["a"], Evaluation(metrics=())).figures.peak_memory_bytes is None
    assert judged(seen(["a"]), ["a"], Evaluation(metrics=(Metric.PEAK_MEMORY,))).figures.peak_memory_bytes == 2**20


def test_right_is_what_matches_exactly_where_accuracy_is_not_wanted() -> None:
    assert scored(["A", "b"], ["a", "b"], (), "Generation").right == (False, True)
    assert scored(["A", "b"], ["a", "b"], TEXT, "Extraction").right == (True, True)


@pytest.mark.parametrize("nats", [-1e-4, 0.0, 2.0, 36.0, 40.0, 800.0, math.inf, math.nan])
def test_whatever_a_model_lost_its_report_can_be_read(nats: float) -> None:
    told = Seen.model_validate_json(seen(["a", "a"], nats=[finite(nats)] * 2, tokens=[1, 1]).model_dump_json())
    figures = judged(told, ["a", "b"], Evaluation(metrics=(Metric.PERPLEXITY,))).figures
    report = Report(outcome="Succeeded", evaluation={"model": figures})
    read = Report.model_validate_json(report.model_dump_json(exclude_defaults=True)).evaluation["model"]
    assert read.perplexity == pytest.approx(math.exp(min(max(nats, 0), 36.736)) if nats < math.inf else 9e15, rel=1e-3)


def test_one_hopeless_record_makes_the_perplexity_hopeless() -> None:
    assert perplexity([finite(math.nan), *[0.1] * 9999], [1000] * 10_000)(ONES(10_000)) == pytest.approx(9e15)


def test_records_that_cannot_be_read_say_nothing_of_perplexity() -> None:
    wanted = Evaluation(metrics=(Metric.PERPLEXITY,))
    found = judged(seen(["a"] * 4, nats=[2.0, 0, 2.0, 0], tokens=[1, 0, 1, 0]), ["a"] * 4, wanted).figures
    assert found.perplexity == pytest.approx(math.e**2, rel=1e-4)
    assert found.intervals["Perplexity"] == pytest.approx((math.e**2, math.e**2), rel=1e-3)
    found = judged(seen(["a"] * 2, nats=[2.0, 0], tokens=[1, 0]), ["a"] * 2, wanted).figures
    assert "Perplexity" not in found.intervals, "one record is too few"


def measured(right: str) -> Measured:
    """One model by which of its answers were right: 1 and 0."""
    answers = ["a" if each == "1" else "b" for each in right]
    return scored(answers, ["a"] * len(right), (), "Generation")


@pytest.mark.parametrize(
    ("ours", "theirs", "together"),
    [
        ("1100", "1100", 1.0),
        ("1100", "0011", -1.0),
        ("1100", "1010", 0.0),
        ("1110", "1100", 0.577),
        ("1111", "1100", None),
        ("1100", "0000", None),
        ("11", "1100", None),
    ],
)
def test_how_right_answers_go_together(ours: str, theirs: str, together: float | None) -> None:
    assert compared(measured(ours), measured(theirs)).correlation == together


def test_each_is_compared_with_its_own_partner() -> None:
    roles = {"baseline": measured("1010"), "baseTaskBefore": measured("1100"), "model": measured("1010"),
             "baseTask": measured("0011"), "teacher": measured("1110")}  # fmt: skip
    found = side_by_side(roles)
    assert {role: figures.correlation for role, figures in found.items()} == {
        "baseline": 1.0, "baseTaskBefore": -1.0, "model": None, "baseTask": None, "teacher": 0.577
    }  # fmt: skip
    assert side_by_side({"baseline": measured("10")})["baseline"].correlation is None


def test_a_report_on_five_models_leaves_room_for_the_rest_of_it() -> None:
    """4096 bytes hold it, with curve, artefacts and inputs."""
    value = 0.12345
    intervals = {str(metric): (0.1234, 0.1345) for metric in Metric if metric is not Metric.PEAK_MEMORY}
    full = Figures(exact_match=value, accuracy=value, f1=value, bleu=value, rouge=value, perplexity=1.2345, samples=5000,
                   inference_seconds=0.1234, first_token_seconds=0.01234, peak_memory_bytes=12345678901,
                   weight_bytes=1234567890, parameters=494032768, intervals=intervals)  # fmt: skip
    model = Measured(full, (True, False))
    few = Measured(Figures(exact_match=value, samples=5000, weight_bytes=1234567890, parameters=494032768,
                           intervals={"ExactMatch": (0.1, 0.2)}), (True, False))  # fmt: skip
    roles = {"model": model, "baseline": model, "teacher": model, "baseTask": few, "baseTaskBefore": few}
    report = Report(outcome="Succeeded", evaluation=side_by_side(roles))
    assert len(report.model_dump_json(exclude_defaults=True)) < 1900
