"""Settings of adapters: small updates beside frozen weights."""

from typing import Annotated, Literal

from pydantic import Field

from slmops.api.base import ApiModel

LAYER = r"^[A-Za-z0-9_.-]+$"


class Lora(ApiModel):
    """Low-rank adaptation (Hu et al. 2021)."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of the update matrices."""
    alpha: Annotated[int, Field(ge=1, le=4096)] = 32
    """The update is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Dropout on the update's input while training."""
    target_modules: Annotated[
        list[Annotated[str, Field(pattern=LAYER, max_length=128)]], Field(min_length=1, max_length=32)
    ] = ["all-linear"]
    """Layers that get an update: names as in the model, or all-linear."""


class Qlora(ApiModel):
    """How the frozen base is held while a QLoRA adapter is learned (Dettmers et al. 2023)."""

    quant_type: Literal["NF4", "FP4"] = "NF4"
    """Four-bit format: NF4 is made for weights that are distributed normally, FP4 is a plain floating-point format."""
    double_quant: bool = True
    """Quantize the scales of the blocks, too: 0.4 bits less for each weight."""
