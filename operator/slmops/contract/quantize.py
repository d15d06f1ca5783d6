"""A quantization run: one variant of a model."""

from typing import Literal

from slmops.contract.base import Message
from slmops.contract.sources import Data, Run, Sink, Source
from slmops.contract.train import Evaluation


class Generation(Message):
    """Defaults that a quantized model is shipped with (``genai_config.json``, Foundry Local)."""

    max_length: int = 2048
    temperature: float = 0.7
    top_p: float = 0.9
    repetition_penalty: float = 1.0


class Calibration(Message):
    """Records that GPTQ, AWQ and Wanda watch the model on."""

    data: Data
    samples: int = 128
    max_sequence_length: int = 512
    """Tokens of a record."""


class Prune(Message):
    """Set the weights that matter least to zero, before they are quantized. One of ``sparsity`` and ``structure``."""

    method: Literal["Magnitude", "Wanda"] = "Magnitude"
    sparsity: float | None = None
    """Share of the weights of each layer."""
    structure: str | None = None
    """``N:M``: of each M consecutive inputs of an output at most N stay."""


class QuantizeRun(Run):
    """Build one variant of a model and publish it as a model image."""

    type: Literal["Quantize"] = "Quantize"
    model: Source
    name: str
    """Name of the model inside the image: its files lie at ``/models/<name>``."""
    adapters: dict[str, Source] = {}
    """Adapters of the model by name: each becomes a file at ``/models/<name>/adapters``, in a layer of its own."""
    variant: str
    format: str = "ONNX"
    """What is made; the image knows which formats it has a tool chain for."""
    precision: Literal["INT4", "INT8", "FP16", "FP32"]
    algorithm: Literal["RTN", "KQuant", "GPTQ", "AWQ"] = "RTN"
    block_size: int = 32
    symmetric: bool = True
    calibration: Calibration | None = None
    """Set where the algorithm, or the method of pruning, needs it."""
    prune: Prune | None = None
    embeddings: bool = False
    """Whether the graph also gives the last hidden states."""
    generation: Generation = Generation()
    architecture: Literal["amd64", "arm64"] = "amd64"
    device: Literal["CPU", "CUDA"] = "CPU"
    evaluation: Evaluation | None = None
    """Measured on the built variant and, as ``reference``, on the unquantized model."""
    compression: Literal["None", "Zstd"] = "None"
    """Of the image's layers."""
    output: Sink
