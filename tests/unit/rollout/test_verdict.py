"""What the gates say: each metric with its unit, regressions in both directions, noise, and what was not measured."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmops.api.edgedeployment import DeploymentGate
from slmops.contract import Report, Round, TargetFigures
from slmops.rollout.verdict import figures as shown
from slmops.rollout.verdict import judge
from slmops.state import parse_report
from tests.unit.fleet_builders import figures, target

P, F, D = "Passed", "Failed", "Inconclusive"


def _gate(metric: str, **bound: Any) -> DeploymentGate:
    return DeploymentGate.model_validate({"metric": metric, **bound})


def _rounds(field: str, *values: float) -> TargetFigures:
    """A server that differs in one figure of its rounds."""
    usual = {"time_to_first_token_seconds": 0.1, "tokens_per_second": 30.0, "request_seconds": 2.0}
    return target((), rounds=tuple(Round(**(usual | {field: value})) for value in values))


def _say(gate: DeploymentGate, candidate: TargetFigures | None, stable: TargetFigures | None = None,
         noise: float = 0.25) -> tuple[str, str | None, str]:  # fmt: skip
    """Outcome, value and bound of one gate."""
    _, (status,) = judge([gate], figures(candidate, stable), noise)
    return status.outcome, status.value, status.bound


SPEED, FIRST, WHOLE = "tokens_per_second", "time_to_first_token_seconds", "request_seconds"


@pytest.mark.parametrize(
    ("gate", "candidate", "expected"),
    [
        (_gate("TokensPerSecond", min=30), _rounds(SPEED, 30, 31, 32), (P, "31", "min 30")),
        (_gate("TokensPerSecond", min="30.5"), _rounds(SPEED, 29, 30, 30.4), (F, "30", "min 30.5")),
        (_gate("TokensPerSecond", max=40), _rounds(SPEED, 41, 42, 43), (F, "42", "max 40")),
        (_gate("TimeToFirstToken", max="200ms"), _rounds(FIRST, 0.1, 0.2, 0.15), (P, "150ms", "max 200ms")),
        (_gate("TimeToFirstToken", max="200ms"), _rounds(FIRST, 0.201, 0.3, 0.3), (F, "300ms", "max 200ms")),
        (_gate("TimeToFirstToken", min="1s"), _rounds(FIRST, 1, 2, 3), (P, "2000ms", "min 1s")),
        (_gate("RequestLatency", max="2s"), _rounds(WHOLE, 2, 2, 2), (P, "2000ms", "max 2s")),
        (_gate("RequestLatency", max="1m"), _rounds(WHOLE, 61, 61, 61), (F, "6.1e+04ms", "max 1m")),
        (_gate("TimeToFirstToken", percentile=95, max="500ms"), target(time_to_first_token_p95_seconds=0.5),
         (P, "500ms", "max 500ms")),
        (_gate("TimeToFirstToken", percentile=95, max="500ms"), target(time_to_first_token_p95_seconds=0.51),
         (F, "510ms", "max 500ms")),
        (_gate("RequestLatency", percentile=95, max="3s"), target(request_p95_seconds=4), (F, "4000ms", "max 3s")),
        (_gate("PeakMemory", max="600Mi"), target(peak_memory_bytes=600 * 2**20), (P, "600Mi", "max 600Mi")),
        (_gate("PeakMemory", max="600Mi"), target(peak_memory_bytes=600 * 2**20 + 1), (F, "600Mi", "max 600Mi")),
        (_gate("PeakMemory", max="1G"), target(peak_memory_bytes=10**9), (P, "953.7Mi", "max 1G")),
        (_gate("ErrorRate", max=0), target(errors=0), (P, "0%", "max 0")),
        (_gate("ErrorRate", max=0), target(errors=1), (F, "1.667%", "max 0")),
        (_gate("ErrorRate", max="5%"), target(errors=3), (P, "5%", "max 5%")),
        (_gate("ExactMatch", min="90%"), target(exact_match=0.9), (P, "90%", "min 90%")),
        (_gate("ExactMatch", min="90%"), target(exact_match=0.899), (F, "89.9%", "min 90%")),
        (_gate("ExactMatch", min="90%"), target(exact_match=0.0), (F, "0%", "min 90%")),
    ],
)  # fmt: skip
def test_a_bound_is_kept_or_not(
    gate: DeploymentGate, candidate: TargetFigures, expected: tuple[str, str | None, str]
) -> None:
    assert _say(gate, candidate) == expected


@pytest.mark.parametrize(
    "gate",
    [
        _gate("TokensPerSecond", min=1), _gate("TimeToFirstToken", max="9s"), _gate("RequestLatency", max="9s"),
        _gate("TimeToFirstToken", percentile=95, max="9s"), _gate("RequestLatency", percentile=95, max="9s"),
        _gate("PeakMemory", max="9Gi"), _gate("ErrorRate", max="100%"), _gate("ExactMatch", min="0%"),
        _gate("TokensPerSecond", maxRegression="99%"), _gate("PeakMemory", maxRegression="99%"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("candidate", [None, target((), requests=0)])
def test_what_was_not_measured_never_passes(gate: DeploymentGate, candidate: TargetFigures | None) -> None:
    """No report of the candidate, or no request that was ever made: however generous the bound."""
    assert _say(gate, candidate)[:2] == (D, None)
    assert _say(gate, candidate, target())[:2] == (D, None)
    assert judge([gate], figures(candidate, target()), 0.25)[0] == D


@pytest.mark.parametrize(
    "gate",
    [
        _gate("TimeToFirstToken", percentile=95, max="9s"), _gate("RequestLatency", percentile=95, max="9s"),
        _gate("PeakMemory", max="9Gi"), _gate("ExactMatch", min="0%"), _gate("ExactMatch", maxRegression="99%"),
    ],
)  # fmt: skip
def test_a_figure_that_the_server_or_the_data_does_not_give_is_a_doubt(gate: DeploymentGate) -> None:
    assert _say(gate, target(), target())[:2] == (D, None)


def test_a_server_that_answered_nothing_does_not_pass_without_gates_either() -> None:
    assert judge([], figures(target()), 0.25)[0] == P
    assert judge([], figures(target((), requests=60, errors=60)), 0.25)[0] == D
    assert judge([], figures(None, target()), 0.25)[0] == D
    assert judge([], Report(outcome="Succeeded"), 0.25)[0] == D


@pytest.mark.parametrize(
    ("gate", "ours", "theirs", "expected"),
    [
        (_gate("TokensPerSecond", maxRegression="5%"), _rounds(SPEED, 95, 95), _rounds(SPEED, 100, 100), P),
        (_gate("TokensPerSecond", maxRegression="5%"), _rounds(SPEED, 94, 94), _rounds(SPEED, 100, 100), F),
        (_gate("TokensPerSecond", maxRegression="5%"), _rounds(SPEED, 500, 500), _rounds(SPEED, 100, 100), P),
        (_gate("TokensPerSecond", maxRegression="0%"), _rounds(SPEED, 100, 100), _rounds(SPEED, 100, 100), P),
        (_gate("TimeToFirstToken", maxRegression="10%"), _rounds(FIRST, 0.11, 0.11), _rounds(FIRST, 0.1, 0.1), P),
        (_gate("TimeToFirstToken", maxRegression="10%"), _rounds(FIRST, 0.12, 0.12), _rounds(FIRST, 0.1, 0.1), F),
        (_gate("TimeToFirstToken", maxRegression="10%"), _rounds(FIRST, 0.01, 0.01), _rounds(FIRST, 0.1, 0.1), P),
        (_gate("RequestLatency", maxRegression="50%"), _rounds(WHOLE, 3.1, 3.1), _rounds(WHOLE, 2, 2), F),
        (_gate("PeakMemory", maxRegression="10%"), target(peak_memory_bytes=110), target(peak_memory_bytes=100), P),
        (_gate("PeakMemory", maxRegression="10%"), target(peak_memory_bytes=111), target(peak_memory_bytes=100), F),
        (_gate("ExactMatch", maxRegression="2%"), target(exact_match=0.98), target(exact_match=1.0), P),
        (_gate("ExactMatch", maxRegression="2%"), target(exact_match=0.97), target(exact_match=1.0), F),
        (_gate("ErrorRate", maxRegression="10%"), target(errors=1), target(errors=1), P),
        (_gate("ErrorRate", maxRegression="10%"), target(errors=2), target(errors=1), F),
    ],
)
def test_a_regression_counts_in_the_direction_that_is_worse(
    gate: DeploymentGate, ours: TargetFigures, theirs: TargetFigures, expected: str
) -> None:
    assert _say(gate, ours, theirs)[0] == expected


@pytest.mark.parametrize(
    ("gate", "ours", "theirs", "expected"),
    [
        (_gate("ErrorRate", maxRegression="10%"), target(errors=1), target(errors=0), F),
        (_gate("ErrorRate", maxRegression="10%"), target(errors=0), target(errors=0), P),
        (_gate("ExactMatch", maxRegression="10%"), target(exact_match=0), target(exact_match=0), P),
        (_gate("TokensPerSecond", maxRegression="10%"), _rounds(SPEED, 0, 0), _rounds(SPEED, 0, 0), P),
        (_gate("TokensPerSecond", maxRegression="10%"), _rounds(SPEED, 0, 0), _rounds(SPEED, 9, 9), F),
        (_gate("TimeToFirstToken", maxRegression="10%"), _rounds(FIRST, 1, 0, 0), _rounds(FIRST, 0, 0, 0), D),
    ],
)
def test_a_stable_figure_of_zero_is_no_division_by_zero(
    gate: DeploymentGate, ours: TargetFigures, theirs: TargetFigures, expected: str
) -> None:
    assert _say(gate, ours, theirs)[0] == expected


def test_the_first_revision_ever_has_nothing_to_compare_with_and_passes() -> None:
    assert _say(_gate("TokensPerSecond", maxRegression="5%"), target()) == (
        P, "30", "maxRegression 5% (nothing to compare with)",
    )  # fmt: skip


def test_rounds_are_compared_pair_by_pair_so_what_disturbs_both_disturbs_nothing() -> None:
    gate = _gate("TokensPerSecond", maxRegression="5%")
    assert _say(gate, target((100, 10, 50)), target((100, 10, 50)), noise=0.01)[0] == P
    assert _say(gate, target((90, 9, 45)), target((100, 10, 50)), noise=0.01)[0] == F


@pytest.mark.parametrize("side", ["candidate", "stable"])
def test_one_round_missing_on_one_side_cannot_be_compared(side: str) -> None:
    gate = _gate("TokensPerSecond", maxRegression="5%")
    whole, short = target((30, 30, 30)), target((30, 30))
    ours, theirs = (short, whole) if side == "candidate" else (whole, short)
    assert _say(gate, ours, theirs)[0] == D
    assert _say(gate, ours, target((), requests=60, errors=60))[0] == D, "a stable server that answered nothing"


@pytest.mark.parametrize(
    ("speeds", "noise", "expected"),
    [
        ((29, 31, 32), 0.25, P),  # close together, and the median keeps the bound
        ((29, 29, 31), 0.25, F),
        ((10, 31, 60), 0.25, D),  # far apart: nobody can tell
        ((29, 31, 32), 0.05, D),
        ((10, 20, 29), 0.0, F),  # noisy, but none keeps it
        ((31, 60, 900), 0.0, P),  # noisy, but all keep it
        ((29.8, 30.4), 0.25, P),  # two rounds that disagree: their median decides, 30.1
        ((29.4, 30.2), 0.25, F),
        ((29, 31, 29.5, 30.9), 0.25, P),
    ],
)
def test_rounds_that_disagree_are_decided_by_the_median_unless_they_are_far_apart(
    speeds: Sequence[float], noise: float, expected: str
) -> None:
    assert _say(_gate("TokensPerSecond", min=30), target(speeds), noise=noise)[0] == expected
    doubled = target([2 * speed for speed in speeds])
    assert _say(_gate("TokensPerSecond", min=60), doubled, noise=noise)[0] == expected


def test_a_doubt_tells_how_far_the_rounds_are_apart() -> None:
    _, (status,) = judge([_gate("TokensPerSecond", min=30)], figures(target((10, 31, 60))), 0.25)
    assert (status.outcome, status.value, status.interval) == (D, "31", None)
    assert status.doubt == "rounds from 10 to 60, further apart than maxNoise"


def test_a_failure_outweighs_a_doubt_and_a_doubt_outweighs_what_passed() -> None:
    good, bad, unknown = _gate("TokensPerSecond", min=1), _gate("ErrorRate", max=0), _gate("PeakMemory", max=1)
    assert judge([good], figures(target(errors=1)), 0.25)[0] == P
    assert judge([good, unknown], figures(target()), 0.25)[0] == D
    verdict, statuses = judge([good, unknown, bad], figures(target(errors=1)), 0.25)
    assert verdict == F
    assert [status.outcome for status in statuses] == [P, D, F]


def test_gates_are_told_apart_by_percentile() -> None:
    gates = [_gate("RequestLatency", max="9s"), _gate("RequestLatency", percentile=95, max="9s")]
    _, statuses = judge(gates, figures(target(request_p95_seconds=1)), 0.25)
    assert [status.metric for status in statuses] == ["RequestLatency", "RequestLatency p95"]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-1", "1e999", '"fast"', "null"])
def test_a_report_with_a_figure_that_is_none_is_no_report(value: str) -> None:
    """It is dropped where it is read, so no comparison ever sees it."""
    text = figures(target((30,))).model_dump_json().replace("30.0", value)
    assert value in text
    assert parse_report(text) is None


@settings(derandomize=True, max_examples=120)
@given(
    speeds=st.lists(st.floats(0, 1000), min_size=1, max_size=6), limit=st.integers(0, 1000), noise=st.floats(0, 1),
    theirs=st.lists(st.floats(0, 1000), min_size=1, max_size=6),
)  # fmt: skip
def test_faster_is_never_judged_worse(speeds: list[float], limit: int, noise: float, theirs: list[float]) -> None:
    """All rounds faster by the same factor."""
    order = [F, D, P]
    for gate in (_gate("TokensPerSecond", min=limit), _gate("TokensPerSecond", maxRegression="10%")):
        before = _say(gate, target(speeds), target(theirs), noise)[0]
        after = _say(gate, target([2 * speed for speed in speeds]), target(theirs), noise)[0]
        assert order.index(after) >= order.index(before)


def test_the_figures_of_a_server_are_in_base_units_and_leave_out_what_was_not_measured() -> None:
    full = target((10, 30, 20), errors=3, exact_match=0.5, peak_memory_bytes=123_456_789, request_p95_seconds=2.5,
                  time_to_first_token_p95_seconds=0.25)  # fmt: skip
    assert shown(full) == {
        "TokensPerSecond": 20.0, "TimeToFirstToken": 0.1, "RequestLatency": 2.0, "TimeToFirstTokenP95": 0.25,
        "RequestLatencyP95": 2.5, "ExactMatch": 0.5, "PeakMemory": 123456789.0, "ErrorRate": 0.05,
    }  # fmt: skip
    assert shown(target((), requests=0)) == {}
