"""Figures of a report -> what status shows, and what gates say of them."""

import math
from collections.abc import Mapping, Sequence

from slmops.api.base import quantity, ratio, seconds
from slmops.api.batch import GateStatus
from slmops.api.evaluation import QualityGate
from slmops.contract import Figures

RATIOS = {"ExactMatch", "AccuracyRetained", "InferenceTimeReduction", "WeightsReduction", "PeakMemoryReduction",
          "ErrorRate", "BaseAccuracyRetained"}  # fmt: skip
TIMES = {"InferenceTime", "TimeToFirstToken", "RequestLatency"}
BYTES = {"PeakMemory", "WeightBytes"}


def shown(figures: Figures) -> dict[str, float]:
    """A report's figures by their API names, in base units."""
    values = {
        "ExactMatch": figures.exact_match,
        "Perplexity": figures.perplexity,
        "InferenceTime": figures.inference_seconds,
        "PeakMemory": figures.peak_memory_bytes,
        "WeightBytes": figures.weight_bytes,
        "Parameters": figures.parameters,
        "Samples": figures.samples,
    }
    return {name: significant(value) for name, value in values.items() if value is not None}


def evaluation(measured: Mapping[str, Figures], reference: Sequence[str]) -> dict[str, dict[str, float]]:
    """All models' figures, and the comparison of ``model`` with the first reference that was measured."""
    out = {name: shown(figures) for name, figures in measured.items()}
    model = measured.get("model")
    against = next((measured[name] for name in reference if name in measured), None)
    compared = comparison(model, against) if model is not None and against is not None else {}
    if compared := compared | forgetting(measured):
        out["comparison"] = compared
    return out


def forgetting(measured: Mapping[str, Figures]) -> dict[str, float]:
    """What an adaptation has cost on the base's own task. Below zero: it has helped there."""
    before, after = (
        measured[role].exact_match if role in measured else None for role in ("baseTaskBefore", "baseTask")
    )
    if before is None or after is None:
        return {}
    kept = after / before if before else math.inf
    retained = {"BaseAccuracyRetained": significant(kept)} if math.isfinite(kept) else {}
    return {"Forgetting": significant(before - after)} | retained


def comparison(model: Figures, reference: Figures) -> dict[str, float]:
    """How the model compares; a ratio whose reference is missing, or zero or next to it, is left out."""
    out = {}
    for name, ours, theirs, reduction in (
        ("AccuracyRetained", model.exact_match, reference.exact_match, False),
        ("InferenceTimeReduction", model.inference_seconds, reference.inference_seconds, True),
        ("WeightsReduction", model.weight_bytes, reference.weight_bytes, True),
        ("PeakMemoryReduction", model.peak_memory_bytes, reference.peak_memory_bytes, True),
    ):
        if ours is not None and theirs and math.isfinite(share := ours / theirs):
            out[name] = significant(1 - share if reduction else share)
    return out


def quality_gates(gates: Sequence[QualityGate], figures: Mapping[str, Mapping[str, float]]) -> list[GateStatus]:
    """What each gate says. A figure that was not measured is never a pass."""
    known = {**figures.get("model", {}), **figures.get("comparison", {})}
    out = []
    for gate in gates:
        value = known.get(gate.metric)
        limit = gate.min if gate.min is not None else gate.max
        assert limit is not None
        sign = "min" if gate.min is not None else "max"
        outcome = "Inconclusive"
        if value is not None:
            wanted = bound(limit)
            outcome = "Passed" if (value >= wanted if sign == "min" else value <= wanted) else "Failed"
        out.append(
            GateStatus.model_validate(
                {
                    "metric": gate.metric,
                    "outcome": outcome,
                    "value": None if value is None else display(gate.metric, value),
                    "bound": f"{sign} {limit}",
                }
            )
        )
    return out


def bound(value: int | str) -> float:
    """A ``Bound`` in base units: ``92%`` is 0.92, ``200ms`` is 0.2, ``1.5m`` are minutes, ``600Mi`` is bytes."""
    text = str(value)
    if text.endswith("%"):
        return ratio(text)
    if text.endswith(("s", "m", "h")):
        whole, unit = _split(text)
        return whole * seconds(f"1{unit}")
    return float(quantity(value))


def _split(text: str) -> tuple[float, str]:
    number = text.rstrip("msh")
    return float(number), text[len(number) :]


def display(metric: str, value: float) -> str:
    """A figure for people, in its unit."""
    if metric in RATIOS:
        return f"{value * 100:.4g}%"
    if metric in TIMES:
        return f"{value * 1000:.4g}ms"
    if metric in BYTES:
        return size(int(value))
    return f"{value:.4g}"


def size(count: int) -> str:
    """Bytes for people: 1.8Mi."""
    value = float(count)
    for unit in ("", "Ki", "Mi", "Gi"):
        if value < 1024 or unit == "Gi":
            return f"{value:.4g}{unit}" if unit else str(count)
        value /= 1024
    raise AssertionError


def duration(whole_seconds: float) -> str:
    """Seconds for people: 6m10s."""
    total = round(whole_seconds)
    hours, rest = divmod(total, 3600)
    minutes, secs = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{secs}s" if minutes else f"{secs}s"


def significant(value: float) -> float:
    """Four significant digits: more would be noise, and a write each time that it changes."""
    return float(f"{value:.4g}") if abs(value) < 10000 else float(round(value))
