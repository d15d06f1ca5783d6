"""What is measured of a made model, and the bounds it has to keep."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from slmops.api.base import ApiModel, Bound, Rule, exactly_one_of
from slmops.api.sources import PromptSource

Measure = Literal[
    "ExactMatch", "Accuracy", "F1", "BLEU", "ROUGE", "Perplexity", "InferenceTime", "TimeToFirstToken", "PeakMemory"
]


class Evaluation(ApiModel):
    """What is measured once a model is made, on records that it was not trained on."""

    data: PromptSource | None = None
    """Held-out records with the expected answers. The validation part of the training data when absent. The training is
    followed by them, too, where no other records are held out."""
    metrics: Annotated[list[Measure], Field(max_length=9)] = []
    """What is measured, besides ExactMatch, the bytes of weights and what a gate needs. All that suits the task when empty.
    ExactMatch: share of answers equal to the expected ones. Accuracy: the same without regard to case, blanks and a final
    full stop. F1: mean over the labels (Classification), over the fields of all answers (Extraction), else overlap of
    words. BLEU: of the corpus, from 0 to 1. ROUGE: F-measure of ROUGE-L. Perplexity: of the expected answers, and
    of a FineTune's held-out texts (format Text), of which nothing else is measured.
    InferenceTime, TimeToFirstToken: median time of an answer, and to its first token. PeakMemory: of the process."""
    samples: Annotated[int, Field(ge=1, le=100000)] = 500
    """At most this many records. More of them make the figures surer: see status.intervals."""
    max_new_tokens: Annotated[int, Field(ge=1, le=32768)] = 128
    """Longest answer that is generated for a record."""


class Limit(ApiModel):
    """A bound in one direction."""

    rules: ClassVar[tuple[Rule, ...]] = (exactly_one_of("min", "max"),)

    min: Bound | None = None
    """Smallest value that passes, for example 92%."""
    max: Bound | None = None
    """Largest value that passes, for example 200ms."""


class QualityGate(Limit):
    """A bound that a made model has to keep, else the resource fails and nothing downstream takes the model."""

    metric: Literal[
        Measure, "WeightBytes", "AccuracyRetained", "InferenceTimeReduction", "WeightsReduction", "PeakMemoryReduction",
        "BaseAccuracyRetained",
    ]  # fmt: skip
    """What evaluation.metrics explains, or WeightBytes: bytes of the weights. AccuracyRetained: Accuracy, where it is not
    measured ExactMatch, as a share of the reference's (teacher, base or unquantized model). InferenceTimeReduction,
    WeightsReduction, PeakMemoryReduction: one minus the ratio to the reference. BaseAccuracyRetained: ExactMatch of a
    FineTune on its baseTask as a share of the base's. A bound within the 95 % confidence interval of its figure makes the
    gate Inconclusive, which is no pass."""

    @property
    def figure(self) -> str:
        """The name of the figure that it bounds."""
        return self.metric


NO_BASE_TASK = Rule(
    "!has(self.gates) || self.gates.all(g, g.metric != 'BaseAccuracyRetained')",
    "BaseAccuracyRetained is measured by a FineTune with a baseTask alone",
    "gates",
)
"""A rule of every spec with gates that has no baseTask."""
