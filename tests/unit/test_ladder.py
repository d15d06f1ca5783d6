"""The ladder of precisions: what is tried next, what was tried, and all of it side by side."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from slmops.api.quantizedmodel import QuantizedModel, QuantizedModelStatus
from slmops.contract import Compared, Figures, Report
from slmops.figures import compression, quality_gates
from slmops.ladder import comparison
from slmops.plan.quantizedmodel import plan_quantizedmodel
from slmops.state import ANNOTATION_RETRY, Observed, Plan
from slmops.status.quantizedmodel import quantizedmodel_status
from tests.unit.builders import (
    COMPLETE,
    DATA,
    DIGEST,
    FAILED,
    NOW,
    RUNNING,
    SETTINGS,
    configuration,
    ended,
    facts,
    failure,
    figures,
    jobs,
    live,
    pod,
    quantizedmodel,
    report,
    said,
)

KEPT = {"metric": "AccuracyRetained", "min": "92%"}
LADDER = {
    "variants": [{"name": "small", "algorithm": "KQuant", "blockSize": 64, "target": {"architecture": "arm64"}}],
    "evaluation": {"data": DATA},
    "gates": [KEPT],
    "fallback": ["INT8", "FP32"],
}
End = Callable[[str], Report | str | dict[str, Any]]
"""How a Job ends, from its precision: with a report, with the text of a failure, or not yet, in a container's state."""


def built(exact_match: float, **of_model: Any) -> Report:
    reference = figures(0.9, perplexity=2.0, weight_bytes=400, parameters=100)
    weights = {"weight_bytes": 60, "parameters": 100}
    return report("image", evaluation={"model": figures(exact_match, **(weights | of_model)), "reference": reference})


def plan_of(resource: QuantizedModel, observed: Observed) -> Plan:
    return plan_quantizedmodel(resource, observed, SETTINGS)


def climbed(resource: QuantizedModel, end: End) -> tuple[Plan, Observed]:
    """Passes until nothing more is made; each Job ends as it should."""
    observed = Observed()
    for _ in range(10):
        plan = plan_of(resource, observed)
        if not plan.apply:
            return plan, observed
        children, pods = list(observed.children), list(observed.pods)
        for index, manifest in enumerate(jobs(plan)):
            wanted = configuration(plan, index)
            state = end(wanted["precision"]) if wanted["type"] == "Quantize" else report("comparison")
            failed, over = isinstance(state, str), not isinstance(state, dict)
            children.append(live(manifest, *([FAILED if failed else COMPLETE] if over else [])))
            text = state if isinstance(state, str) else said(state) if isinstance(state, Report) else ""
            pods.append(pod(children[-1], state=ended(3 if failed else 0, text) if over else state))  # type: ignore[arg-type]
        children += [live(manifest) for manifest in plan.apply if manifest["kind"] != "Job"]
        observed = Observed(children=tuple(children), pods=tuple(pods))
    raise AssertionError("the passes reach no end")


def told(resource: QuantizedModel, end: End) -> QuantizedModelStatus:
    plan, observed = climbed(resource, end)
    return quantizedmodel_status(resource, observed, plan, NOW)


def tried(spec: dict[str, Any], end: End) -> list[str]:
    """Precisions in the order in which they were tried."""
    found: list[str] = []

    def note(precision: str) -> Any:
        found.append(precision)
        return end(precision)

    climbed(quantizedmodel(spec), note)
    return found


def by_precision(**ends: Any) -> End:
    return lambda precision: ends[precision]


def test_what_is_good_enough_climbs_no_further() -> None:
    assert tried(LADDER, lambda _: built(0.9)) == ["INT4"]


def test_a_missed_gate_is_tried_again_in_the_next_precision() -> None:
    assert tried(LADDER, by_precision(INT4=built(0.5), INT8=built(0.9))) == ["INT4", "INT8"]
    assert tried(LADDER, lambda _: built(0.5)) == ["INT4", "INT8", "FP32"]


def test_a_gate_that_may_as_well_be_missed_is_climbed_for_too() -> None:
    unsure = built(0.85, intervals={"ExactMatch": (0.7, 0.95)})
    assert tried(LADDER | {"gates": [{"metric": "ExactMatch", "min": "80%"}]}, lambda _: unsure)[:2] == ["INT4", "INT8"]


@pytest.mark.parametrize("reason", ["ConversionFailed", "VerificationFailed"])
def test_what_cannot_be_converted_is_tried_in_the_next_precision(reason: str) -> None:
    ends = by_precision(INT4=failure(reason, "no such operator"), INT8=built(0.9))
    assert tried(LADDER, ends) == ["INT4", "INT8"]
    status = told(quantizedmodel(LADDER), ends)
    (variant,) = status.variants
    assert [(t.precision, t.outcome, t.message, t.reference) for t in variant.tried] == [
        ("INT4", "Failed", "no such operator", None)
    ]
    assert (status.phase, variant.phase) == ("Succeeded", "Ready")


@pytest.mark.parametrize("reason", ["SourceUnreachable", "OutOfMemory", "RegistryRefused"])
def test_a_failure_that_another_precision_does_not_mend_is_no_reason_to_climb(reason: str) -> None:
    assert tried(LADDER, lambda _: failure(reason)) == ["INT4"]


def test_for_a_gate_on_size_nothing_is_climbed() -> None:
    gates = [KEPT, {"metric": "SizeReduction", "baseline": "FP16", "min": "75%"}]
    assert tried(LADDER | {"gates": gates}, lambda _: built(0.5)) == ["INT4"]


def test_nor_for_what_was_not_measured() -> None:
    assert tried(LADDER | {"gates": [{"metric": "F1", "min": "80%"}]}, lambda _: built(0.9)) == ["INT4"]


def test_the_order_of_the_fallbacks_is_kept_and_what_keeps_less_is_left_out() -> None:
    assert tried(LADDER | {"fallback": ["FP32", "INT8"]}, lambda _: built(0.5)) == ["INT4", "FP32"]
    eight = LADDER | {"variants": [{"name": "small", "precision": "INT8"}]}
    assert tried(eight, lambda _: built(0.5)) == ["INT8", "FP32"]


def test_what_goes_with_int4_is_not_asked_of_another_precision_and_the_target_is() -> None:
    resource = quantizedmodel(LADDER)
    plan = plan_of(resource, Observed())
    told = live(jobs(plan)[0], COMPLETE)
    observed = Observed(children=(told,), pods=(pod(told, state=ended(0, said(built(0.5)))),))
    second = configuration(plan_of(resource, observed), 0)
    assert (second["precision"], second["algorithm"], second["block_size"]) == ("INT8", "RTN", 32)
    assert (second["architecture"], second["variant"]) == ("arm64", "small")


def test_what_was_tried_stays_and_says_why_it_was_not_enough() -> None:
    status = told(quantizedmodel(LADDER), by_precision(INT4=built(0.5), INT8=built(0.9)))
    (variant,) = status.variants
    assert (variant.precision, variant.phase, status.ready) == ("INT8", "Ready", "1/1")
    (first,) = variant.tried
    assert (first.precision, first.outcome) == ("INT4", "Rejected")
    assert first.message == "AccuracyRetained is 55.56%, wanted min 92%"
    assert first.reference == f"registry.example/slm/image@{DIGEST}"
    assert facts(status)["Succeeded"] == ("True", "Completed")


def test_while_the_next_one_is_built_the_variant_is_not_rejected() -> None:
    status = told(quantizedmodel(LADDER), by_precision(INT4=built(0.5), INT8=RUNNING))
    (variant,) = status.variants
    assert (variant.precision, variant.phase) == ("INT8", "Running")
    assert facts(status)["Succeeded"] == ("Unknown", "Running")


def test_at_the_end_of_the_ladder_the_last_one_is_rejected() -> None:
    status = told(quantizedmodel(LADDER), lambda _: built(0.5))
    (variant,) = status.variants
    assert (variant.precision, variant.phase, len(variant.tried)) == ("FP32", "Rejected", 2)
    assert facts(status)["Succeeded"] == ("False", "GateFailed")


def test_a_retry_does_not_repeat_what_was_climbed_past() -> None:
    ends = by_precision(INT4=failure("ConversionFailed"), INT8=failure("ConversionFailed"), FP32=failure("OutOfMemory"))
    _, observed = climbed(quantizedmodel(LADDER), ends)
    again = quantizedmodel(LADDER, metadata={"annotations": {ANNOTATION_RETRY: "1"}})
    (removed,) = plan_of(again, observed).remove
    assert configuration_of(removed, observed)["precision"] == "FP32"


def configuration_of(job: dict[str, Any], observed: Observed) -> dict[str, Any]:
    name = job["metadata"]["name"]
    return configuration(Plan(apply=(observed.child("ConfigMap", name) or {}, job)))


# --- figures


def test_size_is_compared_with_what_all_parameters_take_in_a_precision() -> None:
    shown = compression({"model": Figures(weight_bytes=60, parameters=100), "reference": Figures(weight_bytes=400)})
    found = {name: figure.value for name, figure in shown["comparison"].items()}
    assert found["SizeReductionFP16"] == pytest.approx(0.7)
    assert found["SizeReductionFP32"] == pytest.approx(0.85)
    assert "SizeReductionFP16" not in compression({"model": Figures(weight_bytes=60), "reference": Figures()}).get(
        "comparison", {}
    )


def test_perplexity_is_compared_with_the_reference() -> None:
    shown = compression({"model": Figures(perplexity=2.2), "reference": Figures(perplexity=2.0)})
    assert shown["comparison"]["PerplexityIncrease"].value == pytest.approx(0.1)


@pytest.mark.parametrize(("least", "outcome"), [("69%", "Passed"), ("71%", "Failed")])
def test_a_gate_names_its_baseline(least: str, outcome: str) -> None:
    gates = quantizedmodel(
        LADDER | {"gates": [{"metric": "SizeReduction", "baseline": "FP16", "min": least}]}
    ).spec.gates
    shown = compression({"model": Figures(weight_bytes=60, parameters=100), "reference": Figures(weight_bytes=400)})
    (said,) = quality_gates(gates, shown)
    assert (said.metric, said.outcome, said.value) == ("SizeReductionFP16", outcome, "70%")


# --- side by side


def side_by_side(*rows: tuple[float, float | None, int | None, int]) -> Sequence[Compared]:
    """Rows of (quality, seconds, memory, weights) through plan and status."""
    spec = {"variants": [{"name": f"v{n}"} for n in range(len(rows))], "evaluation": {"data": DATA}}
    resource, reports = quantizedmodel(spec), iter(rows)

    def end(_: str) -> Report:
        quality, seconds, memory, weights = next(reports)
        return built(quality, inference_seconds=seconds, peak_memory_bytes=memory, weight_bytes=weights)

    plan, _ = climbed(resource, end)
    assert isinstance(plan.detail, tuple)
    return comparison(plan.detail)[1]


def test_a_variant_that_another_one_beats_in_everything_is_not_optimal() -> None:
    rows = side_by_side((0.9, 0.02, 300, 50), (0.9, 0.03, 300, 60), (0.95, 0.03, 400, 90))
    assert [row.optimal for row in rows] == [True, False, True]


def test_equal_ones_are_both_optimal() -> None:
    assert [row.optimal for row in side_by_side((0.9, 0.02, 300, 50), (0.9, 0.02, 300, 50))] == [True, True]


def test_what_is_not_known_of_both_decides_nothing() -> None:
    rows = side_by_side((0.9, None, 300, 50), (0.8, 0.01, 200, 50))
    assert [row.optimal for row in rows] == [True, True]
    assert [row.optimal for row in side_by_side((0.9, None, None, 50), (0.8, 0.01, 200, 50))] == [True, False]


def test_one_job_publishes_the_comparison_once_all_are_built() -> None:
    two = LADDER | {"variants": [{"name": "a"}, {"name": "b", "precision": "INT8"}], "fallback": []}
    status = told(quantizedmodel(two), by_precision(INT4=built(0.9), INT8=built(0.88)))
    assert status.report == f"registry.example/slm/comparison@{DIGEST}"
    assert [(row.name, row.precision, row.quality, row.optimal) for row in status.comparison] == [
        ("a", "INT4", "90%", True), ("b", "INT8", "88%", False),
    ]  # fmt: skip
    assert facts(status)["Published"] == ("True", "Pushed")
    waiting = told(quantizedmodel(two), by_precision(INT4=built(0.9), INT8=RUNNING))
    assert (waiting.report, waiting.comparison) == (None, [])


def test_all_that_was_tried_and_measured_is_compared() -> None:
    status = told(quantizedmodel(LADDER), by_precision(INT4=built(0.5), INT8=built(0.9)))
    assert [(row.name, row.precision) for row in status.comparison] == [("small", "INT4"), ("small", "INT8")]
    assert status.report is not None


def test_a_single_variant_is_compared_with_nothing() -> None:
    status = told(quantizedmodel(LADDER), lambda _: built(0.9))
    assert (status.report, status.phase) == (None, "Succeeded")
    assert facts(status)["Published"] == ("True", "Pushed")


def test_without_measurements_there_is_nothing_to_compare() -> None:
    spec = {"variants": [{"name": "a"}, {"name": "b", "precision": "INT8"}]}
    status = told(quantizedmodel(spec), lambda _: report("image"))
    assert (status.phase, status.comparison, status.report) == ("Succeeded", [], None)
