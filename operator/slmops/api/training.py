"""How weights are learned."""

from typing import Annotated, Literal

from pydantic import Field

from slmops.api.base import ApiModel, Rule


class Checkpoint(ApiModel):
    """How often a training's state is kept on the volume of `run.volume`; also when its pod is told to stop."""

    every_steps: Annotated[int, Field(ge=1, le=1000000)] = 100
    """Optimizer steps between two checkpoints: at most so many are lost with a node."""
    keep: Annotated[int, Field(ge=1, le=100)] = 2
    """The newest ones that stay. One that was torn by a kill is skipped, so two are the least that is safe from a bad
    disk."""


class EarlyStopping(ApiModel):
    """When to end a training that learns nothing more. The published weights are those of the best measurement."""

    patience: Annotated[int, Field(ge=1, le=1000)] = 3
    """Measurements in a row without an improvement, after which training ends."""
    min_delta: Annotated[float, Field(ge=0, le=100)] = 0.0
    """How far the loss on held-out records has to fall to count as an improvement, in nats for each token."""


class Training(ApiModel):
    """How weights are learned. Defaults suit a small model; every value is used as it stands."""

    epochs: Annotated[int, Field(ge=1, le=1000)] = 3
    """Passes over the training data."""
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Upper bound on optimizer steps; training ends at whichever of epochs and maxSteps comes first."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 8
    """Records in one forward pass."""
    gradient_accumulation: Annotated[int, Field(ge=1, le=4096)] = 1
    """Forward passes that make one optimizer step. Each token of an answer has the same weight, whichever pass it is in."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-4
    """Peak learning rate of AdamW."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    """By which share of the learning rate each step shrinks the weights (AdamW)."""
    scheduler: Literal["Constant", "Linear", "Cosine", "WarmupStableDecay"] = "Cosine"
    """How the learning rate falls after the warm-up. WarmupStableDecay holds it, and lets it fall over the last fifth of
    the steps (Hägele et al. 2024, arXiv 2405.18392)."""
    warmup_ratio: Annotated[float, Field(ge=0, le=0.5)] = 0.03
    """Share of the steps over which the learning rate rises from zero."""
    precision: Literal["Auto", "FP32", "BF16", "FP16"] = "Auto"
    """Number format of the forward and backward pass; weights and optimizer state stay in FP32. Auto: BF16 where the GPU or
    the processor computes in it, else FP32. FP16 scales the loss and leaves out steps whose gradients overflow; BF16 needs
    neither."""
    max_sequence_length: Annotated[int, Field(ge=16, le=131072)] = 1024
    """Longer records are dropped and counted, never cut."""
    gradient_checkpointing: bool = False
    """Compute the activations of a layer again in the backward pass instead of keeping them: less memory, about a third
    more time, the same weights."""
    packing: bool = False
    """Fill rows of maxSequenceLength tokens with several records each, instead of padding one record to the length of
    the next. Records do not see each other. batchSize then counts rows."""
    evaluate_every: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps between two measurements of the loss on held-out records; once an epoch when absent."""
    early_stopping: EarlyStopping | None = None
    """End when the loss on held-out records falls no more. Without it all epochs are trained, and a rising loss is told
    as reason Overfitting."""
    checkpoint: Checkpoint = Checkpoint()
    """How often the training's state is kept. Needs `run.volume`, where it is kept by these defaults too."""
    seed: Annotated[int, Field(ge=0, le=4294967295)] = 42
    """Seed of everything random: same seed, data and hardware give the same weights."""


CHECKPOINT_NEEDS_VOLUME = Rule(
    "!has(self.training) || !has(self.training.checkpoint) || (has(self.run) && has(self.run.volume))",
    "training.checkpoint needs run.volume: what lies in a pod is lost with it",
    "training.checkpoint",
)
"""A rule of every spec that has both."""
