"""What a QuantizedModel prunes: in each of its variants and on each rung, under a name of its own."""

from typing import Any

import pytest

from slmops.api.quantizedmodel import QuantizedModel
from slmops.contract import Pruned, Report
from slmops.ladder import comparison
from slmops.plan.quantizedmodel import plan_quantizedmodel
from slmops.state import Observed, Plan
from slmops.status.quantizedmodel import quantizedmodel_status
from tests.unit.builders import DATA, NOW, SETTINGS, configuration, done, figures, quantizedmodel, report, together

TWO = {"variants": [{"name": "int4"}, {"name": "int8", "precision": "INT8"}]}
LEAN = {"compress": {"prune": {"sparsity": 0.3}}}
WANDA = {"compress": {"prune": {"method": "Wanda", "structure": "2:4"}}, "calibration": {"data": DATA, "samples": 32}}
CAME = Pruned(sparsity=0.3013, similarity=0.98765, packed_bytes=1 << 20, dense_packed_bytes=3 << 19)


def plan_of(resource: QuantizedModel, observed: Observed | None = None) -> Plan:
    return plan_quantizedmodel(resource, observed or Observed(), SETTINGS)


def built(exact_match: float = 0.9) -> Report:
    measured = {"model": figures(exact_match, weight_bytes=60), "reference": figures(0.9, weight_bytes=400)}
    return report("image", evaluation=measured, pruned=CAME)


def test_every_variant_is_pruned_and_what_is_not_keeps_its_name() -> None:
    dense, lean = plan_of(quantizedmodel(TWO)), plan_of(quantizedmodel(TWO | LEAN))
    assert [configuration(dense, index)["prune"] for index in (0, 1)] == [None, None]
    for index in (0, 1):
        assert configuration(lean, index)["prune"] == {"method": "Magnitude", "sparsity": 0.3, "structure": None}
    assert {step.name for step in dense.steps}.isdisjoint(step.name for step in lean.steps)


def test_wanda_gets_the_records_and_magnitude_does_not() -> None:
    assert configuration(plan_of(quantizedmodel(TWO | WANDA)))["calibration"]["samples"] == 32
    plain = TWO | LEAN | {"calibration": WANDA["calibration"]}
    assert configuration(plan_of(quantizedmodel(plain)))["calibration"] is None


def test_what_is_pruned_stays_pruned_in_the_next_precision() -> None:
    spec = LEAN | {"variants": [{"name": "small"}], "fallback": ["INT8"], "evaluation": {"data": DATA},
                   "gates": [{"metric": "AccuracyRetained", "min": "95%"}]}  # fmt: skip
    resource = quantizedmodel(spec)
    second = plan_of(resource, done(plan_of(resource), built(0.5)))
    run = configuration(second)
    assert (run["precision"], run["prune"]["sparsity"]) == ("INT8", 0.3)


def test_the_status_and_the_comparison_tell_what_has_come_of_it() -> None:
    resource = quantizedmodel(TWO | LEAN)
    observed = done(plan_of(resource), built(), built())
    plan = plan_of(resource, observed)
    status = quantizedmodel_status(resource, together(observed), plan, NOW)
    found = status.variants[0].pruning
    assert found is not None
    assert (found.sparsity, found.similarity) == (0.3013, 0.9877)
    assert (found.packed_size, found.dense_packed_size) == ("1Mi", "1.5Mi")
    assert [row.sparsity for row in status.comparison] == ["30.13%", "30.13%"]
    assert isinstance(plan.detail, tuple)
    assert comparison(plan.detail)[1][0].pruned == CAME


def test_of_what_is_not_pruned_nothing_is_told() -> None:
    resource = quantizedmodel()
    observed = done(plan_of(resource), report("image"))
    status = quantizedmodel_status(resource, observed, plan_of(resource, observed), NOW)
    assert status.variants[0].pruning is None


@pytest.mark.parametrize("prune", [{}, {"sparsity": 0}, {"sparsity": 1}, {"sparsity": -0.1}, {"structure": "5:4"},
                                   {"sparsity": 0.3, "method": "Random"}])  # fmt: skip
def test_what_cannot_be_meant_is_refused(prune: dict[str, Any]) -> None:
    if prune:
        with pytest.raises(ValueError, match="compress"):
            quantizedmodel({"compress": {"prune": prune}})
    with pytest.raises(ValueError, match="prune"):
        quantizedmodel({"compress": {}})
