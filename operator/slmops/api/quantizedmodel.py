"""QuantizedModel: a model becomes one small image per target."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from slmops.api.base import ApiModel, Rule
from slmops.api.batch import ArtifactStatus, BatchStatus, GateStatus, Intervals, Number, ProgressStatus
from slmops.api.budget import Budget
from slmops.api.compress import Compress, PruningStatus
from slmops.api.evaluation import Evaluation, Limit, Measure
from slmops.api.generation import Generation
from slmops.api.resource import Column, Resource
from slmops.api.run import RunSpec
from slmops.api.sources import AdapterSource, ModelSource, Output
from slmops.api.variant import Calibration, Precision, Variant


class VariantGate(Limit):
    """A bound that each variant has to keep."""

    rules: ClassVar = (
        *Limit.rules,
        Rule("has(self.baseline) == (self.metric == 'SizeReduction')",
             "SizeReduction needs a baseline (FP32 or FP16), and no other metric has one", "baseline"),
    )  # fmt: skip

    metric: Literal[
        Measure, "WeightBytes", "SizeReduction", "AccuracyRetained", "PerplexityIncrease", "InferenceTimeReduction",
        "WeightsReduction", "PeakMemoryReduction",
    ]  # fmt: skip
    """What evaluation.metrics explains, or WeightBytes: bytes of the weights. SizeReduction: one minus their ratio to what
    all parameters of the model take in the baseline's precision. AccuracyRetained: Accuracy, where it is not measured
    ExactMatch, as a share of the unquantized model's. PerplexityIncrease: by how much of it the unquantized model's
    perplexity grows. InferenceTimeReduction, WeightsReduction, PeakMemoryReduction: one minus the ratio to the unquantized
    model in ONNX, FP32. A bound within the 95 % confidence interval of its figure makes the gate Inconclusive, which is no
    pass."""
    baseline: Literal["FP32", "FP16"] | None = None
    """Precision that SizeReduction compares with."""

    @property
    def figure(self) -> str:
        """The name of the figure that it bounds."""
        return f"{self.metric}{self.baseline or ''}"


class ModelImage(ApiModel):
    """How the images are made."""

    compression: Literal["None", "Zstd"] = "None"
    """Of the layers. Zstd halves FP32 weights of a model that was trained in BF16. All others shrink by 5 to 9 %, which
    only a slow network makes up for: nodes have to unpack them. Every node that mounts image volumes can."""


class QuantizedModelSpec(ApiModel):
    """The wanted variants."""

    model: ModelSource
    """The model to compress."""
    adapters: Annotated[
        list[AdapterSource], Field(max_length=16, json_schema_extra={"x-kubernetes-list-map-keys": ["name"]})
    ] = []
    """Adapters of the model that go into each image as they are, unquantized and a layer each, beside the compressed model.
    Whoever serves it chooses one, or none, with each request."""
    variants: Annotated[
        list[Variant], Field(min_length=1, max_length=16, json_schema_extra={"x-kubernetes-list-map-keys": ["name"]})
    ] = [Variant(name="cpu-int4")]
    """One image each."""
    compress: Compress | None = None
    """What is left out of the model before it becomes a variant; of each of them, and in each precision to fall back to.
    Gates compare with the model as it was."""
    calibration: Calibration | None = None
    """What GPTQ, AWQ and Wanda calibrate with. Needed by variants with those algorithms and by that method of pruning, not
    used by the others."""
    generation: Generation = Generation()
    """Defaults that the model is shipped with."""
    evaluation: Evaluation | None = None
    """What is measured of each variant and of the unquantized model, on data that it has to name. Needed for gates."""
    gates: Annotated[list[VariantGate], Field(max_length=16)] = []
    """Bounds that each variant has to keep."""
    fallback: Annotated[list[Precision], Field(max_length=3)] = []
    """What is built instead, one after the other, where a variant misses a gate or cannot be converted: the precisions
    among these that keep more than the one before. status.variants[].tried tells what was tried and why it was not good
    enough."""
    run: RunSpec = RunSpec()
    """Where and how the Jobs run, one a variant."""
    budget: Budget | None = None
    """What the Jobs of all variants may cost together, those of precisions that were not good enough among them."""
    image: ModelImage = ModelImage()
    """How the images are made."""
    output: Output
    """Where the images are published."""

    rules: ClassVar = (
        Rule("!has(self.evaluation) || has(self.evaluation.data)",
             "evaluation needs data: a QuantizedModel has no training data of which a part could be taken", "evaluation"),
        Rule("!has(self.gates) || size(self.gates) == 0 || has(self.evaluation)",
             "gates need evaluation.data: without it nothing is measured", "gates"),
        Rule("has(self.calibration) || !has(self.variants) || self.variants.all(v, !(v.algorithm in ['GPTQ', 'AWQ']))",
             "algorithms GPTQ and AWQ need calibration.data: records like those that the model will meet", "calibration"),
        Rule("!has(self.evaluation) || !has(self.variants) || self.variants.all(v, v.format in ['ONNX', 'Safetensors'])",
             "evaluation and gates go with variants of format ONNX and Safetensors: nothing here answers with the others;"
             " give those a QuantizedModel of their own", "evaluation"),
        Rule("!has(self.compress) || self.compress.prune.method != 'Wanda' || has(self.calibration)",
             "method Wanda needs calibration.data: it prunes by what the inputs of the layers are; or take Magnitude",
             "compress.prune.method"),
        Rule("!has(self.compress) || !has(self.variants) || self.variants.all(v, v.format in ['ONNX', 'Safetensors'])",
             "compress goes with variants of format ONNX and Safetensors: in others nobody would see whether zeros stay;"
             " give those a QuantizedModel of their own", "compress"),
        Rule("!has(self.adapters) || size(self.adapters) == 0 || !has(self.variants)"
             " || self.variants.all(v, v.format == 'ONNX')",
             "adapters go with variants of format ONNX: give the others a QuantizedModel of their own, of a FineTune that"
             " merges its adapter", "adapters"),
        Rule("!has(self.adapters) || size(self.adapters) == 0 || !has(self.variants)"
             " || self.variants.all(v, v.algorithm != 'AWQ')",
             "AWQ scales what adapters read, so that they would fit no more: take RTN, KQuant or GPTQ", "adapters"),
        Rule("!has(self.adapters) || size(self.adapters) == 0 || !has(self.compress)",
             "adapters were learned on the model with all of its weights: leave compress out, or give the pruned one a"
             " QuantizedModel of its own", "compress"),
    )  # fmt: skip


class TriedStatus(ApiModel):
    """A precision that was not good enough."""

    precision: str
    """Number format of the weights."""
    outcome: Literal["Rejected", "Failed"]
    """Rejected: built, and a gate was missed. Failed: it could not be built."""
    message: str
    """Why it was not good enough."""
    reference: str | None = None
    """The image, where one was built."""


class VerificationStatus(ApiModel):
    """How near the variant comes to the original, on fixed prompts and the first ones of the evaluation."""

    loads: bool
    """Whether its runtime has loaded it on the device that it is for; on the CPU it always has."""
    similarity: Number
    """Cosine of the logits of the next token, mean over the prompts."""
    greedy_agreement: Number
    """Share of greedy tokens that are the original's, up to the first other one."""


class PackedAdapterStatus(ApiModel):
    """An adapter in an image."""

    name: str
    """Name of the adapter."""
    layer: str
    """Digest of its layer: an adapter that stays the same keeps it, whatever else changes."""
    size: str
    """Size of its layer."""
    similarity: Number | None = None
    """Cosine similarity of the next-token logits with those of the unquantized model with this adapter."""


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
    format: str = "ONNX"
    """What the files are."""
    precision: str
    """Number format of the weights."""
    tried: Annotated[list[TriedStatus], Field(max_length=3)] = []
    """What was tried before."""
    architecture: str
    """CPU architecture it was built for."""
    device: str = "CPU"
    """What it computes on."""
    verification: VerificationStatus | None = None
    """How near it comes to the original."""
    adapters: Annotated[
        list[PackedAdapterStatus], Field(max_length=16, json_schema_extra={"x-kubernetes-list-map-keys": ["name"]})
    ] = []
    """The adapters in the image."""
    evaluation: dict[str, dict[str, Number]] = {}
    """Figures of the variant, of the unquantized reference, and their comparison."""
    intervals: Intervals = {}
    """95 % confidence intervals of those figures, lower and upper end."""
    gates: Annotated[list[GateStatus], Field(max_length=16)] = []
    """What each gate said."""
    pruning: PruningStatus | None = None
    """What pruning has come to."""
    progress: ProgressStatus | None = None
    """How far the Job is, and its running stage."""
    message: str | None = None
    """Why it failed or waits."""


class ComparisonRow(ApiModel):
    """One variant beside the others."""

    name: str
    """Name of the variant."""
    precision: str
    """Number format of the weights."""
    quality: str
    """Accuracy, where it is not measured ExactMatch."""
    latency: str | None = None
    """Median time of an answer."""
    memory: str | None = None
    """Most memory of the process while it answered."""
    size: str
    """Bytes of the weights."""
    sparsity: str | None = None
    """Share of zeros in the layers that were pruned."""
    optimal: bool
    """Whether no other variant is as good in all of these and better in one (Pareto)."""


class QuantizedModelStatus(BatchStatus):
    """What was made."""

    variants: Annotated[
        list[VariantStatus], Field(max_length=16, json_schema_extra={"x-kubernetes-list-map-keys": ["name"]})
    ] = []
    """What became of each variant."""
    ready: str | None = None
    """Variants that are published, of all: 1/2."""
    sizes: str | None = None
    """Sizes of the variants' images, in the order of the spec; - where there is none yet."""
    retained: str | None = None
    """AccuracyRetained of the variants, in the order of the spec; - where it is not measured."""
    comparison: Annotated[
        list[ComparisonRow],
        Field(max_length=64, json_schema_extra={"x-kubernetes-list-map-keys": ["name", "precision"]}),
    ] = []
    """The measured variants beside each other, once all are built or have failed."""
    report: str | None = None
    """The same as an OCI artefact: a page with pictures, and comparison.json for machines."""
    index: ArtifactStatus | None = None
    """All variants under one reference, where they are for more than one architecture and all gates have passed: a node
    that pulls it gets the first variant of the list that is for its own."""


class QuantizedModel(Resource[QuantizedModelSpec, QuantizedModelStatus]):
    """Compresses a model into one OCI image per variant, verified against the original, ready to be mounted."""

    plural = "quantizedmodels"
    short_names = ("qm",)
    columns = (
        Column("Phase", ".status.phase"),
        Column("Progress", ".status.progress.jobPercent", "integer"),
        Column("ETA", ".status.progress.jobEta"),
        Column("Variants", ".status.ready"),
        # Texts over all variants: of a path that finds several values the API server prints the first alone.
        Column("Sizes", ".status.sizes"),
        Column("Retained", ".status.retained"),
        Column("Signed", ".status.conditions[?(@.type=='Signed')].status", priority=1),
        Column("Reason", ".status.conditions[?(@.type=='Succeeded')].reason", priority=1),
        Column("Cost", ".status.cost.amount", priority=1),
        Column("Age", ".metadata.creationTimestamp", "date"),
    )

    spec: QuantizedModelSpec
    status: QuantizedModelStatus = QuantizedModelStatus()
