"""EdgeDeployment: a quantized model is rolled out over pools of edge nodes, wave by wave, as benchmarks allow."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from slmops.api.base import ApiModel, Bound, Duration, IntOrPercent, Name, Percent, Rule, exactly_one_of
from slmops.api.batch import GateStatus, Number
from slmops.api.conditions import Condition
from slmops.api.resource import Column, Resource
from slmops.api.run import Resources, Toleration
from slmops.api.sources import DIGEST_REFERENCE, PromptSource, Reference, SecretKey, Verification


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
    variant: Name | None = None
    """Variant of the QuantizedModel; the first one in its list when absent."""
    resources: Resources | None = None
    """Compute resources of the runtime on these nodes, instead of runtime.resources."""
    tolerations: Annotated[list[Toleration], Field(max_length=16)] = []
    """Taints that are tolerated."""


class Runtime(ApiModel):
    """The server on each node: OpenAI-compatible, over ONNX Runtime GenAI."""

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
    max_length: Annotated[int, Field(ge=16, le=131072)] | None = None
    """Prompt and answer together, in tokens; the model's own default when absent."""


class Wave(ApiModel):
    """A step of the rollout."""

    rules: ClassVar = (Rule("self.nodes != 0 && self.nodes != '0%'", "a wave needs at least one node", "nodes"),)

    name: Name
    """Name of the wave, unique in the list."""
    nodes: IntOrPercent
    """Nodes of each pool that have the candidate at the end of the wave, counted from the first wave on. The first wave has
    one of each hardware class of the pool in any case."""
    soak: Duration | None = None
    """Time to wait after the wave before the next one begins, and after the last one before the promotion."""
    approval: Literal["Required"] | None = None
    """Required: the wave begins once a person has allowed it, by the annotation slmops.dev/approve: REVISION/WAVE. An
    approval holds for that candidate and for the waves before, and for no other candidate."""


TIME = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
ZONE = r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$"
Day = Literal["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]


class Window(ApiModel):
    """Hours in which nodes get their turn. What has begun is carried to its end; to roll back is allowed at all times."""

    rules: ClassVar = (Rule("self.from != self.to", "from and to must differ: leave window out for all day", "to"),)

    time_zone: Annotated[str, Field(pattern=ZONE, max_length=64)] = "UTC"
    """Name in the IANA time zone database, for example Europe/Copenhagen."""
    from_: Annotated[str, Field(pattern=TIME, max_length=5, alias="from")]
    """When it opens, for example 22:00."""
    to: Annotated[str, Field(pattern=TIME, max_length=5)]
    """When it closes; on the next day where that is earlier than from."""
    days: Annotated[list[Day], Field(max_length=7)] = []
    """Days on which it opens; every day when empty."""


class FailureLimit(ApiModel):
    """How many nodes may fail for reasons of their own, which another node need not have: a full disk, a taint, a registry
    that is out of reach. They keep what they have and are left out until the promotion. A model that crashes, is refused or
    misses a gate fails the candidate at once, whatever is said here."""

    minimum: Annotated[int, Field(ge=1, le=5000)] = 1
    """So many of them have to fail before the candidate does, …"""
    percent: Percent = "0%"
    """… and they have to be more than this share of the nodes whose turn has begun."""


class Strategy(ApiModel):
    """How a new revision reaches the nodes."""

    rules: ClassVar = (
        Rule(
            "!has(self.waves) || self.waves[self.waves.size() - 1].nodes == '100%'",
            "the last wave must be 100% of the nodes",
            "waves",
        ),
        Rule("!has(self.waves) || self.type == 'Canary'", "waves go with type Canary: the others have one of all nodes",
             "waves"),
        Rule("!has(self.hold) || self.type == 'BlueGreen'", "hold goes with type BlueGreen", "hold"),
        Rule("!has(self.maxUnavailable) || (self.maxUnavailable != 0 && self.maxUnavailable != '0%')",
             "maxUnavailable needs at least one node", "maxUnavailable"),
    )  # fmt: skip

    type: Literal["Canary", "BlueGreen", "AllAtOnce"] = "Canary"
    """Canary: wave by wave, each node serves the candidate as soon as it has passed. BlueGreen: the candidate comes to all
    nodes beside the stable revision, and once all have passed, the Service is switched to it at once, and back at once
    where it fails or is given up before the promotion; nodes need the memory for both. AllAtOnce: all nodes at the same
    time."""
    hold: Duration | None = None
    """How long both revisions stay beside each other after the Service was switched (BlueGreen); the first revision of all
    has none beside it."""
    waves: Annotated[
        list[Wave], Field(min_length=1, max_length=20, json_schema_extra={"x-kubernetes-list-map-keys": ["name"]})
    ] = [Wave(name="canary", nodes=1), Wave(name="rest", nodes="100%")]
    """Steps of the rollout; the last one is 100% of the nodes."""
    max_unavailable: IntOrPercent = 1
    """Nodes of a pool whose turn it is at the same time: a count, or a share of the pool's nodes that are not offline,
    rounded up."""
    window: Window | None = None
    """Hours in which nodes get their turn; at any time when absent."""
    progress_deadline: Duration = "30m"
    """A node's turn that takes longer has failed."""
    failure_limit: FailureLimit = FailureLimit()
    """How many nodes may fail for reasons of their own; none when absent."""

    @property
    def steps(self) -> list[Wave]:
        """The waves that this comes to."""
        return self.waves if self.type == "Canary" else [Wave(name="all", nodes="100%", soak=self.hold)]

    @property
    def at_once(self) -> int | str:
        """Nodes of a pool whose turn it is at the same time."""
        return "100%" if self.type == "AllAtOnce" else self.max_unavailable


class Benchmark(ApiModel):
    """How the candidate is measured beside the stable revision, on the node itself."""

    data: PromptSource
    """Prompts with the expected answers. The image that measures reads *.jsonl and *.csv."""
    rounds: Annotated[int, Field(ge=2, le=16)] = 3
    """Rounds that count; the servers take turns in each."""
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
    """Spread of a figure between the rounds above which a comparison is inconclusive."""


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
    """How much worse than the stable revision on the same node the candidate may be. Passes when there is none."""


class Rollback(ApiModel):
    """What happens to a candidate that fails."""

    automatic: bool = True
    """Give the nodes back to the stable revision at once. Else the rollout stops where it is and waits for a person."""
    keep: Annotated[int, Field(ge=0, le=10)] = 2
    """Revisions that were promoted before the present one and are remembered: to go back to one of them takes no waves,
    no soak and, on hardware where it has passed, no benchmark."""


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
    paused: bool = False
    """No further node gets its turn while this is set; what runs goes on."""

    rules: ClassVar = (
        Rule("!has(self.gates) || size(self.gates) == 0 || has(self.benchmark)",
             "gates need benchmark: without it nothing is measured", "gates"),
    )  # fmt: skip


class RevisionStatus(ApiModel):
    """A revision: model image and everything else that shapes the server."""

    revision: str
    """Short name of the revision."""
    images: dict[str, str] = {}
    """Model image by pool."""
    since: str
    """When it became what it is."""
    retry: str | None = None
    """The annotation slmops.dev/retry that it came of."""
    classes: dict[str, Annotated[list[str], Field(max_length=64)]] = {}
    """Hardware classes on which it has passed, by pool."""


class WaveStatus(ApiModel):
    """Where the rollout is."""

    name: str
    """Name of the wave."""
    index: int
    """Its place, from 1."""
    of: int
    """Waves in all."""
    completed_at: str | None = None
    """When its last node was done; the soak counts from here."""
    approval: str | None = None
    """What the annotation slmops.dev/approve has to say, while the wave waits for it."""


class NodeCounts(ApiModel):
    """Nodes of a pool."""

    total: int
    """Nodes that the selector matches."""
    updated: int
    """Nodes that serve the candidate, or the stable revision when there is no candidate."""
    ready: int
    """Nodes with a ready server."""
    offline: int
    """Nodes that are not Ready."""
    failed: int | None = None
    """Nodes that were left out because something of their own failed; absent where there are none."""


class ClassStatus(ApiModel):
    """What was measured on one hardware class."""

    name: str
    """Hardware class: architecture, processors, memory, accelerator."""
    nodes: int
    """Nodes of this class in the pool."""
    verdict: Literal["Passed", "Failed", "Inconclusive", "Pending"]
    """What the gates said of the candidate on this class."""
    node: str | None = None
    """Node that was measured last."""
    figures: dict[str, dict[str, Number]] = {}
    """What was measured: stable and candidate."""
    gates: Annotated[list[GateStatus], Field(max_length=32)] = []
    """What each gate said."""


class PoolStatus(ApiModel):
    """The state of one pool."""

    name: str
    """Name of the pool."""
    nodes: NodeCounts
    """Nodes of the pool."""
    classes: Annotated[list[ClassStatus], Field(max_length=64)] = []
    """What was measured, by hardware class."""


class OutcomeStatus(ApiModel):
    """How the last rollout ended."""

    outcome: Literal["Promoted", "FastPromoted", "RolledBack", "Aborted", "Superseded"]
    """What became of the candidate."""
    revision: str
    """The candidate."""
    reason: str
    """A stable word for why."""
    message: str = ""
    """Why, and what to do about it."""
    at: str
    """When."""


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
    activity: str | None = None
    """What is being done right now."""
    pools: Annotated[
        list[PoolStatus], Field(max_length=64, json_schema_extra={"x-kubernetes-list-map-keys": ["name"]})
    ] = []
    """The state of each pool."""
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
        Column("Last-Outcome", ".status.lastOutcome.outcome", priority=1),
        Column("Signed", ".status.conditions[?(@.type=='Signed')].status", priority=1),
        Column("Age", ".metadata.creationTimestamp", "date"),
    )

    spec: EdgeDeploymentSpec
    status: EdgeDeploymentStatus = EdgeDeploymentStatus()
