"""FineTune: a base model is adapted to a task."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from slmops.api.base import ApiModel, Rule
from slmops.api.batch import ArtifactStatus, BatchStatus
from slmops.api.budget import Budget
from slmops.api.evaluation import Evaluation, QualityGate
from slmops.api.resource import Column, Resource
from slmops.api.run import RunSpec
from slmops.api.sources import DataSource, ModelSource, Output, Share
from slmops.api.training import Training

LAYER = r"^[A-Za-z0-9_.-]+$"


class Lora(ApiModel):
    """Low-rank adaptation (Hu et al. 2021)."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of the update matrices."""
    alpha: Annotated[int, Field(ge=1, le=4096)] = 32
    """The update is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Dropout on the update's input while training."""
    target_modules: Annotated[
        list[Annotated[str, Field(pattern=LAYER, max_length=128)]], Field(min_length=1, max_length=32)
    ] = ["all-linear"]
    """Layers that get an update: names as in the model, or all-linear."""


class FineTuneData(ApiModel):
    """Records to learn from."""

    rules: ClassVar = (
        Rule("!(has(self.validation) && has(self.validationSplit))", "set validation or validationSplit, not both"),
    )

    train: DataSource
    """Records with answers."""
    validation: DataSource | None = None
    """Held-out records with answers."""
    validation_split: Share | None = None
    """Share of train that is held out when validation is absent; 0.1 when neither is set."""


class FineTuneSpec(ApiModel):
    """The wanted adaptation."""

    rules: ClassVar = (
        Rule("self.method == oldSelf.method", "method cannot change, it decides what is published: make a new FineTune",
             "method"),
        Rule("self.method == 'LoRA' || !has(self.lora)", "lora goes with method LoRA", "lora"),
    )  # fmt: skip

    base: ModelSource
    """The model that is adapted."""
    method: Literal["Full", "LoRA"] = "LoRA"
    """Full: all weights. LoRA: small update matrices beside the frozen weights, published as an adapter."""
    lora: Lora | None = None
    """Settings of method LoRA."""
    data: FineTuneData
    """Records to learn from."""
    training: Training = Training()
    """How the weights are learned."""
    evaluation: Evaluation = Evaluation()
    """What is measured at the end, for the adapted model and for the base."""
    gates: Annotated[list[QualityGate], Field(max_length=16)] = []
    """Bounds that the adapted model has to keep."""
    merge: bool = True
    """Publish the base with the adapter merged in, too. QuantizedModel needs it."""
    run: RunSpec = RunSpec()
    """Where and how the training Job runs."""
    budget: Budget | None = None
    """What the run may cost."""
    output: Output
    """Where results are published."""


class FineTuneStatus(BatchStatus):
    """What was made."""

    adapter: ArtifactStatus | None = None
    """The adapter (LoRA), as an OCI artefact in PEFT's layout."""
    artifact: ArtifactStatus | None = None
    """The full model: all weights (Full) or merged weights (LoRA with merge)."""


class FineTune(Resource[FineTuneSpec, FineTuneStatus]):
    """Adapts a base model to a task, measures it against the base, and publishes adapter and merged model by digest."""

    plural = "finetunes"
    short_names = ("ft",)
    columns = (
        Column("Phase", ".status.phase"),
        Column("Progress", ".status.progress.percent", "integer"),
        Column("ETA", ".status.progress.eta"),
        Column("Exact-Match", ".status.evaluation.model.ExactMatch", "number"),
        Column("Reason", ".status.conditions[?(@.type=='Succeeded')].reason", priority=1),
        Column("Artifact", ".status.artifact.reference", priority=1),
        Column("Age", ".metadata.creationTimestamp", "date"),
    )

    spec: FineTuneSpec
    status: FineTuneStatus = FineTuneStatus()
