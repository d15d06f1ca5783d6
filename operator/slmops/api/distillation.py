"""Distillation: a teacher's answers become a small student."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from slmops.api.base import ApiModel, Rule, exactly_one_of
from slmops.api.batch import HOW_FAR, WHAT_CAME, ArtifactStatus, TrainedStatus
from slmops.api.budget import Budget
from slmops.api.data import ONE_VALIDATION, DatasetStatus, LabellingFilters
from slmops.api.evaluation import NO_BASE_TASK, Evaluation, QualityGate
from slmops.api.lora import Lora
from slmops.api.objective import KNOWN_LAYERS, NEEDS_WEIGHTS, UNPACKED, Objective
from slmops.api.resource import Column, Resource
from slmops.api.run import ResumableRun, TrainingRun
from slmops.api.sources import LicensePolicy, ModelSource, Output, PromptSource, Share
from slmops.api.teacher import Task, Teacher, goes_with
from slmops.api.training import CHECKPOINT_NEEDS_VOLUME, Training


class Architecture(ApiModel):
    """A decoder-only model made from nothing (Qwen2 layout)."""

    rules: ClassVar = (
        Rule("self.hiddenSize % self.attentionHeads == 0", "hiddenSize must be a multiple of attentionHeads"),
        Rule("self.attentionHeads % self.keyValueHeads == 0", "attentionHeads must be a multiple of keyValueHeads"),
        Rule(
            "self.vocabularySize != self.hiddenSize && self.vocabularySize != self.intermediateSize",
            "vocabularySize must differ from hiddenSize and intermediateSize: converters tell the output layer by it",
        ),
    )

    hidden_size: Annotated[int, Field(ge=32, le=16384, multiple_of=8)] = 128
    """Width of the model."""
    layers: Annotated[int, Field(ge=1, le=256)] = 2
    """Number of decoder layers."""
    attention_heads: Annotated[int, Field(ge=1, le=256)] = 4
    """Attention heads a layer."""
    key_value_heads: Annotated[int, Field(ge=1, le=256)] = 2
    """Key and value heads a layer (grouped-query attention)."""
    intermediate_size: Annotated[int, Field(ge=32, le=65536)] = 384
    """Width of the feed-forward layers."""
    vocabulary_size: Annotated[int, Field(ge=300, le=1000000)] = 1024
    """Tokens of the tokenizer that is trained when `tokenizer` is absent."""
    tokenizer: ModelSource | None = None
    """Model whose tokenizer and chat template the student takes. The teacher's when the teacher is a model; else one is
    trained on the data."""


class Student(ApiModel):
    """Who learns: an existing model, or a new one."""

    rules: ClassVar = (
        exactly_one_of("model", "architecture"),
        Rule(
            "has(self.model) == has(oldSelf.model)",
            "a student cannot change between model and architecture: make a new Distillation",
        ),
        Rule("self.method == 'Full' || has(self.model)", "LoRA needs student.model: a new model has nothing to adapt",
             "method"),
        Rule("self.method == 'LoRA' || !has(self.lora)", "lora goes with method LoRA", "lora"),
    )  # fmt: skip

    model: ModelSource | None = None
    """A model to train further."""
    architecture: Architecture | None = None
    """A new model from scratch."""
    method: Literal["Full", "LoRA"] = "Full"
    """Full: all weights learn. LoRA: small update matrices beside the frozen weights of `model`, merged into them for
    publishing."""
    lora: Lora | None = None
    """Settings of method LoRA."""


class DistillationData(ApiModel):
    """Prompts for the teacher."""

    rules: ClassVar = (ONE_VALIDATION,)

    train: PromptSource
    """Prompts that the student learns from. Answers in the records are not shown to the teacher."""
    validation: PromptSource | None = None
    """Prompts for the evaluation. Where a record has an answer, it is what student and teacher are measured by. Beside
    evaluation.data they are what the training is followed by (early stopping), and the figures are those of
    evaluation.data."""
    validation_split: Share | None = None
    """Share of train that is held out when validation is absent; 0.1 when neither is set. Of an endpoint's prompts none is
    where evaluation.data is set: all that are paid for are learned from."""
    filters: LabellingFilters = LabellingFilters()
    """Which prompts are asked, and which of the teacher's answers are kept."""


class DistillationSpec(ApiModel):
    """The wanted student."""

    rules: ClassVar = (
        NEEDS_WEIGHTS,
        KNOWN_LAYERS,
        UNPACKED,
        CHECKPOINT_NEEDS_VOLUME,
        NO_BASE_TASK,
        goes_with("chainOfThought", "NLI", "NLUQuestionAnswering", "Math"),
        goes_with("chainOfDensity", "Summarization"),
        Rule(
            "!has(self.data.filters) || !has(self.data.filters.agreement) || (has(self.teacher.sampling)"
            " && has(self.teacher.sampling.samples) && self.data.filters.agreement <= self.teacher.sampling.samples)",
            "agreement of so many samples needs teacher.sampling.samples to be at least that",
            "data.filters.agreement",
        ),
    )

    teacher: Teacher
    """Who answers the prompts."""
    student: Student
    """Who learns from the answers."""
    data: DistillationData
    """The prompts."""
    task: Task | None = None
    """What the prompts are about, with the limits that go with it: at least 65 prompts to train on (40 for Math), and one
    user's message in each, except in conversations. No limits when absent."""
    objective: Objective = Objective()
    """What the student is taught."""
    training: Training = Training()
    """How the student learns."""
    evaluation: Evaluation = Evaluation()
    """What is measured at the end, for the student, the teacher and the untrained student."""
    gates: Annotated[list[QualityGate], Field(max_length=16)] = []
    """Bounds that the student has to keep."""
    run: TrainingRun = TrainingRun()
    """Where and how the training Job runs."""
    labelling: ResumableRun | None = None
    """Where and how the labelling Job runs, where that differs from `run`."""
    budget: Budget | None = None
    """What the run may cost."""
    output: Output
    """Where the data set and the student are published."""
    license_policy: LicensePolicy | None = None
    """Licences that student and teacher may have where they are models: checked in the run before anything is done with
    them. What licence a teacher's answers are under is not looked at."""


class LabelledStatus(DatasetStatus):
    """What became of the prompts, and what the answers have cost."""

    prompt_tokens: int = 0
    """Tokens that the teacher has read, by its own count."""
    completion_tokens: int = 0
    """Tokens that the teacher has written for the data set, dropped answers too, by its own count."""
    estimated: int = 0
    """Answers without a count of the teacher's; a quarter of their characters is counted instead."""
    reused: int = 0
    """Answers that an earlier attempt had got and that were not asked for again."""


class DistillationStatus(TrainedStatus):
    """What was made."""

    dataset: LabelledStatus | None = None
    """The labelled data set."""
    artifact: ArtifactStatus | None = None
    """The student: safetensors and tokenizer as an OCI artefact."""


class Distillation(Resource[DistillationSpec, DistillationStatus]):
    """Makes a small student from a teacher: has the teacher label prompts, trains the student on the answers, measures
    it against the teacher, and publishes it by digest."""

    plural = "distillations"
    short_names = ("distill",)
    columns = (
        *HOW_FAR,
        Column("Retained", ".status.evaluation.comparison.AccuracyRetained", "number"),
        Column("Signed", ".status.conditions[?(@.type=='Signed')].status", priority=1),
        *WHAT_CAME,
    )

    spec: DistillationSpec
    status: DistillationStatus = DistillationStatus()
