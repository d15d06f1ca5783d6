"""What a run says: how far it is, and how it ended. All of it is untrusted: every text and number is bounded."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from slmops.contract.base import LARGEST, Amount, Count, Digest, Message, Metric, Reference, Share, Signer, Text, Word
from slmops.contract.bench import Statistics, TargetFigures


class Reason(StrEnum):
    """Why a run failed. Each has a remedy in the operator's ``status/remedies.py``."""

    INVALID_CONFIGURATION = "InvalidConfiguration"
    INVALID_DATA = "InvalidData"
    SOURCE_UNREACHABLE = "SourceUnreachable"
    SOURCE_NOT_FOUND = "SourceNotFound"
    SOURCE_UNAUTHORIZED = "SourceUnauthorized"
    UNSAFE_SOURCE = "UnsafeSource"
    EGRESS_REFUSED = "EgressRefused"
    LICENSE_REFUSED = "LicenseRefused"
    KEY_UNUSABLE = "KeyUnusable"
    IDENTITY_REFUSED = "IdentityRefused"
    SIGNATURE_MISSING = "SignatureMissing"
    SIGNATURE_INVALID = "SignatureInvalid"
    PROVENANCE_MISSING = "ProvenanceMissing"
    UNSUPPORTED_MODEL = "UnsupportedModel"
    TEACHER_UNREACHABLE = "TeacherUnreachable"
    TOO_FEW_ANSWERS = "TooFewAnswers"
    REGISTRY_REFUSED = "RegistryRefused"
    REGISTRY_UNREACHABLE = "RegistryUnreachable"
    BACKEND_UNAVAILABLE = "BackendUnavailable"
    CONVERSION_FAILED = "ConversionFailed"
    VERIFICATION_FAILED = "VerificationFailed"
    INVALID_TEMPLATE = "InvalidTemplate"
    TRAINING_DIVERGED = "TrainingDiverged"
    ADAPTER_UNUSABLE = "AdapterUnusable"
    ADAPTER_MISMATCH = "AdapterMismatch"
    VOCABULARY_MISMATCH = "VocabularyMismatch"
    LAYER_NOT_FOUND = "LayerNotFound"
    OUT_OF_MEMORY = "OutOfMemory"
    DISK_FULL = "DiskFull"
    BUDGET_EXCEEDED = "BudgetExceeded"
    TERMINATED = "Terminated"
    TARGET_UNREACHABLE = "TargetUnreachable"
    INTERNAL_ERROR = "InternalError"


class Artifact(Message):
    """Something that a run pushed."""

    reference: Reference
    size: Count
    """Bytes, all layers."""
    documents: Annotated[tuple[Digest, ...], Field(max_length=4)] = ()
    """Documents that say how it was made and how good it is; they lie in the same repository and refer to it."""

    @property
    def digest(self) -> str:
        """``sha256:…``"""
        return self.reference.partition("@")[2]


class Figures(Message):
    """What was measured of one model. Absent means not measured, which is never the same as zero."""

    exact_match: Share | None = None
    accuracy: Share | None = None
    f1: Share | None = None
    bleu: Share | None = None
    rouge: Share | None = None
    perplexity: Annotated[float, Field(ge=1)] | None = None
    samples: Count | None = None
    inference_seconds: Amount | None = None
    """Median wall time of one whole answer."""
    first_token_seconds: Amount | None = None
    """Median wall time to the first token of an answer."""
    peak_memory_bytes: Count | None = None
    weight_bytes: Count | None = None
    parameters: Count | None = None
    intervals: Annotated[dict[Word, tuple[Amount, Amount]], Field(max_length=12)] = {}
    """95 % confidence intervals, by ``Metric``, in the figure's unit."""
    correlation: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Of a reference: phi coefficient of its right answers with the model's on the same records."""


FIGURE_FIELDS = {
    str(Metric.EXACT_MATCH): "exact_match",
    str(Metric.ACCURACY): "accuracy",
    str(Metric.F1): "f1",
    str(Metric.BLEU): "bleu",
    str(Metric.ROUGE): "rouge",
    str(Metric.PERPLEXITY): "perplexity",
    str(Metric.INFERENCE_TIME): "inference_seconds",
    str(Metric.TIME_TO_FIRST_TOKEN): "first_token_seconds",
    str(Metric.PEAK_MEMORY): "peak_memory_bytes",
    "WeightBytes": "weight_bytes",
    "Parameters": "parameters",
    "Samples": "samples",
}
"""The fields of ``Figures`` by their names in the API, in status, annotations and documents."""


class CurvePoint(Message):
    """The losses around one step, in nats for each token of an answer."""

    step: Count
    train_loss: Amount | None = None
    """Mean over the steps since the point before."""
    eval_loss: Amount | None = None
    """On held-out records."""


class Learning(Message):
    """How the training went."""

    steps: Count
    """Steps that were made."""
    best_step: Count | None = None
    """The step whose loss on held-out records was the lowest."""
    best_eval_loss: Amount | None = None
    eval_loss: Amount | None = None
    """Of the weights that are published, on held-out records."""
    stopped_early: bool = False
    """Ended by early stopping; the weights are those of ``best_step``."""
    overfitted: bool = False
    """In the end the loss rose on held-out records while it fell on those that were trained on."""
    endless: bool = False
    """The chat template ends an answer with no token of its own, so whoever generates does not see the end."""
    curve: Annotated[tuple[CurvePoint, ...], Field(max_length=16)] = ()


class Verification(Message):
    """How near a converted model comes to the original, in the runtime that will serve it."""

    loaded_on: Literal["CPU", "CUDA"] = "CPU"
    """What computed."""
    similarity: Annotated[float, Field(ge=-1, le=1)]
    """Cosine of the next-token logits, mean over the prompts."""
    greedy_agreement: Share
    """Share of greedy tokens that are the original's, up to the first other one."""
    prompts: Count


class Pruned(Message):
    """What pruning has come to, measured on the model that was built."""

    sparsity: Share
    """Share of zeros among the weights of the pruned layers, after quantization."""
    similarity: Annotated[float, Field(ge=-1, le=1)]
    """Cosine of the next-token logits before and after pruning alone, mean over the prompts."""
    packed_bytes: Count
    """Bytes of the layer of weights, packed with Zstandard."""
    dense_packed_bytes: Count
    """The same of the variant that is made without pruning."""


class PackedAdapter(Message):
    """An adapter in a model image."""

    layer: Digest
    """Of its layer."""
    size: Count
    """Bytes of its layer."""
    similarity: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Cosine of the next-token logits with those of the original with the adapter, mean over the prompts."""


class DatasetCounts(Message):
    """What became of the prompts."""

    prompts: Count
    labelled: Count
    kept: Count
    dropped: Annotated[dict[Word, Count], Field(max_length=32)] = {}
    tokens: Count = 0
    """In the kept answers."""
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    """Of all answers, those of earlier attempts too: what the data set has cost."""
    estimated: Count = 0
    """Answers whose tokens are estimated, because the teacher did not say."""
    reused: Count = 0
    """Answers that an earlier attempt had got."""


Value = (
    Annotated[int, Field(ge=0, le=LARGEST)]
    | Annotated[float, Field(ge=0, le=LARGEST)]
    | Annotated[str, Field(max_length=32)]
)
"""Of a hyperparameter."""


class TrialResult(Message):
    """What came of a trial of a search."""

    value: Amount | None = None
    """By which it is compared; absent when it was pruned."""
    pruned: bool = False
    """Ended before its time, because others were better."""
    measured: Annotated[tuple[Amount, ...], Field(max_length=64)] = ()
    """Losses on held-out records while it trained."""


class Report(Message):
    """How a run ended: JSON of at most 4096 bytes in the container's termination message."""

    outcome: Literal["Succeeded", "Failed"]
    reason: Reason | None = None
    message: Text = ""
    inputs: Annotated[dict[Text, Text], Field(max_length=24)] = {}
    """What each source was resolved to: ``oci://…@sha256:…``, ``hf://…@<commit>``."""
    licenses: Annotated[dict[Word, Annotated[str, Field(max_length=128)]], Field(max_length=24)] = {}
    """What licence each model among the inputs was found to have: an SPDX expression, by the input's role."""
    artifacts: Annotated[dict[Word, Artifact], Field(max_length=16)] = {}
    signer: Signer | None = None
    """The key that all artefacts named in the run were signed with, or who signed them."""
    verified: Annotated[dict[Word, Signer], Field(max_length=64)] = {}
    """By what key or by whom inputs were found to be signed, by the input's role."""
    dataset: DatasetCounts | None = None
    evaluation: Annotated[dict[Word, Figures], Field(max_length=8)] = {}
    """By role: ``student`` or ``model``, ``teacher``, ``baseline``, ``reference``."""
    learning: Learning | None = None
    verification: Verification | None = None
    """Of a converted model."""
    pruned: Pruned | None = None
    adapters: Annotated[dict[Word, PackedAdapter], Field(max_length=16)] = {}
    """Of a model image, by name."""
    trial: TrialResult | None = None
    suggestions: Annotated[tuple[Annotated[tuple[Value, ...], Field(max_length=11)], ...], Field(max_length=16)] = ()
    """Values of the next trials, each in the order of the space."""
    targets: Annotated[dict[Word, TargetFigures], Field(max_length=2)] = {}
    statistics: Statistics | None = None
    """Of a benchmark; absent in what images before 2026-12 say."""
    seconds: Amount = 0.0
    """Wall time of the run, from its process's start."""
    resumes: Count = 0
    """How often the training went on from a checkpoint."""
    lost_steps: Count = 0
    """Steps that were made, lost and made again."""


class Progress(Message):
    """``GET /progress`` of a running pod."""

    stage: Annotated[str, Field(max_length=32, pattern=r"^[A-Za-z][A-Za-z0-9 _-]*$")]
    """A word or two: it is printed on terminals as it stands."""
    unit: Annotated[str, Field(max_length=16, pattern=r"^[A-Z][a-z]*$")] = "Steps"
    """What is counted: Steps, Bytes, Samples, Records, Layers."""
    step: Count = 0
    of: Count = 0
    loss: float | None = None
    tokens_per_second: Amount | None = None
    eta_seconds: Amount | None = None
    part: Count = 0
    """Which stage of the run this is, counted from 1; 0 where nobody knows the stages beforehand."""
    parts: Count = 0
    """Stages of the run."""
    job_share: Share | None = None
    """How much of the whole run is done, its stages weighted by the time that they are expected to take."""
    job_eta_seconds: Amount | None = None
    """Expected time to the end of the run."""
    last_checkpoint: Count | None = None
    """Step of the newest checkpoint."""
    resumes: Count = 0
    """How often the training went on from a checkpoint."""
    lost_steps: Count = 0
    """Steps that were made, lost and made again."""
    first_step_at: Amount | None = None
    """When the first training step of this pod was reported, in seconds since 1970 by the clock of its node."""
