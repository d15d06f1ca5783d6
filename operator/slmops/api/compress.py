"""What makes a model smaller besides fewer bits: weights that are left out."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from slmops.api.base import ApiModel, exactly_one_of
from slmops.api.batch import Number


class Prune(ApiModel):
    """Weights that are set to zero before the model is quantized: those of the linear layers of its decoder. Embeddings,
    norms and head stay as they are."""

    rules: ClassVar = (exactly_one_of("sparsity", "structure"),)

    method: Literal["Magnitude", "Wanda"] = "Magnitude"
    """Which weights matter least. Magnitude: those nearest to zero in their layer. Wanda: for each output of a layer those
    whose magnitude times the norm of their input, over the records of `calibration`, is the smallest."""
    sparsity: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the weights of each layer that becomes zero, for example 0.3."""
    structure: Literal["1:2", "1:4", "2:4", "3:4", "4:8", "6:8"] | None = None
    """N:M: for each output, of each M consecutive inputs at most N keep their weight and at least M - N become zero. 2:4 is
    what the sparse units of some GPUs compute with."""


class Compress(ApiModel):
    """What is left out of the model."""

    prune: Prune
    """Weights that become zero."""


class PruningStatus(ApiModel):
    """What pruning has come to, measured on what was built."""

    sparsity: Number
    """Share of zeros among the weights of the pruned layers, from 0 to 1. Those that quantization rounds to zero count."""
    similarity: Number
    """Cosine of the logits of the next token before and after pruning, before anything is rounded; mean over the prompts
    of the verification."""
    packed_size: str
    """What the layer of weights takes when it is packed with Zstd, as `image.compression` does."""
    dense_packed_size: str
    """The same of this variant without pruning, which is built for this figure alone."""
