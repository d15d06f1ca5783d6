"""QuantizedModel: a model becomes one small image per target."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from slmops.api.base import ApiModel, Name, Rule
from slmops.api.batch import ArtifactStatus, BatchStatus, GateStatus, Intervals, Number, ProgressStatus
from slmops.api.evaluation import NO_BASE_TASK, Evaluation, QualityGate
from slmops.api.resource import Column, Resource
from slmops.api.run import RunSpec
from slmops.api.sources import ModelSource, Output


class Target(ApiModel):
    """What the variant is built for."""

    architecture: Literal["amd64", "arm64"] = "amd64"
    """CPU architecture of the nodes, as in kubernetes.io/arch."""


class Variant(ApiModel):
    """One form of the model, built as one image."""

    rules: ClassVar = (
        Rule(
            "!has(self.algorithm) || self.algorithm != 'KQuant' || self.precision == 'INT4'",
            "algorithm KQuant goes with precision INT4",
            "algorithm",
        ),
        # Compared with the default: the API server has filled it in before it asks.
        Rule("self.precision == 'INT4' || self.blockSize == 32", "blockSize goes with precision INT4", "blockSize"),
        Rule("self.precision == 'INT4' || self.symmetric", "symmetric goes with precision INT4", "symmetric"),
    )

    name: Name
    """Name of the variant, unique in the list."""
    precision: Literal["INT4", "INT8", "FP32"] = "INT4"
    """Number format of the weights."""
    algorithm: Literal["RTN", "KQuant"] = "RTN"
    """How weights are rounded: RTN to the nearest value, KQuant with more bits for the layers that need them."""
    block_size: Literal[16, 32, 64, 128, 256] = 32
    """Weights that share a scale (INT4)."""
    symmetric: bool = True
    """Whether zero is in the middle of the range (INT4)."""
    target: Target = Target()
    """What the variant is built for."""


class Generation(ApiModel):
    """Defaults that the model is shipped with (genai_config.json, Foundry Local)."""

    max_length: Annotated[int, Field(ge=16, le=131072)] = 2048
    """Prompt and answer together, in tokens; bounded by what the model was made for."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    """Randomness when a request does not say."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of the probability mass when a request does not say."""
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] = 1.0
    """Above 1 makes repetition unlikely."""


class ModelImage(ApiModel):
    """How the images are made."""

    compression: Literal["None", "Zstd"] = "None"
    """Of the layers. Zstd halves FP32 weights of a model that was trained in BF16. All others shrink by 5 to 9 %, which
    only a slow network makes up for: nodes have to unpack them. Every node that mounts image volumes can."""


class QuantizedModelSpec(ApiModel):
    """The wanted variants."""

    model: ModelSource
    """The model to compress."""
    variants: Annotated[
        list[Variant], Field(min_length=1, max_length=16, json_schema_extra={"x-kubernetes-list-map-keys": ["name"]})
    ] = [Variant(name="cpu-int4")]
    """One image each."""
    generation: Generation = Generation()
    """Defaults that the model is shipped with."""
    evaluation: Evaluation | None = None
    """What is measured of each variant and of the unquantized model, on data that it has to name. Needed for gates."""
    gates: Annotated[list[QualityGate], Field(max_length=16)] = []
    """Bounds that each variant has to keep."""
    run: RunSpec = RunSpec()
    """Where and how the Jobs run, one a variant."""
    image: ModelImage = ModelImage()
    """How the images are made."""
    output: Output
    """Where the images are published."""

    rules: ClassVar = (
        Rule("!has(self.evaluation) || has(self.evaluation.data)",
             "evaluation needs data: a QuantizedModel has no training data of which a part could be taken", "evaluation"),
        Rule("!has(self.gates) || size(self.gates) == 0 || has(self.evaluation)",
             "gates need evaluation.data: without it nothing is measured", "gates"),
        NO_BASE_TASK,
    )  # fmt: skip


class VariantStatus(ApiModel):
    """What became of one variant."""

    name: str
    """Name of the variant."""
    phase: str
    """For people: the stage in one word."""
    reference: str | None = None
    """The image: registry/repository@sha256:…"""
    size: str | None = None
    """Size of all layers."""
    precision: str
    """Number format of the weights."""
    architecture: str
    """CPU architecture it was built for."""
    evaluation: dict[str, dict[str, Number]] = {}
    """Figures of the variant, of the unquantized reference, and their comparison."""
    intervals: Intervals = {}
    """95 % confidence intervals of those figures, lower and upper end."""
    gates: Annotated[list[GateStatus], Field(max_length=16)] = []
    """What each gate said."""
    progress: ProgressStatus | None = None
    """How far the running stage is."""
    message: str | None = None
    """Why it failed or waits."""


class QuantizedModelStatus(BatchStatus):
    """What was made."""

    variants: Annotated[
        list[VariantStatus], Field(max_length=16, json_schema_extra={"x-kubernetes-list-map-keys": ["name"]})
    ] = []
    """What became of each variant."""
    ready: str | None = None
    """Variants that are published, of all: 1/2."""
    index: ArtifactStatus | None = None
    """All variants under one reference, where they are for more than one architecture and all gates have passed: a node
    that pulls it gets the first variant of the list that is for its own."""


class QuantizedModel(Resource[QuantizedModelSpec, QuantizedModelStatus]):
    """Compresses a model into one OCI image per variant, verified against the original, ready to be mounted."""

    plural = "quantizedmodels"
    short_names = ("qm",)
    columns = (
        Column("Phase", ".status.phase"),
        Column("Variants", ".status.ready"),
        Column("Size", ".status.variants[*].size"),
        Column("Retained", ".status.variants[*].evaluation.comparison.AccuracyRetained"),
        Column("Reason", ".status.conditions[?(@.type=='Succeeded')].reason", priority=1),
        Column("Age", ".metadata.creationTimestamp", "date"),
    )

    spec: QuantizedModelSpec
    status: QuantizedModelStatus = QuantizedModelStatus()
