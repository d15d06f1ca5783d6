"""FineTune: a base model is adapted to a task."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from slmops.api.adapters import ADAPTERS, BASE_TASK, Adapters, AdapterStatuses, Task
from slmops.api.base import ApiModel, Rule, exactly_one_of
from slmops.api.batch import HOW_FAR, WHAT_CAME, ArtifactStatus, TrainedStatus
from slmops.api.budget import Budget
from slmops.api.data import DatasetStatus, FineTuneData
from slmops.api.evaluation import Evaluation, QualityGate
from slmops.api.lora import Lora, Qlora
from slmops.api.resource import Column, Resource
from slmops.api.run import TrainingRun
from slmops.api.search import SEARCH, BestTrial, Search, SearchStatus, TrialCounts
from slmops.api.sources import LicensePolicy, ModelSource, Output, PromptSource
from slmops.api.texts import TEXTS
from slmops.api.training import CHECKPOINT_NEEDS_VOLUME, Training


class Loss(ApiModel):
    """What is minimized."""

    rules: ClassVar = (
        Rule("self.type == 'Contrastive' || !has(self.margin)", "margin goes with type Contrastive", "margin"),
    )

    type: Literal["CrossEntropy", "Contrastive"] = "CrossEntropy"
    """CrossEntropy: of the answers' tokens. Contrastive: besides, the answer (completion) has to be likelier than a worse
    one (rejected) by a margin (SLiC-HF, Zhao et al. 2023); records are {"prompt": …, "completion": …, "rejected": …} in
    format PromptCompletion."""
    margin: Annotated[float, Field(ge=0, le=1000)] | None = None
    """By how many nats the answer is to be likelier than the worse one, summed over their tokens; 1 when absent."""


OLIVE = (
    Rule("self.engine == 'PyTorch' || self.method in ['LoRA', 'QLoRA']", "engine Olive goes with methods LoRA and QLoRA",
         "engine"),
    Rule("self.engine == 'PyTorch' || self.method != 'QLoRA' || !has(self.lora) || !has(self.lora.targetModules)",
         "Olive's QLoRA adapts all linear layers: leave lora.targetModules out", "lora.targetModules"),
    Rule("self.engine == 'PyTorch' || !has(self.run) || (self.run.nodes == 1 && !has(self.run.volume))",
         "Olive trains in one pod and keeps no checkpoints: leave run.nodes and run.volume out, or use engine PyTorch",
         "run"),
    Rule("self.engine == 'PyTorch' || !has(self.data) || !has(self.data.filters)",
         "Olive takes the records as they are: leave data.filters out, or use engine PyTorch", "data.filters"),
    Rule("self.engine == 'PyTorch' || !has(self.loss) || self.loss.type == 'CrossEntropy'",
         "Olive minimizes CrossEntropy: use engine PyTorch for Contrastive", "loss.type"),
    Rule("self.engine == 'PyTorch' || !has(self.training) || (!self.training.packing"
         " && !has(self.training.earlyStopping) && !has(self.training.evaluateEvery))",
         "Olive has no packing, earlyStopping and evaluateEvery: leave them out, or use engine PyTorch", "training"),
)  # fmt: skip


class FineTuneSpec(ApiModel):
    """The wanted adaptation."""

    rules: ClassVar = (
        CHECKPOINT_NEEDS_VOLUME,
        exactly_one_of("data", "adapters"),
        *ADAPTERS,
        BASE_TASK,
        *SEARCH,
        *TEXTS,
        Rule("self.method == oldSelf.method", "method cannot change, it decides what is published: make a new FineTune",
             "method"),
        Rule("self.method != 'Full' || !has(self.lora)", "lora goes with methods LoRA, QLoRA and DoRA", "lora"),
        Rule("self.method == 'QLoRA' || !has(self.qlora)", "qlora goes with method QLoRA", "qlora"),
        *OLIVE,
        Rule("!has(self.loss) || self.loss.type == 'CrossEntropy' || !has(self.data)"
             " || (has(self.data.train.format) && self.data.train.format == 'PromptCompletion')",
             "Contrastive needs records with a worse answer: data.train.format PromptCompletion with a field rejected",
             "loss.type"),
        Rule("!has(self.loss) || self.loss.type == 'CrossEntropy' || !has(self.training) || !self.training.packing",
             "packing goes with loss CrossEntropy: pairs of answers share a batch, not a row", "training.packing"),
    )  # fmt: skip

    base: ModelSource
    """The model that is adapted."""
    method: Literal["Full", "LoRA", "QLoRA", "DoRA"] = "LoRA"
    """Full: all weights. LoRA: small update matrices beside the frozen weights, published as an adapter. QLoRA: the same
    with the frozen weights held in four bits, for models that would not fit; the adapter is merged into the full-precision
    weights. DoRA: LoRA that learns size and direction of each weight's update apart (Liu et al. 2024)."""
    engine: Literal["PyTorch", "Olive"] = "PyTorch"
    """What trains. Olive: a workflow of Microsoft Olive with its pass LoRA or QLoRA; its result is then measured, merged
    and published in the same way."""
    task: Task = "Generation"
    """What an answer is. Generation: any text. Classification: a label; held-out labels are among those that are
    learned. Extraction: a JSON object or list. Summarization: shorter than what it sums up. Records whose answers are
    none are refused before the training."""
    loss: Loss = Loss()
    """What is minimized."""
    lora: Lora | None = None
    """Settings of the adapter, for methods LoRA, QLoRA and DoRA."""
    qlora: Qlora | None = None
    """Settings of the four-bit base, for method QLoRA."""
    data: FineTuneData | None = None
    """Records to learn from."""
    adapters: Adapters | None = None
    """Several adapters on the one base, each from records of its own. Each is trained by a Job of its own, measured and
    published by itself; all of them are then published as one image with a layer for each."""
    parallelism: Annotated[int, Field(ge=1, le=16)] | None = None
    """How many of the adapters train side by side; in turn, one after the other, when absent."""
    training: Training = Training()
    """How the weights are learned."""
    search: Search | None = None
    """Search for hyperparameters: several trainings with other values, then one with the best."""
    base_task: PromptSource | None = None
    """Held-out records of what the base is good at already. Base and adapted model are measured on them as well, and what
    the adaptation has cost there is Forgetting in status: ExactMatch before, less ExactMatch after."""
    evaluation: Evaluation = Evaluation()
    """What is measured at the end, for the adapted model and for the base."""
    gates: Annotated[list[QualityGate], Field(max_length=16)] = []
    """Bounds that the adapted model has to keep."""
    merge: bool | None = None
    """Publish the base with the adapter merged in, too; true when absent. QuantizedModel needs it. Of several adapters
    nothing is merged."""
    run: TrainingRun = TrainingRun()
    """Where and how the training Job runs."""
    budget: Budget | None = None
    """What the run may cost."""
    output: Output
    """Where results are published."""
    license_policy: LicensePolicy | None = None
    """Licences that the base may have: checked in the run before anything is done with it."""


class RerunStatus(ApiModel):
    """A run that was asked for besides, of the same spec."""

    why: str
    """What the annotation slmops.dev/retrain said: who asked for it, when and why."""
    at: str
    """When it was seen."""


class FineTuneStatus(TrainedStatus):
    """What was made."""

    retrain: RerunStatus | None = None
    """The last run that was asked for by the annotation slmops.dev/retrain. To take the annotation away changes nothing."""

    dataset: DatasetStatus | None = None
    """What became of the records."""
    adapter: ArtifactStatus | None = None
    """The adapter (LoRA, QLoRA, DoRA), as an OCI artefact in PEFT's layout."""
    artifact: ArtifactStatus | None = None
    """The full model: all weights (Full), or the base with the adapter merged in (with merge)."""
    adapters: AdapterStatuses = []
    """What became of each of several adapters."""
    ready: str | None = None
    """Adapters that are published and keep their gates, of all: 1/2."""
    trials: TrialCounts | None = None
    """How far a search is."""
    best: BestTrial | None = None
    """The best trial of a search so far; the last training has its values."""
    search: SearchStatus | None = None
    """How a search went."""
    image: ArtifactStatus | None = None
    """Several adapters as one OCI image: a layer for each, with its files below /adapters/<name>."""


class FineTune(Resource[FineTuneSpec, FineTuneStatus]):
    """Adapts a base model to a task, measures it against the base, and publishes adapter and merged model by digest."""

    plural = "finetunes"
    short_names = ("ft",)
    columns = (
        *HOW_FAR,
        Column("Exact-Match", ".status.evaluation.model.ExactMatch", "number"),
        Column("Adapters", ".status.ready"),
        Column("Forgetting", ".status.adapters[*].evaluation.comparison.Forgetting", priority=1),
        Column("Signed", ".status.conditions[?(@.type=='Signed')].status", priority=1),
        *WHAT_CAME,
    )

    spec: FineTuneSpec
    status: FineTuneStatus = FineTuneStatus()
