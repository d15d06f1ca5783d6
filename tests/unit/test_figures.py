"""Figures for status and people, comparisons with a reference, and what gates say."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmops.api.evaluation import QualityGate
from slmops.contract import LARGEST, Figures
from slmops.figures import (
    bound,
    comparison,
    display,
    duration,
    evaluation,
    forgetting,
    quality_gates,
    shown,
    significant,
    size,
)
from tests.unit.builders import figures


def gates(*wanted: dict[str, Any], **measured: float) -> list[tuple[str, str | None]]:
    """(outcome, value) of each gate against what was measured of the model."""
    found = quality_gates([QualityGate.model_validate(gate) for gate in wanted], {"model": measured})
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


@settings(derandomize=True, deadline=None, max_examples=200)
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
    measured = {"teacher": {"ExactMatch": 1.0}, "model": {"ExactMatch": 0.1}}
    assert quality_gates([gate], measured)[0].outcome == "Failed"


def test_a_gate_shows_value_and_bound_in_the_units_of_its_metric() -> None:
    found = quality_gates(
        [QualityGate(metric="InferenceTime", max="200ms"), QualityGate(metric="AccuracyRetained", min="92%")],
        {"model": {"InferenceTime": 0.25}, "comparison": {"AccuracyRetained": 0.985}},
    )
    assert [(gate.value, gate.bound) for gate in found] == [("250ms", "max 200ms"), ("98.5%", "min 92%")]


# --- comparisons ---------------------------------------------------------------------------------------------------


def test_a_model_beside_its_reference() -> None:
    small = figures(0.9, inference_seconds=0.1, weight_bytes=25, peak_memory_bytes=120)
    large = figures(0.95, inference_seconds=1.0, weight_bytes=100, peak_memory_bytes=100)
    assert comparison(small, large) == {
        "AccuracyRetained": 0.9474, "InferenceTimeReduction": 0.9, "WeightsReduction": 0.75, "PeakMemoryReduction": -0.2
    }  # fmt: skip


@pytest.mark.parametrize("theirs", [None, 0.0, 5e-324])
def test_a_reference_that_is_missing_or_next_to_nothing_gives_no_ratio(theirs: float | None) -> None:
    assert comparison(figures(0.9), figures(theirs)) == {}
    assert comparison(Figures(inference_seconds=9e15), Figures(inference_seconds=theirs)) == {}


def test_a_model_that_knows_nothing_retains_nothing() -> None:
    assert comparison(figures(0.0), figures(0.5)) == {"AccuracyRetained": 0.0}


def test_the_first_reference_that_was_measured_counts() -> None:
    both = {"model": figures(0.4), "teacher": figures(0.8), "baseline": figures(0.5)}
    assert evaluation(both, ("teacher", "baseline"))["comparison"] == {"AccuracyRetained": 0.5}
    del both["teacher"]
    assert evaluation(both, ("teacher", "baseline"))["comparison"] == {"AccuracyRetained": 0.8}


def test_without_a_model_or_a_reference_nothing_is_compared() -> None:
    assert "comparison" not in evaluation({"model": figures()}, ("teacher",))
    assert "comparison" not in evaluation({"teacher": figures()}, ("teacher",))
    assert evaluation({}, ("teacher",)) == {}


def test_what_was_not_measured_is_not_shown_and_zero_is() -> None:
    assert shown(Figures(exact_match=0.0, samples=5)) == {"ExactMatch": 0.0, "Samples": 5}


counts = st.none() | st.integers(0, LARGEST)
amounts = st.none() | st.floats(0, LARGEST)
measured = st.builds(
    Figures, exact_match=st.none() | st.floats(0, 1), perplexity=st.none() | st.floats(1, allow_infinity=False),
    samples=counts, inference_seconds=amounts, peak_memory_bytes=counts, weight_bytes=counts, parameters=counts,
)  # fmt: skip


@settings(derandomize=True, deadline=None, max_examples=200)
@given(measured, measured)
def test_whatever_a_pod_measured_is_shown_as_finite_numbers(model: Figures, reference: Figures) -> None:
    found = evaluation({"model": model, "reference": reference}, ("reference",))
    values = [value for part in found.values() for value in part.values()]
    assert all(math.isfinite(value) for value in values)
    assert all(display(name, value) for part in found.values() for name, value in part.items())


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


@settings(derandomize=True, deadline=None)
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
    found = evaluation(measured, ("baseline",))["comparison"]
    assert found == {"AccuracyRetained": 3.0, "Forgetting": 0.2, "BaseAccuracyRetained": 0.75}
    better = measured | {"baseTask": Figures(exact_match=1.0)}
    assert evaluation(better, ("baseline",))["comparison"]["Forgetting"] == -0.2


@pytest.mark.parametrize("missing", ["baseTaskBefore", "baseTask"])
def test_without_both_figures_nothing_is_said_of_forgetting(missing: str) -> None:
    measured = {"baseTaskBefore": Figures(exact_match=0.8), "baseTask": Figures(exact_match=0.6)}
    assert forgetting({**measured, missing: Figures()}) == {}
    assert forgetting({role: found for role, found in measured.items() if role != missing}) == {}


def test_a_base_that_knew_nothing_has_nothing_to_retain() -> None:
    measured = {"baseTaskBefore": Figures(exact_match=0.0), "baseTask": Figures(exact_match=0.5)}
    assert forgetting(measured) == {"Forgetting": -0.5}
