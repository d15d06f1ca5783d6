"""A variant of a QuantizedModel: what a model is to become, and what it is calibrated with."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from slmops.api.base import ApiModel, Name, Rule
from slmops.api.sources import DataSource

Format = Literal["ONNX", "Safetensors", "GGUF", "OpenVINO", "MLX", "QNN", "TFLite", "PyTorchMobile"]
Precision = Literal["INT4", "INT8", "FP16", "FP32"]


class Target(ApiModel):
    """What the variant is built for."""

    architecture: Literal["amd64", "arm64"] = "amd64"
    """CPU architecture of the nodes, as in kubernetes.io/arch."""
    device: Literal["CPU", "CUDA"] = "CPU"
    """What computes (format ONNX). CUDA is for runtimes of your own: the edge runtime computes on the CPU. Such a variant
    is verified by its answers on a CPU, and nothing is timed."""


class Calibration(ApiModel):
    """Records that the algorithms GPTQ and AWQ watch the model on, and pruning by Wanda: they keep what matters there most
    exact."""

    data: DataSource
    """Records like those that the model will meet. Never fetched from anywhere else than named here."""
    samples: Annotated[int, Field(ge=1, le=4096)] = 128
    """At most this many records, the first ones of a fixed shuffle."""
    max_sequence_length: Annotated[int, Field(ge=16, le=32768)] = 512
    """Tokens of a record; longer ones are left out, texts are cut into several."""


class Variant(ApiModel):
    """One form of the model, built as one image."""

    rules: ClassVar = (
        Rule(
            "!has(self.algorithm) || self.algorithm == 'RTN' || self.precision == 'INT4'",
            "algorithms other than RTN go with precision INT4",
            "algorithm",
        ),
        Rule(
            "!has(self.algorithm) || self.algorithm != 'KQuant' || self.format in ['ONNX', 'GGUF']",
            "algorithm KQuant goes with format ONNX or GGUF",
            "algorithm",
        ),
        Rule(
            "!has(self.algorithm) || !(self.algorithm in ['GPTQ', 'AWQ']) || self.format in ['ONNX', 'Safetensors']",
            "algorithms GPTQ and AWQ go with format ONNX or Safetensors",
            "algorithm",
        ),
        Rule(
            "self.format != 'ONNX' || self.precision != 'FP16' || (has(self.target) && self.target.device == 'CUDA')",
            "the runtime computes ONNX in FP16 on no CPU: take FP32, or target.device CUDA, or another format",
            "precision",
        ),
        Rule(
            "!has(self.target) || self.target.device == 'CPU' || self.format == 'ONNX'",
            "target.device goes with format ONNX",
            "target",
        ),
        Rule(
            "self.format == 'ONNX' || !has(self.embeddings) || !self.embeddings",
            "embeddings goes with format ONNX: other runtimes have ways of their own",
            "embeddings",
        ),
        # Compared with the default: the API server has filled it in before it asks.
        Rule("self.precision == 'INT4' || self.blockSize == 32", "blockSize goes with precision INT4", "blockSize"),
        Rule("self.format != 'GGUF' || self.blockSize == 32", "blocks of GGUF have a size of their own", "blockSize"),
        Rule("self.precision == 'INT4' || self.symmetric", "symmetric goes with precision INT4", "symmetric"),
        Rule("!(self.format in ['GGUF', 'MLX']) || self.symmetric", "GGUF and MLX decide on symmetry", "symmetric"),
    )

    name: Name
    """Name of the variant, unique in the list."""
    format: Format = "ONNX"
    """What the files are, and so which runtime reads them. ONNX: the edge runtime, Foundry Local and others on ONNX Runtime
    GenAI. Safetensors: vLLM and others (INT4 and INT8 as compressed-tensors). GGUF: llama.cpp. Formats other than ONNX and
    Safetensors need their tool chain in the quantizer's image; where it is not, the variant is refused with reason
    BackendUnavailable."""
    precision: Precision = "INT4"
    """Number format of the weights."""
    algorithm: Literal["RTN", "KQuant", "GPTQ", "AWQ"] = "RTN"
    """How weights are rounded: RTN to the nearest value, KQuant with more bits for the layers that need them, GPTQ so that
    errors cancel out on the calibration data, AWQ with finer steps for the channels that are used most there."""
    block_size: Literal[16, 32, 64, 128, 256] = 32
    """Weights that share a scale (INT4)."""
    symmetric: bool = True
    """Whether zero is in the middle of the range (INT4). KQuant decides by itself."""
    embeddings: bool = False
    """Also give the last hidden states (format ONNX): the edge runtime then answers /v1/embeddings, too."""
    target: Target = Target()
    """What the variant is built for."""


CALIBRATED = ("GPTQ", "AWQ")
"""Algorithms that need calibration data."""
