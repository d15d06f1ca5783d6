"""The status that the three batch kinds have in common."""

from typing import Annotated, Literal

from pydantic import Field, WithJsonSchema

from slmops.api.base import ApiModel
from slmops.api.budget import CostStatus
from slmops.api.conditions import Condition

Number = Annotated[float, WithJsonSchema({"type": "number"})]


class ProgressStatus(ApiModel):
    """How far the running stage is."""

    stage: str
    """What is being done."""
    step: int = 0
    """Steps done."""
    of: int = 0
    """Steps in all; 0 when unknown."""
    percent: int | None = None
    """Share of the stage that is done."""
    loss: float | None = None
    """Training loss, smoothed."""
    tokens_per_second: float | None = None
    """Throughput."""
    eta: str | None = None
    """Expected time to the end of the stage."""


class ArtifactStatus(ApiModel):
    """Something that was published."""

    reference: str
    """registry/repository@sha256:…"""
    size: str
    """Size of all layers."""


class GateStatus(ApiModel):
    """What a gate said."""

    metric: str
    """What was measured."""
    outcome: Literal["Passed", "Failed", "Inconclusive"]
    """Inconclusive: the figure is missing or too noisy to tell."""
    value: str | None = None
    """What was seen."""
    bound: str
    """What was asked for."""


class BatchStatus(ApiModel):
    """What the three batch kinds have in common."""

    phase: str | None = None
    """For people: the stage in one word. Machines read the conditions."""
    observed_generation: int | None = None
    """Generation of the spec that this status was computed from."""
    inputs: dict[str, str] = {}
    """What each source was resolved to, by digest or revision."""
    progress: ProgressStatus | None = None
    """How far the running stage is."""
    evaluation: dict[str, dict[str, Number]] = {}
    """Figures by model (model, teacher, baseline, reference): ExactMatch, InferenceTime in seconds, WeightBytes,
    PeakMemory in bytes, Samples; and comparison: AccuracyRetained, InferenceTimeReduction, WeightsReduction,
    PeakMemoryReduction."""
    gates: Annotated[list[GateStatus], Field(max_length=16)] = []
    """What each gate said."""
    cost: CostStatus | None = None
    """What all attempts have used."""
    conditions: Annotated[list[Condition], Field(max_length=16)] = []
    """The state, one aspect each."""
