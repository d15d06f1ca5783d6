"""Several adapters on one base: each a training with records of its own, published as a layer of its own."""

from typing import Annotated, Literal

from pydantic import Field

from slmops.api.base import ApiModel, Name, Rule
from slmops.api.batch import GateStatus, Intervals, LearningStatus, Number, ProgressStatus
from slmops.api.data import DatasetStatus, FineTuneData
from slmops.api.evaluation import Evaluation, QualityGate
from slmops.api.lora import Lora

Task = Literal["Generation", "Classification", "Extraction", "Summarization"]
MOST = 16


class Adapter(ApiModel):
    """One of several adapters. What is absent is as in the spec of the whole."""

    name: Name
    """Name of the adapter. Its Jobs, and its files in the image of all adapters, are named after it."""
    data: FineTuneData
    """Records to learn from."""
    lora: Lora | None = None
    """Settings of this adapter, in place of spec.lora as a whole."""
    task: Task | None = None
    """What an answer is."""
    evaluation: Evaluation | None = None
    """What is measured of this adapter, in place of spec.evaluation as a whole."""
    gates: Annotated[list[QualityGate], Field(max_length=16)] | None = None
    """Bounds that this adapter has to keep, in place of spec.gates."""


Adapters = Annotated[
    list[Adapter], Field(min_length=1, max_length=MOST, json_schema_extra={"x-kubernetes-list-map-keys": ["name"]})
]

ADAPTERS = (
    Rule("!has(self.adapters) || self.method != 'Full'",
         "several adapters go with methods LoRA, QLoRA and DoRA: Full changes the base that they share", "method"),
    Rule("!has(self.adapters) || !has(self.merge) || !self.merge",
         "of several adapters nothing is merged: leave merge out, or make a FineTune of each adapter that is to be merged",
         "merge"),
    Rule("!has(self.parallelism) || has(self.adapters)", "parallelism goes with adapters", "parallelism"),
    Rule("!has(self.adapters) || !has(self.evaluation) || !has(self.evaluation.data)",
         "each adapter is measured on records of its own: set adapters[].evaluation.data", "evaluation.data"),
    Rule("!has(self.adapters) || self.engine == 'PyTorch' || self.adapters.all(a, !has(a.data.filters))",
         "Olive takes the records as they are: leave adapters[].data.filters out, or use engine PyTorch", "adapters"),
    Rule("!has(self.adapters) || self.engine == 'PyTorch' || self.method != 'QLoRA'"
         " || self.adapters.all(a, !has(a.lora) || !has(a.lora.targetModules))",
         "Olive's QLoRA adapts all linear layers: leave adapters[].lora.targetModules out", "adapters"),
    Rule("!has(self.adapters) || !has(self.loss) || self.loss.type == 'CrossEntropy'"
         " || self.adapters.all(a, has(a.data.train.format) && a.data.train.format == 'PromptCompletion')",
         "Contrastive needs records with a worse answer: adapters[].data.train.format PromptCompletion with a field"
         " rejected", "loss.type"),
)  # fmt: skip
"""Rules of a spec that may have several."""

BASE_TASK = Rule(
    "has(self.baseTask) || ((!has(self.gates) || self.gates.all(g, g.metric != 'BaseAccuracyRetained'))"
    " && (!has(self.adapters)"
    " || self.adapters.all(a, !has(a.gates) || a.gates.all(g, g.metric != 'BaseAccuracyRetained'))))",
    "BaseAccuracyRetained needs baseTask: without it nothing is measured of what the base was good at",
    "baseTask",
)


class AdapterStatus(ApiModel):
    """What became of one of several adapters."""

    name: str
    """Name of the adapter."""
    phase: str
    """For people: the stage in one word."""
    reference: str | None = None
    """The adapter by itself, as an OCI artefact in PEFT's layout: registry/repository@sha256:…"""
    size: str | None = None
    """Size of all layers."""
    layer: str | None = None
    """The same as an image of one layer, which the image of all adapters has too."""
    logs: str | None = None
    """The curves as files for TensorBoard, as an OCI artefact."""
    inputs: dict[str, str] = {}
    """What each source was resolved to, by digest or revision."""
    dataset: DatasetStatus | None = None
    """What became of the records."""
    evaluation: dict[str, dict[str, Number]] = {}
    """Figures of the base with this adapter (model), of the base alone (baseline), of both on the base's own task
    (baseTask, baseTaskBefore), and their comparison, with Forgetting."""
    intervals: Intervals = {}
    """95 % confidence intervals of those figures, lower and upper end."""
    gates: Annotated[list[GateStatus], Field(max_length=16)] = []
    """What each gate said."""
    learning: LearningStatus | None = None
    """How the training went."""
    progress: ProgressStatus | None = None
    """How far the running stage is."""
    message: str | None = None
    """Why it failed or waits."""


AdapterStatuses = Annotated[
    list[AdapterStatus], Field(max_length=MOST, json_schema_extra={"x-kubernetes-list-map-keys": ["name"]})
]
