"""The shapes that several kinds share: sources, training, evaluation, gates, how a Job runs, where results go."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, WithJsonSchema

from slmops.api.base import (
    ApiModel,
    Bound,
    Duration,
    Name,
    Quantity,
    Rule,
    exactly_one_of,
)
from slmops.api.conditions import Condition

URI = r"^(hf://[A-Za-z0-9][^\s]*|(oci|https|http|pvc)://[A-Za-z0-9][^\s/@]*(/[^\s]*)?)$"
FILE = r"^[A-Za-z0-9_][-A-Za-z0-9._]*(/[A-Za-z0-9_][-A-Za-z0-9._]*)*$"
OBJECT_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
DATA_KEY = r"^[-._a-zA-Z0-9]+$"
REPOSITORY = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$"
DIGEST_REFERENCE = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+@sha256:[0-9a-f]{64}$"

Uri = Annotated[str, Field(pattern=URI, max_length=512)]


class SecretKey(ApiModel):
    """A key of a Secret in the same namespace. It is mounted into the Job; the operator never reads it."""

    secret: Annotated[str, Field(min_length=1, max_length=253, pattern=OBJECT_NAME)]
    """Name of the Secret."""
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=DATA_KEY)] | None = None
    """Key in the Secret; `.dockerconfigjson` for registries and `token` for everything else when absent."""


class Reference(ApiModel):
    """Another slmops resource in the same namespace."""

    name: Name
    """Name of the resource."""


class ModelSource(ApiModel):
    """Where a model comes from: an address, or the result of another resource."""

    rules: ClassVar = (
        exactly_one_of("uri", "distillation", "fineTune"),
        Rule("!has(self.credentials) || has(self.uri)", "credentials go with uri"),
    )

    uri: Uri | None = None
    """Address of a model in safetensors format: oci://repository[:tag|@sha256:…], hf://org/name[@revision],
    https://…, pvc://claim/path. Tags and revisions are resolved to a digest once."""
    distillation: Reference | None = None
    """The student of a Distillation, once it has succeeded."""
    fine_tune: Reference | None = None
    """The merged model of a FineTune, once it has succeeded."""
    credentials: SecretKey | None = None
    """Secret to read the address with."""


class DataSource(ApiModel):
    """A data set: JSON Lines, one record a line."""

    uri: Uri
    """Address of the data: oci://repository[:tag|@sha256:…] of an artefact that holds *.jsonl files, https:// of one
    such file, hf:// or pvc://claim/path."""
    path: Annotated[str, Field(max_length=256, pattern=FILE)] | None = None
    """File inside the artefact or folder, for example train.jsonl. All *.jsonl files when absent."""
    format: Literal["Messages", "PromptCompletion"] = "Messages"
    """How a record looks: Messages is {"messages": [{"role": …, "content": …}, …]}, PromptCompletion is
    {"prompt": …, "completion": …}."""
    credentials: SecretKey | None = None
    """Secret to read the address with."""


Share = Annotated[float, Field(ge=0.01, le=0.5)]


class Training(ApiModel):
    """How weights are learned. Defaults suit a small model; every value is used as it stands."""

    epochs: Annotated[int, Field(ge=1, le=1000)] = 3
    """Passes over the training data."""
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Upper bound on optimizer steps; training ends at whichever of epochs and maxSteps comes first."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 8
    """Records in one forward pass."""
    gradient_accumulation: Annotated[int, Field(ge=1, le=4096)] = 1
    """Forward passes that make one optimizer step."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-4
    """Peak learning rate of AdamW."""
    scheduler: Literal["Constant", "Linear", "Cosine"] = "Cosine"
    """How the learning rate falls after the warm-up."""
    warmup_ratio: Annotated[float, Field(ge=0, le=0.5)] = 0.03
    """Share of the steps over which the learning rate rises from zero."""
    precision: Literal["FP32", "BF16"] = "BF16"
    """Number format of the forward and backward pass; weights and optimizer state stay in FP32."""
    max_sequence_length: Annotated[int, Field(ge=16, le=131072)] = 1024
    """Longer records are dropped and counted, never cut."""
    seed: Annotated[int, Field(ge=0, le=4294967295)] = 42
    """Seed of everything random: same seed, data and hardware give the same weights."""


class Evaluation(ApiModel):
    """What is measured once a model is made, on records that it was not trained on."""

    data: DataSource | None = None
    """Held-out records with the expected answers. The validation part of the training data when absent."""
    samples: Annotated[int, Field(ge=1, le=100000)] = 500
    """At most this many records."""
    max_new_tokens: Annotated[int, Field(ge=1, le=32768)] = 128
    """Longest answer that is generated for a record."""


class QualityGate(ApiModel):
    """A bound that a made model has to keep, else the resource fails and nothing downstream takes the model."""

    rules: ClassVar = (exactly_one_of("min", "max"),)

    metric: Literal["ExactMatch", "AccuracyRetained", "InferenceTimeReduction", "WeightsReduction", "InferenceTime"]
    """ExactMatch: share of answers equal to the expected ones. AccuracyRetained: ExactMatch as a share of the
    reference's (teacher, base or unquantized model). InferenceTimeReduction, WeightsReduction: one minus the ratio to
    the reference. InferenceTime: median time of an answer."""
    min: Bound | None = None
    """Smallest value that passes, for example 92%."""
    max: Bound | None = None
    """Largest value that passes, for example 200ms."""


class Toleration(ApiModel):
    """A taint that the pods tolerate, as in a Pod."""

    key: str | None = None
    """Taint key; all keys when absent with operator Exists."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """How key and value are compared."""
    value: str | None = None
    """Taint value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Taint effect; all effects when absent."""


class Resources(ApiModel):
    """Compute resources of a container, as in a Pod."""

    requests: Annotated[dict[str, Quantity], Field(max_length=16)] = {}
    """What the scheduler sets aside."""
    limits: Annotated[dict[str, Quantity], Field(max_length=16)] = {}
    """What the container may not exceed. GPUs are asked for here: nvidia.com/gpu: 1."""


class RunSpec(ApiModel):
    """Where and how Jobs run."""

    image: Annotated[str, Field(pattern=DIGEST_REFERENCE, max_length=512)] | None = None
    """Image to run instead of the installation's own, by digest."""
    resources: Resources = Resources()
    """Compute resources of the container; the installation's defaults fill what is absent."""
    node_selector: dict[str, str] = {}
    """Labels that a node must have."""
    tolerations: Annotated[list[Toleration], Field(max_length=16)] = []
    """Taints that are tolerated."""
    priority_class_name: Annotated[str, Field(max_length=253)] | None = None
    """PriorityClass of the pods."""
    deadline: Duration = "24h"
    """The Job is stopped and fails after this time."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """Further attempts after a failure that may pass by itself. Preemption, eviction and node loss do not count, and
    failures that a retry cannot mend (bad data, bad configuration) are not tried again."""


class Output(ApiModel):
    """Where results are published."""

    repository: Annotated[str, Field(pattern=REPOSITORY, max_length=255)]
    """OCI repository without tag, for example registry.example/slm/farm-assistant."""
    credentials: SecretKey | None = None
    """Secret of type kubernetes.io/dockerconfigjson with the right to push."""


# --- status ------------------------------------------------------------------------------------------------------

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
    conditions: Annotated[list[Condition], Field(max_length=16)] = []
    """The state, one aspect each."""
