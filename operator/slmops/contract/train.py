"""A training run."""

from typing import Literal

from slmops.contract.base import Message, Metric
from slmops.contract.filters import Filters
from slmops.contract.search import Search, Trial
from slmops.contract.sources import Data, Run, Sink, Source


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


class Checkpoint(Message):
    """How often a training's state is kept."""

    every_steps: int = 100
    keep: int = 2
    """The newest ones that stay."""


class Qlora(Message):
    """The frozen base in four bits while an adapter is learned (Dettmers et al. 2023, arXiv 2305.14314)."""

    quant_type: Literal["NF4", "FP4"] = "NF4"
    double_quant: bool = True
    """Quantize the scales of the blocks, too (section 3 of the paper)."""


class EarlyStopping(Message):
    """End the training once the loss on held-out records falls no more, and keep the weights of the best measurement."""

    patience: int = 3
    """Measurements without an improvement."""
    min_delta: float = 0.0
    """Nats by which the loss has to fall to count as an improvement."""


class Hyperparameters(Message):
    """The training loop's settings."""

    epochs: int = 3
    max_steps: int | None = None
    batch_size: int = 8
    gradient_accumulation: int = 1
    learning_rate: float = 2e-4
    scheduler: Literal["Constant", "Linear", "Cosine", "WarmupStableDecay"] = "Cosine"
    warmup_ratio: float = 0.03
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    precision: Literal["Auto", "FP32", "BF16", "FP16"] = "Auto"
    max_sequence_length: int = 1024
    gradient_checkpointing: bool = False
    packing: bool = False
    """Several records in a row of ``max_sequence_length`` tokens; they do not see each other."""
    evaluate_every: int | None = None
    """Steps between two measurements of the loss on held-out records; once an epoch when absent."""
    early_stopping: EarlyStopping | None = None
    seed: int = 42
    checkpoint: Checkpoint | None = None
    """Absent where there is no volume to keep it on."""


Task = Literal["Generation", "Classification", "Extraction", "Summarization"]
ANSWERS: dict[str, Task] = {"NLI": "Classification", "Summarization": "Summarization"}
"""What the answers of a distillation's ``task`` are, where the name tells."""


class Evaluation(Message):
    """What to measure on a held-out set once training is over."""

    data: Data | None = None
    """The training data's validation part when absent."""
    samples: int = 500
    """At most this many records, chosen by seed."""
    max_new_tokens: int = 128
    metrics: tuple[Metric, ...] = (Metric.EXACT_MATCH, Metric.INFERENCE_TIME, Metric.PEAK_MEMORY)
    task: Task = "Generation"
    """What an answer is; it decides what F1 is counted over."""
    compare: dict[str, Source] = {}
    """Other models measured on the same records in the same process, for example ``teacher`` and ``baseline``."""
    untrained_baseline: bool = True
    """Measure the model before its first training step too, as ``baseline``."""


class LayerPair(Message):
    """A layer of the student and the teacher's that it learns from, counted from 1."""

    student: int
    teacher: int


class Objective(Message):
    """What the student is taught: the teacher's words, its next-token distributions (Hinton et al. 2015), or what its
    layers hold (Romero et al. 2015) and where they look (Zagoruyko and Komodakis 2017)."""

    type: Literal["Labels", "Logits", "Features"] = "Labels"
    teacher: Source | None = None
    """The teacher's weights; needed for Logits and Features."""
    temperature: float = 2.0
    alpha: float = 0.5
    """Weight of what is beyond the words against the words."""
    top_k: int = 16
    """The teacher's probabilities kept per token."""
    layers: tuple[LayerPair, ...] = ()
    """Layers that are compared; spread evenly over the depth when empty."""
    attention: bool = False
    """Compare attention maps of those layers, too."""


class Contrast(Message):
    """Learn a better answer and to tell it from a worse one (Zhao et al. 2023, SLiC-HF, arXiv 2305.10425)."""

    margin: float = 1.0
    """By how many nats the better answer is to be likelier than the worse one."""


class TrainRun(Run):
    """Train a model: a student from a data set of answers, or an adapter on a base. One of ``base``/``architecture``.

    Publishes ``model`` (safetensors in the transformers layout; merged when the method makes an adapter and ``merge``),
    ``adapter`` where the method makes one, and ``logs``: the curves as TensorBoard reads them.
    """

    type: Literal["Train"] = "Train"
    nodes: int = 1
    """Pods that train together. The first one's host name is ``<run>-0.<run>``, the others count on."""
    base: Source | None = None
    architecture: Architecture | None = None
    method: Literal["Full", "LoRA", "QLoRA", "DoRA"] = "Full"
    engine: Literal["PyTorch", "Olive"] = "PyTorch"
    """Olive: the quantizer's image learns the adapter and publishes it; a second run adopts it."""
    adapter: Source | None = None
    """An adapter that was learned elsewhere: it is measured, merged and published, and nothing is learned."""
    lora: Lora = Lora()
    qlora: Qlora = Qlora()
    merge: bool = True
    layer: str = ""
    """Name of one of several adapters: it is published as ``layer``, too, an image of one layer with its files below
    ``/adapters/<name>``."""
    task: Task = "Generation"
    """What an answer is: records whose answers are none are refused."""
    contrast: Contrast | None = None
    """Every record of ``train`` has a worse answer, too."""
    template: str | None = None
    """Chat template (Jinja2) in place of the tokenizer's own; it is published with the model."""
    train: Data
    system_prompt: str | None = None
    """System message of every record of ``train``; the held-out ones are asked under it too, in place of their own."""
    validation: Data | None = None
    """Held out: the training is followed by it, and measured by it unless ``evaluation.data`` is set. Without a record in
    it, and without it, ``evaluation.data`` is for both."""
    validation_split: float = 0.1
    """Share of ``train`` held out when ``validation`` and ``evaluation.data`` are absent."""
    filters: Filters | None = None
    """What is dropped, and that a report on the data is published. Absent: only records without an answer, and those
    whose prompt is held out."""
    objective: Objective = Objective()
    hyperparameters: Hyperparameters = Hyperparameters()
    evaluation: Evaluation = Evaluation()
    base_task: Data | None = None
    """Measured before the training and after it, too, as ``baseTaskBefore`` and ``baseTask``."""
    trial: Trial | None = None
    """Set: this is a trial of a search."""
    searched: Search | None = None
    """The search that the hyperparameters come from: a page on it is published as ``search``."""
    output: Sink
