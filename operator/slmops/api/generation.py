"""How answers are generated where a request does not say: what a model is shipped with, and what a pool has instead."""

from typing import Annotated

from pydantic import Field

from slmops.api.base import ApiModel

Length = Annotated[int, Field(ge=16, le=131072)]
"""Of prompt and answer together, in tokens."""
Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(gt=0, le=1)]
RepetitionPenalty = Annotated[float, Field(gt=0, le=2)]


class Generation(ApiModel):
    """Defaults that the model is shipped with (genai_config.json, Foundry Local)."""

    max_length: Length = 2048
    """Prompt and answer together, in tokens; bounded by what the model was made for."""
    temperature: Temperature = 0.7
    """Randomness when a request does not say."""
    top_p: TopP = 0.9
    """Share of the probability mass when a request does not say."""
    repetition_penalty: RepetitionPenalty = 1.0
    """Above 1 makes repetition unlikely."""


class PoolGeneration(ApiModel):
    """How answers are generated where a request does not say."""

    max_length: Length | None = None
    """Prompt and answer together, in tokens; runtime.maxLength when absent."""
    temperature: Temperature | None = None
    """Randomness; 0 always takes the likeliest token. The model's own default when absent."""
    top_p: TopP | None = None
    """Share of the probability mass that is sampled from; the model's own default when absent."""
    repetition_penalty: RepetitionPenalty | None = None
    """Above 1 makes repetition unlikely; the model's own default when absent."""
