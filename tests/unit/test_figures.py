"""Figures for status and people, comparisons with a reference, and what gates say."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmops.api.evaluation import QualityGate
from slmops.contract import FIGURE_FIELDS, LARGEST, Figures
from slmops.figures import (
    Figure,
    bound,
    comparison,
    display,
    duration,
    evaluation,
    forgetting,
    incomparable,
    intervals,
    quality_gates,
    shown,
    significant,
    size,
    values,
)
from tests.unit.builders import figures


def exactly(**measured: float) -> dict[str, Figure]:
    """Figures without an interval."""
    return {name: Figure(value) for name, value in measured.items()}


def plain(found: dict[str, Figure]) -> dict[str, float]:
    """The values alone, as status has them."""
    return values({"": found})[""]


def gates(*wanted: dict[str, Any], **measured: float) -> list[tuple[str, str | None]]:
    """(outcome, value) of each gate against what was measured of the model."""
    found = quality_gates([QualityGate.model_validate(gate) for gate in wanted], {"model": exactly(**measured)})
    return [(gate.outcome, gate.value) for gate in found]


# --- bounds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("92%", 0.92), ("99.5%", 0.995), ("200ms", 0.2), ("1.5ms", 0.0015), ("2s", 2), ("0.5s", 0.5), ("5m", 300),
        ("1.5m", 90), ("2h", 7200), ("600Mi", 600 * 2**20), ("1.5Gi", 1.5 * 2**30), ("1k", 1000), ("2M", 2e6),
        ("30", 30), (30, 30), ("0.92", 0.92), (0, 0),
    ],
)  # fmt: skip
def test_a_bound_in_base_units(value: int | str, expected: float) -> None:
    assert bound(value) == pytest.approx(expected)


@settings(derandomize=True, max_examples=120)
@given(st.from_regex(r"[0-9]{1,6}(\.[0-9]{1,3})?(%|ms|s|m|h|k|M|G|Ki|Mi|Gi)?", fullmatch=True))
def test_every_bound_that_the_api_takes_has_a_value_and_more_of_a_unit_is_more(text: str) -> None:
    gate = QualityGate(metric="ExactMatch", min=text)
    assert gate.min is not None
    assert bound(gate.min) >= 0
    number = text.rstrip("%mshkMGi" + "K")
    assert bound(text.replace(number, str(float(number) + 1), 1)) > bound(text)


# --- gates ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gate", "value", "outcome"),
    [
        ({"min": "92%"}, 0.92, "Passed"),
        ({"min": "92%"}, 0.9199, "Failed"),
        ({"min": "92%"}, 1.0, "Passed"),
        ({"max": "92%"}, 0.92, "Passed"),
        ({"max": "92%"}, 0.9201, "Failed"),
        ({"min": 0}, 0.0, "Passed"),
        ({"max": 0}, 0.0, "Passed"),
        ({"min": "0%"}, -0.1, "Failed"),
    ],
)
def test_a_bound_belongs_to_what_passes(gate: dict[str, Any], value: float, outcome: str) -> None:
    assert gates({"metric": "ExactMatch", **gate}, ExactMatch=value)[0][0] == outcome


def test_what_was_not_measured_is_never_a_pass() -> None:
    assert gates({"metric": "InferenceTime", "max": "10h"}, ExactMatch=1.0) == [("Inconclusive", None)]
    assert gates({"metric": "ExactMatch", "min": 0}) == [("Inconclusive", None)]


def test_a_gate_reads_the_models_figures_and_nobody_elses() -> None:
    gate = QualityGate(metric="ExactMatch", min="50%")
    measured = {"teacher": exactly(ExactMatch=1.0), "model": exactly(ExactMatch=0.1)}
    assert quality_gates([gate], measured)[0].outcome == "Failed"


def test_a_gate_shows_value_and_bound_in_the_units_of_its_metric() -> None:
    found = quality_gates(
        [QualityGate(metric="InferenceTime", max="200ms"), QualityGate(metric="AccuracyRetained", min="92%")],
        {"model": exactly(InferenceTime=0.25), "comparison": exactly(AccuracyRetained=0.985)},
    )
    assert [(gate.value, gate.bound) for gate in found] == [("250ms", "max 200ms"), ("98.5%", "min 92%")]


SURE = Figures(exact_match=0.93, intervals={"ExactMatch": (0.9, 0.95)})


@pytest.mark.parametrize(
    ("gate", "outcome"),
    [
        ({"min": "89%"}, "Passed"),
        ({"min": "90%"}, "Passed"),  # the end of the interval still belongs to it
        ({"min": "92%"}, "Inconclusive"),
        ({"min": "94%"}, "Inconclusive"),
        ({"min": "96%"}, "Failed"),
        ({"max": "96%"}, "Passed"),
        ({"max": "92%"}, "Inconclusive"),
        ({"max": "89%"}, "Failed"),
    ],
)
def test_a_bound_within_the_interval_is_inconclusive(gate: dict[str, Any], outcome: str) -> None:
    found = quality_gates([QualityGate.model_validate({"metric": "ExactMatch", **gate})], {"model": shown(SURE)})
    assert [(g.outcome, g.interval) for g in found] == [(outcome, "90% to 95%")]


@pytest.mark.parametrize(("value", "low", "outcome"), [(1.0, 0.99, "Passed"), (0.98, 0.95, "Inconclusive")])
def test_all_answers_right_is_all_that_can_be_asked_for(value: float, low: float, outcome: str) -> None:
    """The bound 100% lies in no interval; one that ends there holds it, unless not all answers were right."""
    told = Figures(exact_match=value, intervals={"ExactMatch": (low, 1.0 if value == 1 else 1.001)})
    found = quality_gates([QualityGate(metric="ExactMatch", min="100%")], {"model": shown(told)})
    assert found[0].outcome == outcome


def test_a_gate_is_judged_by_what_was_measured_and_not_by_what_is_shown() -> None:
    assert gates({"metric": "ExactMatch", "min": "92%"}, ExactMatch=0.919996) == [("Failed", "92%")]


def test_an_interval_without_sense_is_none() -> None:
    assert shown(Figures(exact_match=0.5, intervals={"ExactMatch": (0.6, 0.4)}))["ExactMatch"].interval is None
    assert shown(Figures(exact_match=0.5, intervals={"ExactMatch": (0.6, 0.7)}))["ExactMatch"].interval == (0.5, 0.7)


# --- comparisons ---------------------------------------------------------------------------------------------------


def test_a_model_beside_its_reference() -> None:
    small = figures(0.9, inference_seconds=0.1, weight_bytes=25, peak_memory_bytes=120)
    large = figures(0.95, inference_seconds=1.0, weight_bytes=100, peak_memory_bytes=100)
    assert plain(comparison(small, large)) == {
        "AccuracyRetained": 0.9474, "InferenceTimeReduction": 0.9, "WeightsReduction": 0.75, "PeakMemoryReduction": -0.2
    }  # fmt: skip


@pytest.mark.parametrize("theirs", [None, 0.0, 5e-324])
def test_a_reference_that_is_missing_or_next_to_nothing_gives_no_ratio(theirs: float | None) -> None:
    assert comparison(figures(0.9), figures(theirs)) == {}
    assert comparison(Figures(inference_seconds=9e15), Figures(inference_seconds=theirs)) == {}


def test_a_model_that_knows_nothing_retains_nothing() -> None:
    assert plain(comparison(figures(0.0), figures(0.5))) == {"AccuracyRetained": 0.0}


def test_the_first_reference_that_was_measured_counts() -> None:
    both = {"model": figures(0.4), "teacher": figures(0.8), "baseline": figures(0.5)}
    assert plain(evaluation(both, ("teacher", "baseline"))["comparison"]) == {"AccuracyRetained": 0.5}
    del both["teacher"]
    assert plain(evaluation(both, ("teacher", "baseline"))["comparison"]) == {"AccuracyRetained": 0.8}


def test_a_reference_of_which_nothing_was_measured_is_none() -> None:
    both = {"model": figures(0.4), "teacher": Figures(), "baseline": figures(0.5)}
    assert plain(evaluation(both, ("teacher", "baseline"))["comparison"]) == {"AccuracyRetained": 0.8}
    assert "comparison" not in evaluation(both, ("teacher",))


@pytest.mark.parametrize(
    ("metric", "theirs", "why"),
    [
        ("AccuracyRetained", Figures(), "of the teacher no Accuracy is known"),
        ("AccuracyRetained", Figures(exact_match=0.0), "the teacher's ExactMatch is 0%"),
        ("AccuracyRetained", Figures(exact_match=0.5, accuracy=0.0), "the teacher's Accuracy is 0%"),
        ("InferenceTimeReduction", figures(0.5), "of the teacher no InferenceTime is known"),
        ("AccuracyRetained", figures(0.5), None),
        ("PeakMemoryReduction", Figures(), None),  # nor is it of the model: that is mended by measuring
        ("F1", Figures(), None),
    ],
)
def test_a_comparison_that_nobody_can_make_says_why(metric: str, theirs: Figures, why: str | None) -> None:
    model = Figures(exact_match=0.5, accuracy=0.5, inference_seconds=1.0)
    found = evaluation({"model": model, "teacher": theirs}, ("teacher",))
    said = quality_gates([QualityGate.model_validate({"metric": metric, "min": "50%"})], found)
    assert incomparable(said, values(found), "teacher").get(metric) == why


def test_without_a_model_or_a_reference_nothing_is_compared() -> None:
    assert "comparison" not in evaluation({"model": figures()}, ("teacher",))
    assert "comparison" not in evaluation({"teacher": figures()}, ("teacher",))
    assert evaluation({}, ("teacher",)) == {}


def test_what_was_not_measured_is_not_shown_and_zero_is() -> None:
    assert plain(shown(Figures(exact_match=0.0, samples=5))) == {"ExactMatch": 0.0, "Samples": 5}


counts = st.none() | st.integers(0, LARGEST)
amounts = st.none() | st.floats(0, LARGEST)
pairs = st.dictionaries(
    st.sampled_from([*FIGURE_FIELDS, "x"]), st.tuples(st.floats(0, LARGEST), st.floats(0, LARGEST)), max_size=6
)
measured = st.builds(
    Figures, exact_match=st.none() | st.floats(0, 1), perplexity=st.none() | st.floats(1, allow_infinity=False),
    samples=counts, inference_seconds=amounts, peak_memory_bytes=counts, weight_bytes=counts, parameters=counts,
    accuracy=st.none() | st.floats(0, 1), intervals=pairs, correlation=st.none() | st.floats(-1, 1),
)  # fmt: skip


@settings(derandomize=True, max_examples=120)
@given(measured, measured)
def test_whatever_a_pod_measured_is_shown_as_finite_numbers(model: Figures, reference: Figures) -> None:
    found = evaluation({"model": model, "reference": reference}, ("reference",))
    told = [figure.value for part in found.values() for figure in part.values()]
    ends = [end for part in intervals(found).values() for pair in part.values() for end in pair]
    assert all(map(math.isfinite, (*told, *ends)))
    assert all(display(name, figure.value) for part in found.values() for name, figure in part.items())
    for figure in (figure for part in found.values() for figure in part.values() if figure.interval):
        assert figure.interval is not None
        assert figure.interval[0] <= figure.value <= figure.interval[1]


# --- for people ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (1023, "1023"), (1024, "1Ki"), (1887437, "1.8Mi"), (3 * 2**30, "3Gi"), (2**44, "1.638e+04Gi")],
)
def test_bytes_for_people(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.4, "0s"), (59.4, "59s"), (59.6, "1m0s"), (370, "6m10s"), (3599.6, "1h0m"), (86400, "24h0m")],
)
def test_seconds_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@settings(derandomize=True)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_rounding_keeps_four_digits_and_is_stable(value: float) -> None:
    """Stable, so that a status computed again from what status holds is not another write."""
    rounded = significant(value)
    assert significant(rounded) == rounded
    assert math.isclose(rounded, value, rel_tol=5.1e-4, abs_tol=1e-323)


# --- forgetting


def test_what_the_base_forgets_is_the_difference_on_its_own_task() -> None:
    measured = {"model": Figures(exact_match=0.9), "baseline": Figures(exact_match=0.3),
                "baseTaskBefore": Figures(exact_match=0.8), "baseTask": Figures(exact_match=0.6)}  # fmt: skip
    found = plain(evaluation(measured, ("baseline",))["comparison"])
    assert found == {"AccuracyRetained": 3.0, "Forgetting": 0.2, "BaseAccuracyRetained": 0.75}
    better = measured | {"baseTask": Figures(exact_match=1.0)}
    assert plain(evaluation(better, ("baseline",))["comparison"])["Forgetting"] == -0.2


@pytest.mark.parametrize("missing", ["baseTaskBefore", "baseTask"])
def test_without_both_figures_nothing_is_said_of_forgetting(missing: str) -> None:
    measured = {"baseTaskBefore": Figures(exact_match=0.8), "baseTask": Figures(exact_match=0.6)}
    assert forgetting({**measured, missing: Figures()}) == {}
    assert forgetting({role: found for role, found in measured.items() if role != missing}) == {}


def test_a_base_that_knew_nothing_has_nothing_to_retain() -> None:
    measured = {"baseTaskBefore": Figures(exact_match=0.0), "baseTask": Figures(exact_match=0.5)}
    assert plain(forgetting(measured)) == {"Forgetting": -0.5}
