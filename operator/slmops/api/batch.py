"""The status that the three batch kinds have in common."""

from typing import Annotated, Literal

from pydantic import Field, WithJsonSchema

from slmops.api.base import ApiModel
from slmops.api.budget import CostStatus
from slmops.api.conditions import Condition
from slmops.api.resource import Column

Number = Annotated[float, WithJsonSchema({"type": "number"})]

Intervals = dict[str, dict[str, Annotated[list[Number], Field(min_length=2, max_length=2)]]]


class ProgressStatus(ApiModel):
    """How far the running stage is."""

    stage: str
    """What is being done."""
    step: int = 0
    """Done so far, in `unit`."""
    of: int = 0
    """In all; 0 when unknown."""
    unit: str | None = None
    """What is counted: Steps, Bytes, Samples, Records, Layers, Trials."""
    done: str | None = None
    """The same for people: 420/1200, 1.2Mi/3.4Mi."""
    percent: int | None = None
    """Share of the stage that is done."""
    loss: float | None = None
    """Training loss, smoothed."""
    tokens_per_second: float | None = None
    """Throughput."""
    eta: str | None = None
    """Expected time to the end of the stage."""
    part: str | None = None
    """Which stage of how many, where they are known beforehand: 3/7."""
    job_percent: int | None = None
    """Share of the whole Job that is done, its stages weighted by the time that they are expected to take."""
    job_eta: str | None = None
    """Expected time to the end of the Job. An estimate that gets better as the Job goes on."""
    last_checkpoint: int | None = None
    """Step of the newest checkpoint: where the training goes on if it is interrupted now."""
    resumes: int | None = None
    """How often the training went on from a checkpoint."""
    lost_steps: int | None = None
    """Steps that were lost with a pod and made again, as far as is known."""
    first_step: str | None = None
    """Time from the start of the pod to its first training step."""


class ArtifactStatus(ApiModel):
    """Something that was published."""

    reference: str
    """registry/repository@sha256:…"""
    size: str
    """Size of all layers."""


class CurvePointStatus(ApiModel):
    """The losses around one step, in nats for each token of an answer."""

    step: int
    """Optimizer steps done."""
    train_loss: float | None = None
    """Mean over the steps since the point before."""
    eval_loss: float | None = None
    """On held-out records."""


class LearningStatus(ApiModel):
    """How a training went."""

    steps: int
    """Optimizer steps that were made."""
    best_step: int | None = None
    """The step whose loss on held-out records was the lowest."""
    best_eval_loss: float | None = None
    """That loss, in nats for each token of an answer."""
    eval_loss: float | None = None
    """Loss of the published weights on held-out records."""
    stopped_early: bool = False
    """Whether early stopping ended it; the published weights are then those of bestStep."""
    overfitted: bool = False
    """Whether in the end the loss rose on held-out records while it fell on those that were trained on."""
    curve: Annotated[list[CurvePointStatus], Field(max_length=16)] = []
    """The losses over the training, thinned out; all points are in `logs`."""


Outcome = Literal["Passed", "Failed", "Inconclusive"]


class GateStatus(ApiModel):
    """What a gate said."""

    metric: str
    """What was measured."""
    outcome: Outcome
    """Inconclusive: the figure is missing, or nobody can tell on which side of the bound it lies."""
    value: str | None = None
    """What was seen."""
    interval: str | None = None
    """Its 95 % confidence interval, in the figure's unit; of a comparison with the stable revision of a rollout that of the
    ratio, as in 0.93 to 0.97 of stable."""
    doubt: str | None = None
    """Of a rollout, what makes it Inconclusive: an interval that is too wide, noise, a node that was disturbed, too few
    answers."""
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
    licenses: dict[str, str] = {}
    """Licences that the models among the inputs were found to have, as SPDX expressions."""
    verified: dict[str, str] = {}
    """Fingerprints of the keys that inputs were found to be signed with; where that was done without a key the identity,
    and its issuer in brackets."""
    progress: ProgressStatus | None = None
    """How far the running stage is."""
    evaluation: dict[str, dict[str, Number]] = {}
    """Figures by model (model, teacher, baseline, reference): what evaluation.metrics names, shares from 0 to 1, times in
    seconds, memory in bytes; WeightBytes, Parameters, Samples; and comparison: AccuracyRetained, InferenceTimeReduction,
    WeightsReduction, PeakMemoryReduction. Of a FineTune with a baseTask also baseTask and baseTaskBefore, the adapted model
    and the base on it, and in comparison BaseAccuracyRetained and Forgetting."""
    intervals: Intervals = {}
    """95 % confidence intervals of those figures, lower and upper end, where chance has a part in them."""
    gates: Annotated[list[GateStatus], Field(max_length=16)] = []
    """What each gate said."""
    cost: CostStatus | None = None
    """What all attempts have used."""
    conditions: Annotated[list[Condition], Field(max_length=16)] = []
    """The state, one aspect each."""


class TrainedStatus(BatchStatus):
    """What the kinds that train have in common, besides."""

    learning: LearningStatus | None = None
    """How the training went."""
    logs: ArtifactStatus | None = None
    """The curves as files for TensorBoard, as an OCI artefact."""


HOW_FAR = (
    Column("Phase", ".status.phase"),
    Column("Progress", ".status.progress.percent", "integer"),
    Column("Done", ".status.progress.done"),
    Column("Loss", ".status.progress.loss", "number"),
    Column("Tokens/s", ".status.progress.tokensPerSecond", "number"),
    Column("ETA", ".status.progress.eta"),
)
WHAT_CAME = (
    Column("Reason", ".status.conditions[?(@.type=='Succeeded')].reason", priority=1),
    Column("Checkpoint", ".status.progress.lastCheckpoint", "integer", priority=1),
    Column("Artifact", ".status.artifact.reference", priority=1),
    Column("Cost", ".status.cost.amount", priority=1),
    Column("Age", ".metadata.creationTimestamp", "date"),
)
"""Columns of the kinds that train: the first ones, and the last ones."""
