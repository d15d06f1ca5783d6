"""Figures of a report -> what status shows, and what gates say of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slmops import confidence
from slmops.api.base import quantity, ratio, seconds
from slmops.api.batch import GateStatus, Outcome
from slmops.api.evaluation import QualityGate
from slmops.api.quantizedmodel import VariantGate
from slmops.confidence import Interval
from slmops.contract import FIGURE_FIELDS, Figures, Metric

RATIOS = {"ExactMatch", "Accuracy", "F1", "BLEU", "ROUGE", "AccuracyRetained", "InferenceTimeReduction",
          "WeightsReduction", "PeakMemoryReduction", "ErrorRate", "BaseAccuracyRetained", "SizeReduction",
          "PerplexityIncrease", "Sparsity"}  # fmt: skip
TIMES = {"InferenceTime", "TimeToFirstToken", "RequestLatency"}
BYTES = {"PeakMemory", "WeightBytes"}
COMPARED = {
    "AccuracyRetained": ("Accuracy", "ExactMatch"),
    "InferenceTimeReduction": ("InferenceTime",),
    "WeightsReduction": ("WeightBytes",),
    "PeakMemoryReduction": ("PeakMemory",),
    "PerplexityIncrease": ("Perplexity",),
}
"""What a comparison is made from: the first that both have."""


BYTES_EACH = {"FP32": 4, "FP16": 2}
"""Of a parameter, by precision."""


@dataclass(frozen=True)
class Figure:
    """One figure in base units, exactly as it was measured, and how sure it is."""

    value: float
    interval: Interval | None = None
    """Within which the true value lies in 95 of 100 cases; None where it is exact, or where nobody can tell."""


Shown = Mapping[str, Mapping[str, Figure]]
"""Figures by model, then by name; the comparison of models stands among them as ``comparison``."""


def evaluation(measured: Mapping[str, Figures], reference: Sequence[str]) -> Shown:
    """All models' figures, and that of ``model`` with the first reference of which anything was measured."""
    out = {name: shown(figures) for name, figures in measured.items()}
    model = measured.get("model")
    against = next((measured[name] for name in reference if out.get(name)), None)
    compared = comparison(model, against) if model is not None and against is not None else {}
    if compared := compared | forgetting(measured):
        out["comparison"] = compared
    return out


def shown(figures: Figures) -> dict[str, Figure]:
    """A report's figures by their API names."""
    return {name: found for name in FIGURE_FIELDS if (found := _figure(figures, name)) is not None}


def _figure(figures: Figures, name: str) -> Figure | None:
    value = getattr(figures, FIGURE_FIELDS[name])
    if value is None:
        return None
    told = figures.intervals.get(name)
    return Figure(value, confidence.holding(value, told) if told is not None and told[0] <= told[1] else None)


def comparison(model: Figures, reference: Figures) -> dict[str, Figure]:
    """How the model compares; a ratio whose reference is missing, or zero or next to it, is left out."""
    both = model.accuracy is not None and reference.accuracy is not None
    out = {}
    for name, metric, reduction in (
        ("AccuracyRetained", Metric.ACCURACY if both else Metric.EXACT_MATCH, False),
        ("InferenceTimeReduction", Metric.INFERENCE_TIME, True),
        ("WeightsReduction", "WeightBytes", True),
        ("PeakMemoryReduction", Metric.PEAK_MEMORY, True),
    ):
        found = _share(
            _figure(model, metric), _figure(reference, metric), 0.0 if reduction else reference.correlation or 0.0
        )
        if found is not None:
            out[name] = _reduction(found) if reduction else found
    return out


def compression(measured: Mapping[str, Figures]) -> Shown:
    """A variant and the unquantized model, and what the variant has cost and saved."""
    out = dict(evaluation(measured, ("reference",)))
    model, reference = measured.get("model"), measured.get("reference")
    if model is None or reference is None:
        return out
    compared = dict(out.get("comparison", {}))
    # Both are measured on the same records, so no interval of the ratio follows from the two.
    grown = _share(_bare(model, Metric.PERPLEXITY), _bare(reference, Metric.PERPLEXITY), 0.0)
    if grown is not None:
        compared["PerplexityIncrease"] = Figure(grown.value - 1)
    if model.weight_bytes is not None and model.parameters:
        for precision, each in BYTES_EACH.items():
            compared[f"SizeReduction{precision}"] = Figure(1 - model.weight_bytes / (each * model.parameters))
    return out | ({"comparison": compared} if compared else {})


def _bare(figures: Figures, name: str) -> Figure | None:
    found = _figure(figures, name)
    return Figure(found.value) if found is not None else None


def forgetting(measured: Mapping[str, Figures]) -> dict[str, Figure]:
    """What an adaptation has cost on the base's own task. Below zero: it has helped there."""
    before, after = (
        _figure(measured[role], Metric.EXACT_MATCH) if role in measured else None
        for role in ("baseTaskBefore", "baseTask")
    )
    if before is None or after is None:
        return {}
    together = measured["baseTaskBefore"].correlation or 0.0
    sure = None
    if before.interval is not None and after.interval is not None:
        sure = confidence.difference(before.value, before.interval, after.value, after.interval, together)
    out = {"Forgetting": Figure(before.value - after.value, sure)}
    if (kept := _share(after, before, together)) is not None:
        out["BaseAccuracyRetained"] = kept
    return out


def _share(ours: Figure | None, theirs: Figure | None, correlation: float) -> Figure | None:
    """One figure as a share of another."""
    if ours is None or theirs is None or not theirs.value or not math.isfinite(share := ours.value / theirs.value):
        return None
    sure = None
    if ours.interval is not None and theirs.interval is not None:
        sure = confidence.ratio(ours.value, ours.interval, theirs.value, theirs.interval, correlation)
    return Figure(share, sure)


def _reduction(share: Figure) -> Figure:
    return Figure(1 - share.value, (1 - share.interval[1], 1 - share.interval[0]) if share.interval else None)


def values(evaluation: Shown) -> dict[str, dict[str, float]]:
    """The figures as status has them."""
    return {
        who: {name: significant(figure.value) for name, figure in found.items()} for who, found in evaluation.items()
    }


def intervals(evaluation: Shown) -> dict[str, dict[str, list[float]]]:
    """Their intervals as status has them, where there are any."""
    out = {
        who: {name: [significant(end) for end in f.interval] for name, f in found.items() if f.interval is not None}
        for who, found in evaluation.items()
    }
    return {who: found for who, found in out.items() if found}


def quality_gates(gates: Sequence[QualityGate | VariantGate], evaluation: Shown) -> list[GateStatus]:
    """What each gate says. A figure that was not measured is never a pass, nor is one that may as well lie on the other
    side of its bound. A figure on the edge of its interval is as sure as can be: nothing is more right than all."""
    known = {**evaluation.get("model", {}), **evaluation.get("comparison", {})}
    out = []
    for gate in gates:
        figure = known.get(gate.figure)
        limit = gate.min if gate.min is not None else gate.max
        assert limit is not None
        sign = "min" if gate.min is not None else "max"
        sure = figure.interval if figure is not None else None
        out.append(
            GateStatus(
                metric=gate.figure,
                outcome=_outcome(figure, sign, bound(limit)),
                value=None if figure is None else display(gate.metric, figure.value),
                interval=None if sure is None else " to ".join(display(gate.metric, end) for end in sure),
                bound=f"{sign} {limit}",
            )
        )
    return out


def passed(gates: Sequence[QualityGate], measured: Mapping[str, Figures], reference: Sequence[str]) -> bool:
    """Whether a report's figures let the model pass all gates."""
    return all(gate.outcome == "Passed" for gate in quality_gates(gates, evaluation(measured, reference)))


def incomparable(
    gates: Sequence[GateStatus], evaluation: Mapping[str, Mapping[str, float]], reference: str
) -> dict[str, str]:
    """The gates on a comparison that nobody can make, and why. ``evaluation`` as status has it."""
    out = {}
    for gate in (gate for gate in gates if gate.value is None and gate.metric in COMPARED):
        ours, theirs = (evaluation.get(who, {}) for who in ("model", reference))
        wanted = [name for name in COMPARED[gate.metric] if name in ours]
        name = next((name for name in wanted if name in theirs), None)
        if name is not None:
            out[gate.metric] = f"the {reference}'s {name} is {display(name, theirs[name])}"
        elif wanted:
            out[gate.metric] = f"of the {reference} no {wanted[0]} is known"
    return out


def _outcome(figure: Figure | None, sign: str, wanted: float) -> Outcome:
    if figure is None:
        return "Inconclusive"
    if figure.interval is not None and figure.interval[0] < wanted < figure.interval[1]:
        return "Inconclusive"
    return "Passed" if (figure.value >= wanted if sign == "min" else figure.value <= wanted) else "Failed"


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
