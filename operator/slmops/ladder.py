"""How far each variant of a QuantizedModel is on its ladder of precisions, read from its Jobs and their reports. Pure.

A variant begins with the precision that it names. Where that is built and misses a gate, or cannot be built, the next one
of ``spec.fallback`` that keeps more is tried. A finished Job's report stands, so every pass climbs to the same rung.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from slmops.api.batch import GateStatus
from slmops.api.quantizedmodel import QuantizedModelSpec, VariantGate
from slmops.api.variant import Precision, Variant
from slmops.contract import Artifact, Compared, Pruned, Reason, Report
from slmops.figures import Figure, Shown, compression, quality_gates, significant
from slmops.jobs import JobState

KEEPS: Sequence[Precision] = ("INT4", "INT8", "FP16", "FP32")
"""From the least to the most."""
COMPARE = "compare"
"""Role of the Job that lays all variants side by side."""
INDEX = "index"
"""Role of the Job that publishes an index of variants for several platforms."""
NOT_CONVERTED = {Reason.CONVERSION_FAILED, Reason.VERIFICATION_FAILED}
"""Failures that are the precision's: another one may well be built."""
WORSE = {"WeightBytes", "SizeReduction", "WeightsReduction"}
"""Metrics in which a higher precision can only be worse, so there is nothing to climb for."""


@dataclass(frozen=True)
class Rung:
    """One precision of a variant, and what became of it."""

    variant: Variant
    job: str
    state: JobState
    gates: list[GateStatus] = field(default_factory=list)
    """What they said, once it is built."""
    figures: Shown = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether it is built and keeps all gates."""
        return self.state.phase == "Succeeded" and all(gate.outcome == "Passed" for gate in self.gates)

    @property
    def image(self) -> Artifact | None:
        """What was published, once it is built."""
        return self._report.artifacts.get("image") if self._report else None

    @property
    def pruned(self) -> Pruned | None:
        """What pruning has come to, once it is built."""
        return self._report.pruned if self._report else None

    @property
    def _report(self) -> Report | None:
        return self.state.report if self.state.phase == "Succeeded" else None


@dataclass(frozen=True)
class Climb:
    """A variant's rungs so far; the last one is what it is now."""

    rungs: tuple[Rung, ...]

    @property
    def now(self) -> Rung:
        """Where it stands."""
        return self.rungs[-1]


def forms(spec: QuantizedModelSpec, variant: Variant) -> Iterator[Variant]:
    """The variant, then the same in each precision to fall back to. What goes with INT4 alone goes with it; what is pruned
    stays pruned, since that was asked for and not found by itself."""
    yield variant
    kept = KEEPS.index(variant.precision)
    for precision in spec.fallback:
        if KEEPS.index(precision) > kept and _computes(variant, precision):
            kept = KEEPS.index(precision)
            yield Variant(name=variant.name, format=variant.format, precision=precision, target=variant.target)


def _computes(variant: Variant, precision: Precision) -> bool:
    """Whether there is a runtime for it: as the rule of a variant has it."""
    return precision != "FP16" or variant.format != "ONNX" or variant.target.device == "CUDA"


def rung(variant: Variant, job: str, state: JobState, gates: Sequence[VariantGate]) -> Rung:
    """What became of a precision."""
    report = state.report if state.phase == "Succeeded" else None
    if report is None:
        return Rung(variant, job, state)
    figures = compression(report.evaluation)
    return Rung(variant, job, state, quality_gates(gates, figures), figures)


def wanting(rung: Rung, gates: Sequence[VariantGate]) -> bool:
    """Whether a precision that keeps more may do better."""
    if rung.state.phase == "Failed":
        return rung.state.reason in NOT_CONVERTED
    if rung.state.phase != "Succeeded":
        return False
    told = list(zip(gates, rung.gates, strict=True))
    missed = [gate.metric for gate, said in told if said.outcome != "Passed"]
    measured = all(said.value is not None for _, said in told)  # what is not measured now will not be then
    return bool(missed) and measured and not WORSE.intersection(missed)


def comparison(climbs: Sequence[Climb]) -> tuple[str, tuple[Compared, ...]]:
    """What quality stands for, and all that was measured beside each other, in the order of the spec."""
    measured = [(rung, figures) for climb in climbs for rung in climb.rungs if (figures := rung.figures.get("model"))]
    measure = "Accuracy" if all("Accuracy" in figures for _, figures in measured) else "ExactMatch"
    rows = [_row(rung, figures, measure) for rung, figures in measured if {measure, "WeightBytes"} <= figures.keys()]
    best = [row.model_copy(update={"optimal": not any(_beats(other, row) for other in rows)}) for row in rows]
    return measure, tuple(best)


def _row(rung: Rung, figures: Mapping[str, Figure], measure: str) -> Compared:
    def value(name: str) -> float | None:
        return significant(figures[name].value) if name in figures else None

    image = rung.image
    memory = value("PeakMemory")
    return Compared(
        name=rung.variant.name, precision=rung.variant.precision, image=image.reference if image else "",
        outcome="Ready" if rung.passed else "Rejected", quality=value(measure) or 0.0, seconds=value("InferenceTime"),
        memory_bytes=None if memory is None else int(memory), weight_bytes=int(figures["WeightBytes"].value),
        pruned=rung.pruned, optimal=False,
    )  # fmt: skip


def _beats(other: Compared, row: Compared) -> bool:
    """Whether it is as good in everything that is known of both, and better in something."""
    costs = [
        (other.seconds, row.seconds),
        (other.memory_bytes, row.memory_bytes),
        (other.weight_bytes, row.weight_bytes),
    ]
    pairs = [(-other.quality, -row.quality), *((a, b) for a, b in costs if a is not None and b is not None)]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
