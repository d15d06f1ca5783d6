"""What is measured of a made model, and the bounds it has to keep."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from slmops.api.base import ApiModel, Bound, Rule, exactly_one_of
from slmops.api.sources import DataSource


class Evaluation(ApiModel):
    """What is measured once a model is made, on records that it was not trained on."""

    data: DataSource | None = None
    """Held-out records with the expected answers. The validation part of the training data when absent."""
    samples: Annotated[int, Field(ge=1, le=100000)] = 500
    """At most this many records."""
    max_new_tokens: Annotated[int, Field(ge=1, le=32768)] = 128
    """Longest answer that is generated for a record."""


class QualityGate(ApiModel):
    """A bound that a made model has to keep, else the resource fails and nothing downstream takes the model."""

    rules: ClassVar = (exactly_one_of("min", "max"),)

    metric: Literal[
        "ExactMatch", "AccuracyRetained", "InferenceTimeReduction", "WeightsReduction", "InferenceTime",
        "BaseAccuracyRetained",
    ]  # fmt: skip
    """ExactMatch: share of answers equal to the expected ones. AccuracyRetained: ExactMatch as a share of the
    reference's (teacher, base or unquantized model). InferenceTimeReduction, WeightsReduction: one minus the ratio to
    the reference. InferenceTime: median time of an answer. BaseAccuracyRetained: ExactMatch of a FineTune
    on its baseTask as a share of the base's."""
    min: Bound | None = None
    """Smallest value that passes, for example 92%."""
    max: Bound | None = None
    """Largest value that passes, for example 200ms."""


NO_BASE_TASK = Rule(
    "!has(self.gates) || self.gates.all(g, g.metric != 'BaseAccuracyRetained')",
    "BaseAccuracyRetained is measured by a FineTune with a baseTask alone",
    "gates",
)
"""A rule of every spec with gates that has no baseTask."""
