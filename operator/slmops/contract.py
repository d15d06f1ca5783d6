"""What the operator and the container images say to each other, and nothing else.

The operator writes one of the ``*Run`` models as JSON into a ConfigMap; the image reads it from the single path it
gets as its argument. The image answers with a ``Report`` in its termination message and, while it runs, with
``Progress`` on ``GET /progress``. Images import this module and no other of the operator, so this file depends on
pydantic alone. Whatever comes back from a pod is untrusted: every text and number below is bounded.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

CONFIG_KEY = "run.json"
CONFIG_DIR = "/etc/slmops"
CONFIG_PATH = f"{CONFIG_DIR}/{CONFIG_KEY}"
WORK_DIR = "/work"
"""Writable scratch of every Job pod (an emptyDir); everything else of the root file system is read-only."""
MODEL_DIR = "/models"
"""Where an image volume with a model image is mounted; its files lie at ``/models/models/<name>``."""
PROGRESS_PORT = 9090
REPORT_LIMIT = 4096
"""Bytes that the kubelet keeps of a termination message."""
TERMINATION_PATH = "/dev/termination-log"

DATASET_TYPE = "application/vnd.slmops.dataset.v1"
MODEL_TYPE = "application/vnd.slmops.model.v1"
ADAPTER_TYPE = "application/vnd.slmops.adapter.v1"
REPORT_TYPE = "application/vnd.slmops.report.v1"


class Message(BaseModel):
    """Base of all messages: unknown fields are ignored, so that an older image reads a newer operator's file."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class Metric(StrEnum):
    """The figures that an evaluation or a benchmark can produce, named once for API, operator and images."""

    ACCURACY = "Accuracy"
    EXACT_MATCH = "ExactMatch"
    F1 = "F1"
    PERPLEXITY = "Perplexity"
    INFERENCE_TIME = "InferenceTime"
    PEAK_MEMORY = "PeakMemory"
    WEIGHT_BYTES = "WeightBytes"
    TOKENS_PER_SECOND = "TokensPerSecond"
    TIME_TO_FIRST_TOKEN = "TimeToFirstToken"  # noqa: S105  (a metric)
    REQUEST_LATENCY = "RequestLatency"
    ERROR_RATE = "ErrorRate"


# --- what a run reads and writes -------------------------------------------------------------------------------


class Credentials(Message):
    """A Secret's key mounted as a file; the value itself never appears in a message."""

    path: str
    """File inside the container: a token, or a ``config.json`` in Docker's format for registries."""


class Source(Message):
    """Where bytes come from: ``oci://``, ``https://``, ``hf://`` or ``pvc://`` (the scheme decides)."""

    uri: str
    credentials: Credentials | None = None


class ExampleFormat(StrEnum):
    """How one record of a data set looks."""

    MESSAGES = "Messages"
    """``{"messages": [{"role": "system"|"user"|"assistant", "content": str}, ...]}``"""
    PROMPT_COMPLETION = "PromptCompletion"
    """``{"prompt": str, "completion": str}``; the completion may be missing where only prompts are needed."""


class Data(Message):
    """A data set: JSON Lines in the given format. An OCI artefact or directory may hold several ``*.jsonl`` files."""

    source: Source
    format: ExampleFormat
    path: str | None = None
    """File inside the artefact or directory, for example ``train.jsonl``; every ``*.jsonl`` when absent."""


class Sink(Message):
    """A registry repository that a run pushes to; the digest it reports is the address of what it made."""

    repository: str
    """For example ``registry.example/slm/farm-assistant``, no tag."""
    credentials: Credentials | None = None


class Registry(Message):
    """How registries are reached."""

    plain_http: tuple[str, ...] = ()
    """Registry hosts (``host[:port]``) that speak HTTP without TLS: development clusters only."""


class Run(Message):
    """What all runs share."""

    run: str
    """Name of the run: the Job's name. It goes into the artefacts' annotations."""
    registry: Registry = Registry()
    annotations: dict[str, str] = {}
    """Added to everything that is pushed (kind, name, generation of the resource that asked for it)."""


class Sampling(Message):
    """How a teacher answers; the names and ranges are those of the OpenAI API."""

    temperature: float = 0.7
    top_p: float = 0.95
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0


class Endpoint(Message):
    """An OpenAI-compatible server."""

    url: str
    """Base URL including ``/v1``."""
    model: str
    credentials: Credentials | None = None
    concurrency: int = 8
    timeout_seconds: float = 60.0
    """Of one request."""
    startup_seconds: float = 300.0
    """How long a server that does not answer yet is waited for."""
    min_success_ratio: float = 0.7


class LabelRun(Run):
    """Have a teacher answer every prompt of a data set, and publish the answers as a data set.

    The result holds ``train.jsonl`` and ``validation.jsonl`` in Messages format. Exactly one of ``endpoint`` and
    ``model`` is set.
    """

    type: Literal["Label"] = "Label"
    endpoint: Endpoint | None = None
    model: Source | None = None
    sampling: Sampling = Sampling()
    system_prompt: str | None = None
    train: Data
    validation: Data | None = None
    validation_split: float = 0.1
    """Share of ``train`` held out when ``validation`` is absent; chosen by hash of the prompt, so it is stable."""
    deduplicate: bool = True
    max_tokens: int | None = None
    """Records longer than this (prompt and answer, in the teacher's or else whitespace tokens) are dropped."""
    seed: int = 42
    output: Sink


class Architecture(Message):
    """A decoder-only student made from nothing (Qwen2 layout: RMSNorm, rotary positions, grouped-query attention)."""

    hidden_size: int
    layers: int
    attention_heads: int
    key_value_heads: int
    intermediate_size: int
    vocabulary_size: int
    max_position_embeddings: int = 1024
    tokenizer: Source | None = None
    """A model whose tokenizer and chat template the student takes; a byte-level BPE is trained when absent."""


class Lora(Message):
    """Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685)."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    target_modules: tuple[str, ...] = ("all-linear",)


class Hyperparameters(Message):
    """The training loop's settings."""

    epochs: int = 3
    max_steps: int | None = None
    batch_size: int = 8
    gradient_accumulation: int = 1
    learning_rate: float = 2e-4
    scheduler: Literal["Constant", "Linear", "Cosine"] = "Cosine"
    warmup_ratio: float = 0.03
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    precision: Literal["FP32", "BF16"] = "BF16"
    max_sequence_length: int = 1024
    seed: int = 42


class Evaluation(Message):
    """What to measure on a held-out set once training is over."""

    data: Data | None = None
    """The training data's validation part when absent."""
    samples: int = 500
    """At most this many records, chosen by seed."""
    max_new_tokens: int = 128
    compare: dict[str, Source] = {}
    """Other models measured on the same records in the same process, for example ``teacher`` and ``baseline``."""
    untrained_baseline: bool = True
    """Measure the model before its first training step too, as ``baseline``."""


class Objective(Message):
    """What the student is taught: the teacher's words, or its next-token distributions (Hinton et al. 2015)."""

    type: Literal["Labels", "Logits"] = "Labels"
    teacher: Source | None = None
    """The teacher's weights; needed for Logits."""
    temperature: float = 2.0
    alpha: float = 0.5
    """Weight of the distribution loss against the label loss."""
    top_k: int = 16
    """The teacher's probabilities kept per token."""


class TrainRun(Run):
    """Train a model: a student from a data set of answers, or an adapter on a base. One of ``base``/``architecture``.

    Publishes ``model`` (safetensors in the transformers layout; merged when LoRA and ``merge``) and, for LoRA,
    ``adapter``.
    """

    type: Literal["Train"] = "Train"
    base: Source | None = None
    architecture: Architecture | None = None
    method: Literal["Full", "LoRA"] = "Full"
    lora: Lora = Lora()
    merge: bool = True
    train: Data
    validation: Data | None = None
    validation_split: float = 0.1
    objective: Objective = Objective()
    hyperparameters: Hyperparameters = Hyperparameters()
    evaluation: Evaluation = Evaluation()
    output: Sink


class Generation(Message):
    """Defaults that a quantized model is shipped with (``genai_config.json``, Foundry Local)."""

    max_length: int = 2048
    temperature: float = 0.7
    top_p: float = 0.9
    repetition_penalty: float = 1.0


class QuantizeRun(Run):
    """Build one variant of a model and publish it as a model image."""

    type: Literal["Quantize"] = "Quantize"
    model: Source
    name: str
    """Name of the model inside the image: its files lie at ``/models/<name>``."""
    variant: str
    precision: Literal["INT4", "INT8", "FP32"]
    algorithm: Literal["RTN", "KQuant"] = "RTN"
    block_size: int = 32
    symmetric: bool = True
    generation: Generation = Generation()
    architecture: Literal["amd64", "arm64"] = "amd64"
    evaluation: Evaluation | None = None
    """Measured on the built variant and, as ``reference``, on the unquantized model."""
    output: Sink


class ServeRun(Message):
    """How the edge runtime serves a model image (its configuration file, not a Job)."""

    type: Literal["Serve"] = "Serve"
    model_name: str
    """Name that clients ask for."""
    model_path: str
    """Folder with ``genai_config.json``; found by looking for it below this path."""
    revision: str = ""
    port: int = 8080
    max_queue: int = 32
    request_timeout_seconds: float = 60.0
    max_length: int | None = None


class PullRun(Message):
    """Prove that a model image is on the node and whole: it is mounted; list its files and hash them."""

    type: Literal["Pull"] = "Pull"
    run: str
    model_path: str


class Target(Message):
    """A running server to measure."""

    name: Literal["stable", "candidate"]
    url: str
    """``http://<pod address>:<port>``, no path."""
    model: str


class BenchRun(Run):
    """Measure one or two servers on the same node, taking turns, so that both see the same node in the same minute."""

    type: Literal["Bench"] = "Bench"
    targets: tuple[Target, ...]
    data: Data
    """Prompts with the expected answers (exact match is measured where a record has one)."""
    warmup: int = 1
    """Rounds that are run and thrown away."""
    rounds: int = 3
    prompts: int = 20
    """Prompts a round."""
    max_tokens: int = 64
    concurrency: int = 1
    timeout_seconds: float = 60.0
    seed: int = 42


AnyRun = Annotated[LabelRun | TrainRun | QuantizeRun | ServeRun | PullRun | BenchRun, Field(discriminator="type")]

# --- what a run says ---------------------------------------------------------------------------------------------


class Reason(StrEnum):
    """Why a run failed. Each has a remedy in the operator's ``status/remedies.py``."""

    INVALID_CONFIGURATION = "InvalidConfiguration"
    INVALID_DATA = "InvalidData"
    SOURCE_UNREACHABLE = "SourceUnreachable"
    SOURCE_NOT_FOUND = "SourceNotFound"
    SOURCE_UNAUTHORIZED = "SourceUnauthorized"
    UNSAFE_SOURCE = "UnsafeSource"
    UNSUPPORTED_MODEL = "UnsupportedModel"
    TEACHER_UNREACHABLE = "TeacherUnreachable"
    TOO_FEW_ANSWERS = "TooFewAnswers"
    REGISTRY_REFUSED = "RegistryRefused"
    REGISTRY_UNREACHABLE = "RegistryUnreachable"
    CONVERSION_FAILED = "ConversionFailed"
    VERIFICATION_FAILED = "VerificationFailed"
    TRAINING_DIVERGED = "TrainingDiverged"
    OUT_OF_MEMORY = "OutOfMemory"
    DISK_FULL = "DiskFull"
    TERMINATED = "Terminated"
    TARGET_UNREACHABLE = "TargetUnreachable"
    INTERNAL_ERROR = "InternalError"


LARGEST = 2**53 - 1
"""The largest whole number that every reader of JSON keeps exact; more of anything is a lie."""
Text = Annotated[str, Field(max_length=1024)]
Word = Annotated[str, Field(max_length=63)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Amount = Annotated[float, Field(ge=0, le=LARGEST)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class Artifact(Message):
    """Something that a run pushed."""

    reference: Annotated[str, Field(max_length=512, pattern=r"^[^\s@]+@sha256:[0-9a-f]{64}$")]
    """``registry/repository@sha256:…``"""
    size: Count
    """Bytes, all layers."""


class Figures(Message):
    """What was measured of one model. Absent means not measured, which is never the same as zero."""

    exact_match: Annotated[float, Field(ge=0, le=1)] | None = None
    perplexity: Annotated[float, Field(ge=1)] | None = None
    samples: Count | None = None
    inference_seconds: Amount | None = None
    """Median wall time of one whole answer."""
    peak_memory_bytes: Count | None = None
    weight_bytes: Count | None = None
    parameters: Count | None = None


class DatasetCounts(Message):
    """What became of the prompts."""

    prompts: Count
    labelled: Count
    kept: Count
    dropped: Annotated[dict[Word, Count], Field(max_length=32)] = {}
    tokens: Count = 0


class Round(Message):
    """One round of a benchmark against one target: medians and totals over its prompts."""

    time_to_first_token_seconds: Amount
    tokens_per_second: Amount
    request_seconds: Amount


class TargetFigures(Message):
    """What the benchmark saw of one server."""

    rounds: Annotated[tuple[Round, ...], Field(max_length=16)]
    time_to_first_token_p95_seconds: Amount | None = None
    request_p95_seconds: Amount | None = None
    requests: Count
    errors: Count
    exact_match: Annotated[float, Field(ge=0, le=1)] | None = None
    peak_memory_bytes: Count | None = None


class Report(Message):
    """How a run ended: JSON of at most 4096 bytes in the container's termination message."""

    outcome: Literal["Succeeded", "Failed"]
    reason: Reason | None = None
    message: Text = ""
    inputs: Annotated[dict[Text, Text], Field(max_length=16)] = {}
    """What each source was resolved to: ``oci://…@sha256:…``, ``hf://…@<commit>``."""
    artifacts: Annotated[dict[Word, Artifact], Field(max_length=16)] = {}
    dataset: DatasetCounts | None = None
    evaluation: Annotated[dict[Word, Figures], Field(max_length=8)] = {}
    """By role: ``student`` or ``model``, ``teacher``, ``baseline``, ``reference``."""
    targets: Annotated[dict[Word, TargetFigures], Field(max_length=2)] = {}
    seconds: Amount = 0.0
    """Wall time of the run, from its process's start."""


class Progress(Message):
    """``GET /progress`` of a running pod."""

    stage: Annotated[str, Field(max_length=32, pattern=r"^[A-Za-z][A-Za-z0-9 _-]*$")]
    """A word or two: it is printed on terminals as it stands."""
    step: Count = 0
    of: Count = 0
    loss: float | None = None
    tokens_per_second: Amount | None = None
    eta_seconds: Amount | None = None
