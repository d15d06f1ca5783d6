"""What nodes serve is watched: how long answers take, how many fail, and whether what is asked and answered is still what
it was when the revision became stable."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from slmops.api.base import ApiModel, Bound, Duration, Rule, seconds
from slmops.api.batch import Number
from slmops.api.sources import Reference

Bottleneck = Literal["Queue", "Compute", "Memory"]


class Baseline(ApiModel):
    """What requests are normally like."""

    requests: Annotated[int, Field(ge=50, le=1000000)] = 500
    """The first so many answered requests of each pool after a revision became stable, of the last 24 h. They are kept in
    the ConfigMap NAME-baseline-REVISION; delete it to have the baseline taken anew."""


class Drift(ApiModel):
    """How far requests and answers may be from the baseline."""

    max_index: Annotated[float, Field(gt=0, le=10)] = 0.2
    """Largest population stability index of any distribution, less what chance alone would make of so few requests. By
    convention below 0.1 nothing has changed, from 0.1 to 0.2 something has, and above 0.2 it is another population. A
    breach is over once the index is below four fifths of this."""


class MonitoringBound(ApiModel):
    """A bound on what servers of a pool do."""

    rules: ClassVar = (
        Rule("!has(self.percentile) || self.metric != 'ErrorRate'",
             "percentile goes with RequestLatency and TimeToFirstToken", "percentile"),
        Rule("self.metric == 'ErrorRate' ? (type(self.max) == int ? self.max == 0 : self.max.matches('%$'))"
             " : (type(self.max) == string && self.max.matches('(s|m|h)$'))",
             "max of ErrorRate is a share, for example 5%, of a time it has a unit, for example 500ms", "max"),
    )  # fmt: skip

    metric: Literal["RequestLatency", "TimeToFirstToken", "ErrorRate"]
    """What is bounded. RequestLatency, TimeToFirstToken: from the arrival of a request, with its time in the queue, to the
    last and to the first token. ErrorRate: share of requests that were answered 429 or 500 and above, among all but those
    that were wrong in themselves."""
    percentile: Literal[50, 95, 99] | None = None
    """Which percentile of a time; 95 when absent."""
    max: Bound
    """Largest value, for example 2s or 5%. A breach is over once the value is below four fifths of it."""

    @property
    def name(self) -> str:
        """What status calls it."""
        return self.metric if self.metric == "ErrorRate" else f"{self.metric} p{self.percentile or 95}"


class Retrain(ApiModel):
    """What a breach leads to: one new run of a FineTune, which gets the annotation slmops.dev/retrain with the reason."""

    rules: ClassVar = (
        Rule("self.minInterval.contains('d') || duration(self.minInterval) >= duration('10m')",
             "minInterval is at least 10m: a retrain takes time to show", "minInterval"),
    )  # fmt: skip

    fine_tune: Reference
    """The FineTune. Its data should be an address whose content moves, such as a tag or a prefix: the same records make
    the same model again."""
    on: Annotated[list[Literal["InputDrift", "OutputDrift", "Bounds"]], Field(min_length=1, max_length=3)] = [
        "InputDrift", "OutputDrift",
    ]  # fmt: skip
    """Which breaches lead to it; drift of any kind when absent. Bounds: one of `bounds`."""
    min_interval: Duration = "24h"
    """Shortest time from one retrain of the FineTune to the next, whoever asked for it. There is one for a breach in any
    case: it must have ended, or another revision have become stable, before the next."""


class Monitoring(ApiModel):
    """How the stable revision is watched on the nodes. Counts are collected, never texts."""

    rules: ClassVar = (
        Rule("!self.interval.contains('d') && duration(self.interval) >= duration('10s')"
             " && duration(self.interval) <= duration('1h')", "interval is from 10s to 1h", "interval"),
        Rule("!self.window.contains('d') && duration(self.window) >= duration('5m')"
             " && duration(self.window) <= duration('24h')",
             "window is from 5m to 24h: servers count by the minute, and for a day", "window"),
        Rule("!has(self.retrain) || has(self.drift) || (has(self.retrain.on) && self.retrain.on.all(o, o == 'Bounds'))",
             "retrain on drift needs drift: set drift, or name Bounds alone in retrain.on", "retrain"),
        Rule("!has(self.retrain) || !has(self.retrain.on) || self.retrain.on.all(o, o != 'Bounds')"
             " || (has(self.bounds) && size(self.bounds) > 0)",
             "retrain on Bounds needs bounds", "retrain"),
    )  # fmt: skip

    interval: Duration = "1m"
    """How often servers are asked, up to 20 of a pool at a time and in turn."""
    window: Duration = "1h"
    """What is judged: the requests of the last so long, since the baseline was complete."""
    min_requests: Annotated[int, Field(ge=20, le=1000000)] = 200
    """Nothing is said of a pool, good or bad, that had fewer requests in the window."""
    baseline: Baseline = Baseline()
    """What requests are normally like."""
    drift: Drift | None = None
    """How far requests and answers may be from the baseline. Not looked at when absent."""
    bounds: Annotated[list[MonitoringBound], Field(max_length=16)] = []
    """Bounds on what servers do."""
    retrain: Retrain | None = None
    """What a breach leads to, besides the condition WithinBounds, an Event and metrics."""

    @property
    def interval_seconds(self) -> float:
        """As the schema bounds it."""
        return min(3600.0, max(10.0, seconds(self.interval)))

    @property
    def window_seconds(self) -> float:
        """As the schema bounds it."""
        return min(86400.0, max(300.0, seconds(self.window)))


class QuantileStatus(ApiModel):
    """Percentiles of a time, in seconds, to within a third at worst: times are counted in bins."""

    p50: Number
    """Median."""
    p95: Number
    """19 of 20 take no longer."""
    p99: Number
    """99 of 100 take no longer."""


class BreachStatus(ApiModel):
    """A bound that is exceeded."""

    what: str
    """A distribution (PromptTokens, PromptContent, AnswerTokens, AnswerContent, FinishReason) or a bound."""
    value: str
    """What was seen."""
    max: str
    """What was declared."""
    since: str
    """Since when."""


class MonitoredPoolStatus(ApiModel):
    """What the servers of a pool told."""

    name: str
    """Name of the pool."""
    verdict: Literal["WithinBounds", "Breached", "BaselineIncomplete", "TooFewRequests", "NotHeard"]
    """What the figures come to. NotHeard: no server has answered for as long as the window."""
    servers: int = 0
    """Servers whose counts are in the figures."""
    requests: int = 0
    """Requests in the window."""
    errors: int = 0
    """Requests of them that were answered 500 or above."""
    refused: int = 0
    """Requests of them that found the queue full (429)."""
    latency: QuantileStatus | None = None
    """From the arrival of a request to its last token."""
    first_token: QuantileStatus | None = None
    """From the arrival of a request to its first token."""
    baseline: int | None = None
    """Answered requests in the baseline, or so far."""
    baseline_at: str | None = None
    """When the baseline was complete."""
    drift: dict[str, Number] = {}
    """Population stability index of each distribution against the baseline, less what chance alone would make of so few
    requests. PromptTokens, AnswerTokens: lengths. PromptContent, AnswerContent: which tokens there are. FinishReason:
    how answers end."""
    breaches: Annotated[list[BreachStatus], Field(max_length=32)] = []
    """What exceeds its bound."""
    bottlenecks: Annotated[list[Bottleneck], Field(max_length=3)] = []
    """Queue: requests were refused, or waited for longer than the model worked on them. Compute: the model worked for more
    than 80 % of the time. Memory: a server has held more than 90 % of its limit."""


class RetrainStatus(ApiModel):
    """The retrain that was asked for last."""

    fine_tune: str
    """The FineTune."""
    at: str
    """When."""
    revision: str
    """What was stable then."""
    why: str
    """Which breach led to it."""
    outcome: Literal["Running", "Succeeded", "Failed"]
    """What became of the run."""
    cleared_at: str | None = None
    """When the breach was over. Before that, and while the same revision is stable, no other retrain follows."""


class MonitoringStatus(ApiModel):
    """What is known of the stable revision in production: figures at most each 5 minutes, verdicts and breaches at
    once."""

    observed_at: str
    """When these figures were written; what has not changed since is not written again."""
    revision: str
    """What they are of."""
    pools: Annotated[
        list[MonitoredPoolStatus], Field(max_length=64, json_schema_extra={"x-kubernetes-list-map-keys": ["name"]})
    ] = []
    """What the servers of each pool told."""
    retrain: RetrainStatus | None = None
    """The retrain that was asked for last."""
    waiting: str | None = None
    """Why a breach leads to no retrain now."""
