"""How weights are learned."""

from typing import Annotated, Literal

from pydantic import Field

from slmops.api.base import ApiModel


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
