"""EdgeDeployment: a quantized model is rolled out over pools of edge nodes, wave by wave, as benchmarks allow."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from slmops.api.base import AUTO_OR_NAME, ApiModel, Bound, Name, Percent, Rule, exactly_one_of
from slmops.api.conditions import Condition
from slmops.api.fleet import MAX_CLASSES, ChoiceStatus, OutcomeStatus, PoolStatus, RevisionStatus, WaveStatus
from slmops.api.generation import Length, PoolGeneration
from slmops.api.monitoring import Monitoring, MonitoringStatus
from slmops.api.resource import Column, Resource
from slmops.api.run import Resources, Toleration
from slmops.api.signing import Signing, Verification
from slmops.api.sources import DIGEST_REFERENCE, PromptSource, Reference, SecretKey
from slmops.api.strategy import Strategy


class DeployedModel(ApiModel):
    """What is rolled out."""

    rules: ClassVar = (
        exactly_one_of("quantizedModel", "image"),
        Rule("!has(self.credentials) || (has(self.image) && has(self.verify))",
             "credentials go with image and verify: nodes pull with their own, and a QuantizedModel has named others",
             "credentials"),
    )  # fmt: skip

    quantized_model: Reference | None = None
    """A QuantizedModel, once it has succeeded."""
    image: Annotated[str, Field(pattern=DIGEST_REFERENCE, max_length=512)] | None = None
    """A model image by digest."""
    verify: Verification | None = None
    """Begin no rollout unless the image is signed."""
    credentials: SecretKey | None = None
    """Secret of type kubernetes.io/dockerconfigjson to look for the signature of `image` with."""


class Selector(ApiModel):
    """Which nodes belong to a pool."""

    match_labels: Annotated[dict[str, str], Field(min_length=1, max_length=16)]
    """Labels that a node must have, all of them."""


class Pool(ApiModel):
    """A set of nodes that get the same revision."""

    name: Name
    """Name of the pool, unique in the list."""
    selector: Selector
    """Which nodes belong to the pool."""
    variant: Annotated[str, Field(pattern=AUTO_OR_NAME, min_length=1, max_length=40)] | None = None
    """Variant of the QuantizedModel; the first one in its list when absent. Auto: on each hardware class the fastest one
    that keeps the gates. All that the edge runtime can serve are measured on one node of each class before the rollout
    begins."""
    adapter: Name | None = None
    """Adapter of the model image that answers on these nodes where a request names the model alone, and that is measured
    by the benchmark. The model without an adapter when absent."""
    generation: PoolGeneration | None = None
    """How these nodes generate where a request does not say, instead of what the model was shipped with."""
    resources: Resources | None = None
    """Compute resources of the runtime on these nodes, instead of runtime.resources."""
    tolerations: Annotated[list[Toleration], Field(max_length=16)] = []
    """Taints that are tolerated."""


class Runtime(ApiModel):
    """The server on each node, with the OpenAI API."""

    engine: Literal["OnnxRuntimeGenAI", "FoundryLocal"] = "OnnxRuntimeGenAI"
    """What generates. OnnxRuntimeGenAI: the library itself, with adapters, and several answers in one batch. FoundryLocal:
    the official package of Foundry Local, from the same model folder: chats alone, one after the other, no adapters."""
    image: Annotated[str, Field(pattern=DIGEST_REFERENCE, max_length=512)] | None = None
    """Image to run instead of the installation's own, by digest."""
    port: Annotated[int, Field(ge=1024, le=65535)] = 8080
    """Port of the Service and of the server."""
    node_port: Annotated[int, Field(ge=30000, le=32767)] | None = None
    """Port on every node's own address, answered by that node's own server."""
    resources: Resources = Resources()
    """Compute resources of the server; the installation's defaults fill what is absent."""
    max_queue: Annotated[int, Field(ge=1, le=1024)] = 32
    """Requests that wait; more are answered 429."""
    max_length: Length | None = None
    """Prompt and answer together, in tokens; the model's own default when absent."""


class Benchmark(ApiModel):
    """How the candidate is measured beside the stable revision, on the node itself."""

    data: PromptSource
    """Prompts with the expected answers. The image that measures reads *.jsonl and *.csv."""
    rounds: Annotated[int, Field(ge=2, le=16)] = 3
    """Rounds that count; the servers take turns in each, and a quarter of the prompts is asked twice."""
    warmup: Annotated[int, Field(ge=0, le=20)] = 1
    """Rounds before, which do not count."""
    prompts: Annotated[int, Field(ge=1, le=1000)] = 20
    """Prompts a round."""
    max_tokens: Annotated[int, Field(ge=1, le=4096)] = 64
    """Longest answer."""
    nodes_per_class: Annotated[int, Field(ge=1, le=100)] = 1
    """Nodes of each hardware class of a pool on which the candidate has to pass. The others serve it once it is ready
    there."""
    concurrency: Annotated[int, Field(ge=1, le=64)] = 1
    """Requests in flight."""
    max_noise: Percent = "25%"
    """Greatest width of a figure's 95 % confidence interval, as a share of the figure, at which the figure itself decides
    where a bound lies within the interval; above it the gate is Inconclusive. Also the most by which a server that is asked
    the same twice may be from itself; above it only what is further from the bound than that passes or fails."""


class DeploymentGate(ApiModel):
    """A bound that the candidate has to keep on each benchmarked node."""

    rules: ClassVar = (
        exactly_one_of("min", "max", "maxRegression"),
        Rule("!has(self.percentile) || self.percentile == 50 || self.metric in ['TimeToFirstToken', 'RequestLatency']",
             "percentile goes with TimeToFirstToken and RequestLatency", "percentile"),
        Rule("!has(self.maxRegression) || !has(self.percentile) || self.percentile == 50",
             "maxRegression compares medians: leave percentile out", "percentile"),
    )  # fmt: skip

    metric: Literal["TokensPerSecond", "TimeToFirstToken", "RequestLatency", "PeakMemory", "ErrorRate", "ExactMatch"]
    """What is measured."""
    percentile: Literal[50, 95] = 50
    """Which percentile of a time is bounded."""
    min: Bound | None = None
    """Smallest value that passes, for example 90% or 30."""
    max: Bound | None = None
    """Largest value that passes, for example 500ms or 600Mi."""
    max_regression: Percent | None = None
    """How much worse than the stable revision on the same node the candidate may be, over pairs of answers to the same
    prompt. Passes when there is none."""


class Rollback(ApiModel):
    """What happens to a candidate that fails."""

    automatic: bool = True
    """Give the nodes back to the stable revision at once. Else the rollout stops where it is and waits for a person."""
    keep: Annotated[int, Field(ge=0, le=10)] = 2
    """Revisions that were promoted before the present one and are remembered: to go back to one of them takes no waves,
    no soak and, on hardware where it has passed, no benchmark."""


class Evidence(ApiModel):
    """What a verdict rests on, published beside the model image as a document that refers to it: images, nodes, figures,
    thresholds, who said what, times."""

    credentials: SecretKey | None = None
    """Secret of type kubernetes.io/dockerconfigjson with the right to push to the image's repository. When absent, what the
    QuantizedModel publishes with, or model.credentials."""
    sign: Signing | None = None
    """Sign the document as a statement about the image."""


class EdgeDeploymentSpec(ApiModel):
    """The wanted state of the fleet."""

    model: DeployedModel
    """What is rolled out."""
    pools: Annotated[
        list[Pool], Field(min_length=1, max_length=64, json_schema_extra={"x-kubernetes-list-map-keys": ["name"]})
    ]
    """Which nodes get it."""
    runtime: Runtime = Runtime()
    """The server on each node."""
    strategy: Strategy = Strategy()
    """How a new revision reaches the nodes."""
    benchmark: Benchmark | None = None
    """How the candidate is measured. Without it a node's turn ends when the server is ready."""
    gates: Annotated[list[DeploymentGate], Field(max_length=32)] = []
    """Bounds that the candidate has to keep."""
    rollback: Rollback = Rollback()
    """What happens to a candidate that fails."""
    evidence: Evidence | None = None
    """Publish what each verdict rests on. Nothing is published when absent."""
    monitoring: Monitoring | None = None
    """Watch what the nodes serve. Nothing is collected when absent."""
    paused: bool = False
    """No further node gets its turn while this is set; what runs goes on."""

    rules: ClassVar = (
        Rule("!has(self.gates) || size(self.gates) == 0 || has(self.benchmark)",
             "gates need benchmark: without it nothing is measured", "gates"),
        Rule("!has(self.pools) || has(self.benchmark) || self.pools.all(p, !has(p.variant) || p.variant != 'Auto')",
             "variant Auto needs benchmark: variants are chosen by what is measured", "pools"),
        Rule("!has(self.pools) || has(self.model.quantizedModel)"
             " || self.pools.all(p, !has(p.variant) || p.variant != 'Auto')",
             "variant Auto needs model.quantizedModel: an image is one variant", "pools"),
        Rule("!has(self.pools) || !has(self.runtime) || self.runtime.engine != 'FoundryLocal'"
             " || self.pools.all(p, !has(p.adapter) && !has(p.generation))",
             "FoundryLocal knows no adapter and generates as the model says: leave adapter and generation out, or use"
             " engine OnnxRuntimeGenAI", "pools"),
    )  # fmt: skip


class EdgeDeploymentStatus(ApiModel):
    """The state of the fleet."""

    phase: str | None = None
    """For people: Pending, Progressing, Waiting (for a person or the hour), Paused, Degraded or Ready. Machines read the
    conditions."""
    observed_generation: int | None = None
    """Generation of the spec that this status was computed from."""
    stable: RevisionStatus | None = None
    """What was promoted last; nodes go back to it."""
    candidate: RevisionStatus | None = None
    """What is being rolled out."""
    history: Annotated[list[RevisionStatus], Field(max_length=10)] = []
    """What was stable before, the latest first, as many as rollback.keep says."""
    failed: Annotated[list[str], Field(max_length=10)] = []
    """Revisions that failed; they are not tried again until something that shapes them changes."""
    last_outcome: OutcomeStatus | None = None
    """How the last rollout ended."""
    retry: str | None = None
    """The annotation slmops.dev/retry that was seen last."""
    retried: str | None = None
    """The annotation slmops.dev/retry-failed that was carried out last."""
    wave: WaveStatus | None = None
    """Where the rollout is."""
    choices: Annotated[list[ChoiceStatus], Field(max_length=MAX_CLASSES)] = []
    """Which variant each hardware class gets, of pools with variant Auto."""
    activity: str | None = None
    """What is being done right now."""
    pools: Annotated[
        list[PoolStatus], Field(max_length=64, json_schema_extra={"x-kubernetes-list-map-keys": ["name"]})
    ] = []
    """The state of each pool."""
    monitoring: MonitoringStatus | None = None
    """What is known of the stable revision in production."""
    conditions: Annotated[list[Condition], Field(max_length=16)] = []
    """The state, one aspect each."""


class EdgeDeployment(Resource[EdgeDeploymentSpec, EdgeDeploymentStatus]):
    """Serves a model on every node of its pools, and replaces it wave by wave, only by what a benchmark on those very
    nodes shows to be good enough."""

    plural = "edgedeployments"
    short_names = ("edge",)
    columns = (
        Column("Phase", ".status.phase"),
        Column("Wave", ".status.wave.name"),
        Column("Stable", ".status.stable.revision"),
        Column("Candidate", ".status.candidate.revision"),
        Column("Updated", ".status.pools[*].nodes.updated"),
        Column("Activity", ".status.activity", priority=1),
        Column("Within-Bounds", ".status.conditions[?(@.type=='WithinBounds')].status", priority=1),
        Column("Last-Outcome", ".status.lastOutcome.outcome", priority=1),
        Column("Signed", ".status.conditions[?(@.type=='Signed')].status", priority=1),
        Column("Age", ".metadata.creationTimestamp", "date"),
    )

    spec: EdgeDeploymentSpec
    status: EdgeDeploymentStatus = EdgeDeploymentStatus()
