"""A search for hyperparameters: which are tried, how they are chosen, and what came of it."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, ValidationError, model_validator

from slmops.api.base import ApiModel, Rule, int_or_string, matching
from slmops.api.batch import Number
from slmops.api.lora import Lora
from slmops.api.training import Training

WORD = r"^([0-9]+(\.[0-9]+)?([eE]-?[0-9]+)?|[A-Za-z]+)$"
Choice = Annotated[int | str, matching(WORD, '16, "0.0002", Cosine'), int_or_string(WORD)]
"""A value as it is written: whole numbers and words as they are, other numbers in quotes."""
Value = int | float | str
WHOLE = ("batchSize", "epochs", "maxSteps", "gradientAccumulation", "lora.rank", "lora.alpha")
REAL = ("learningRate", "warmupRatio", "weightDecay", "lora.dropout")
LORA = "lora."
MOST_TRIALS = 100


def among(names: tuple[str, ...]) -> str:
    """A list for CEL."""
    return f"[{', '.join(repr(name) for name in names)}]"


class Span(ApiModel):
    """Numbers between two bounds."""

    rules: ClassVar = (Rule("self.min < self.max", "min has to be less than max", "min"),)

    min: Annotated[float, Field(ge=0, le=4096)]
    """The least."""
    max: Annotated[float, Field(ge=0, le=4096)]
    """The greatest."""


class LogSpan(Span):
    """Numbers above 0 between two bounds."""

    min: Annotated[float, Field(gt=0, le=4096)]
    """The least; a logarithm knows no 0."""


class WholeSpan(ApiModel):
    """Whole numbers between two bounds, both among them."""

    rules: ClassVar = (Rule("self.min < self.max", "min has to be less than max", "min"),)

    min: Annotated[int, Field(ge=1, le=1000000)]
    """The least."""
    max: Annotated[int, Field(ge=1, le=1000000)]
    """The greatest."""


class Hyperparameter(ApiModel):
    """A hyperparameter that is tried, and its values: exactly one of log, uniform, integer and choice."""

    rules: ClassVar = (
        Rule("(has(self.log) ? 1 : 0) + (has(self.uniform) ? 1 : 0) + (has(self.integer) ? 1 : 0)"
             " + (has(self.choice) ? 1 : 0) == 1", "set exactly one of log, uniform, integer, choice"),
        Rule(f"!has(self.integer) || self.name in {among(WHOLE)}",
             "integer goes with batchSize, epochs, maxSteps, gradientAccumulation, lora.rank and lora.alpha", "integer"),
        Rule(f"(!has(self.log) && !has(self.uniform)) || self.name in {among(REAL)}",
             "log and uniform go with learningRate, warmupRatio, weightDecay and lora.dropout; use integer or choice",
             "name"),
    )  # fmt: skip

    name: Literal[
        "learningRate", "batchSize", "epochs", "maxSteps", "warmupRatio", "weightDecay", "scheduler",
        "gradientAccumulation", "lora.rank", "lora.alpha", "lora.dropout",
    ]  # fmt: skip
    """A field of spec.training, or of spec.lora."""
    log: LogSpan | None = None
    """Numbers whose logarithm is drawn evenly: for what is right to within a factor, as a learning rate."""
    uniform: Span | None = None
    """Numbers that are drawn evenly."""
    integer: WholeSpan | None = None
    """Whole numbers that are drawn evenly."""
    choice: Annotated[list[Choice], Field(min_length=1, max_length=16)] | None = None
    """These values alone. A number with a fraction is written in quotes: "0.0002"."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Every value is one that the field may have: its bounds and words are those of the field itself."""
        for value in self._ends():
            model, field = (Lora, self.name[len(LORA) :]) if self.name.startswith(LORA) else (Training, self.name)
            try:
                model.model_validate({field: value})
            except ValidationError as error:
                text = error.errors(include_url=False, include_input=False)[0]["msg"]
                raise ValueError(f"{self.name} cannot be {value}: {text}") from None
        return self

    def _ends(self) -> Iterator[Value]:
        span = self.log or self.uniform or self.integer
        yield from (span.min, span.max) if span else self.choices

    @property
    def choices(self) -> tuple[Value, ...]:
        """The values of ``choice``, as numbers where the field is one."""
        kind = {**dict.fromkeys(REAL, float), **dict.fromkeys(WHOLE, int)}.get(self.name, str)
        try:
            return tuple(kind(value) for value in self.choice or ())
        except ValueError:
            wanted = "a number" if kind is float else "a whole number"
            raise ValueError(f"choice of {self.name}: each has to be {wanted}") from None

    def holds(self, value: Value) -> bool:
        """Whether it is one of the values."""
        span = self.log or self.uniform or self.integer
        if span is None:
            return value in self.choices
        kinds = (int,) if self.integer else (int, float)
        return isinstance(value, kinds) and span.min <= value <= span.max


class SearchObjective(ApiModel):
    """By what trials are compared."""

    rules: ClassVar = (
        Rule("(self.metric == 'evalLoss') == (self.direction == 'Minimize')",
             "evalLoss goes with direction Minimize, ExactMatch with direction Maximize", "direction"),
    )  # fmt: skip

    metric: Literal["evalLoss", "ExactMatch"] = "evalLoss"
    """evalLoss: the loss on held-out records at the end of the training. ExactMatch: the share of held-out records that
    are answered word for word; every trial then writes answers, too."""
    direction: Literal["Minimize", "Maximize"] = "Minimize"
    """Which values are better."""


class Search(ApiModel):
    """Train several times with other hyperparameters, a Job for each trial; then once more with the best, which alone is
    evaluated, gated and published."""

    rules: ClassVar = (
        Rule("self.parallelism <= self.trials", "parallelism is at most trials", "parallelism"),
        Rule("!has(self.objective) || self.objective.metric == 'evalLoss' || self.pruner == 'None'",
             "a pruner looks at evalLoss while a trial trains: set pruner None for another metric", "pruner"),
    )  # fmt: skip

    trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)] = 20
    """How many trainings. More than before: the search goes on where it ended."""
    parallelism: Annotated[int, Field(ge=1, le=16)] = 1
    """How many of them side by side. The next ones are chosen once all of these have ended, so fewer learn more from each
    other."""
    objective: SearchObjective = SearchObjective()
    """By what trials are compared."""
    sampler: Literal["TPE", "Random"] = "TPE"
    """How values are chosen. TPE: at random for the first ten trials, then where good trials are denser than others
    (tree-structured Parzen estimator, Bergstra et al. 2011). Random: at random."""
    pruner: Literal["Median", "Hyperband", "None"] = "Median"
    """Which trials are ended before their time, by their loss on held-out records after each measurement
    (training.evaluateEvery), of which the first 64 are looked at. Median: those above the median of earlier trials, once
    five have trained to their end. Hyperband: all but the best third at growing distances (Li et al. 2018). None: none."""
    seed: Annotated[int, Field(ge=0, le=4294967195)] = 42
    """Seed of the choice: same seed, same outcomes of the trials, same values."""
    space: Annotated[
        list[Hyperparameter],
        Field(min_length=1, max_length=11, json_schema_extra={"x-kubernetes-list-map-keys": ["name"]}),
    ]
    """What is tried. Everything else is as the spec says."""


SEARCH = (
    Rule("!has(self.search) || !has(self.adapters)",
         "search goes with data: search for each adapter in a FineTune of its own", "search"),
    Rule("!has(self.search) || self.engine == 'PyTorch'", "search goes with engine PyTorch", "search"),
    Rule("!has(self.search) || !has(self.run) || self.run.nodes == 1",
         "trials train on one node: leave run.nodes out", "run.nodes"),
    Rule("!has(self.search) || self.method != 'Full' || self.search.space.all(p, !p.name.startsWith('lora.'))",
         "lora goes with methods LoRA, QLoRA and DoRA: take it out of search.space", "search.space"),
)  # fmt: skip
"""Rules of a spec that may have a search."""


class TrialCounts(ApiModel):
    """How many trials there are of each kind."""

    succeeded: int = 0
    """Trained to their end."""
    pruned: int = 0
    """Ended before, because others were better."""
    failed: int = 0
    """Their Job failed, for a reason that other values may mend."""
    running: int = 0
    """Under way, or queued."""
    of: int
    """All that are wanted."""


class BestTrial(ApiModel):
    """The best trial so far."""

    trial: int
    """Its number, from 0."""
    parameters: dict[str, str]
    """Its values, as they are written in the spec."""
    value: Number
    """What it came to."""


class SearchPoint(ApiModel):
    """A trial that was better than all before it."""

    trial: int
    """Its number, from 0."""
    value: Number
    """What it came to."""


class SearchStatus(ApiModel):
    """How the search went."""

    curve: Annotated[list[SearchPoint], Field(max_length=16)] = []
    """The trials that were better than all before them: the first, and the last fifteen."""
    report: str | None = None
    """A page with the trials and a picture: registry/repository@sha256:… A new one each time that values are chosen, the
    last one with the model."""
