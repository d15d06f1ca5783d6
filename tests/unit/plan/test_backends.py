"""A format that the installation has no tool chain for is refused before any Job, with what to install."""

from typing import Any, get_args

import pytest

from slmops.api.conditions import ConditionType
from slmops.api.variant import Format
from slmops.plan.backends import NEEDS
from slmops.plan.quantizedmodel import plan_quantizedmodel
from slmops.settings import Quantizer, Settings
from slmops.state import Observed, Plan
from slmops.status.quantizedmodel import quantizedmodel_status
from tests.unit.builders import NOW, SETTINGS, done, jobs, quantizedmodel, report

GGUF = {"name": "phone", "format": "GGUF"}
ALL = Settings(quantizer=Quantizer(backends=get_args(Format)))


def plan_of(
    *variants: dict[str, Any], observed: Observed | None = None, settings: Settings = SETTINGS, **spec: Any
) -> Plan:
    return plan_quantizedmodel(quantizedmodel({"variants": list(variants)} | spec), observed or Observed(), settings)


@pytest.mark.parametrize("format", sorted(set(get_args(Format)) - {"ONNX", "Safetensors"}))
def test_what_no_tool_chain_makes_is_refused_and_starts_nothing(format: str) -> None:
    plan = plan_of({"name": "cpu"}, {"name": "other", "format": format})
    assert plan.problem is not None
    assert (plan.problem.condition, plan.problem.reason) == (ConditionType.ACCEPTED, "BackendUnavailable")
    assert not plan.problem.waiting
    assert f"spec.variants[other].format: {format} needs {NEEDS[format]}" in plan.problem.message  # type: ignore[index]
    assert "makes ONNX, Safetensors" in plan.problem.message
    assert f"add {format} to quantizer.backends" in plan.problem.message
    assert (plan.apply, plan.remove, plan.steps) == ((), (), ())


def test_it_is_told_before_the_model_is_there() -> None:
    plan = plan_of(GGUF, model={"fineTune": {"name": "not-there"}})
    assert plan.problem is not None
    assert plan.problem.reason == "BackendUnavailable"


def test_all_variants_that_cannot_be_built_are_named() -> None:
    plan = plan_of(GGUF, {"name": "cpu"}, {"name": "tablet", "format": "MLX"})
    assert plan.problem is not None
    assert "[phone]" in plan.problem.message
    assert "likewise tablet" in plan.problem.message


@pytest.mark.parametrize("format", get_args(Format))
def test_what_the_installation_has_a_tool_chain_for_is_built(format: str) -> None:
    plan = plan_of({"name": "other", "format": format}, settings=ALL)
    assert plan.problem is None
    assert len(jobs(plan)) == 1


def test_what_was_built_stays_when_the_tool_chain_is_gone() -> None:
    before = done(plan_of(GGUF, settings=ALL), report("image"))
    after = plan_of(GGUF, observed=before)
    assert after.problem is None
    assert (after.remove, len(after.steps)) == ((), 1)


def test_a_running_variant_is_not_taken_away_for_one_that_cannot_be_built() -> None:
    before = done(plan_of({"name": "cpu"}), report("image"))
    plan = plan_of({"name": "cpu"}, GGUF, observed=before)
    assert plan.problem is not None
    assert (plan.apply, plan.remove) == ((), ())


def test_the_status_says_so_in_accepted() -> None:
    resource = quantizedmodel({"variants": [GGUF]})
    plan = plan_quantizedmodel(resource, Observed(), SETTINGS)
    status = quantizedmodel_status(resource, Observed(), plan, NOW)
    accepted = next(c for c in status.conditions if c.type == "Accepted")
    assert (accepted.status, accepted.reason) == ("False", "BackendUnavailable")
    assert "docs/quantization.md" in accepted.message
    assert (status.phase, status.variants[0].format) == ("Failed", "GGUF")


def test_every_format_says_what_it_needs() -> None:
    assert set(NEEDS) == set(get_args(Format))
