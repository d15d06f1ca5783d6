"""How a new revision reaches the nodes of an EdgeDeployment."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from slmops.api.base import ApiModel, Duration, IntOrPercent, Name, Percent, Rule


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
        Rule("!has(self.waves) || self.type == 'Canary'", "waves go with type Canary: the others have their own",
             "waves"),
        Rule("!has(self.promotionScope) || self.promotionScope == 'All' || self.type != 'BlueGreen'",
             "promotionScope goes with types Canary, AB and AllAtOnce: BlueGreen switches all nodes", "promotionScope"),
        Rule("!has(self.hold) || self.type in ['BlueGreen', 'AB']", "hold goes with types BlueGreen and AB", "hold"),
        Rule("!has(self.split) || self.type == 'AB'", "split goes with type AB", "split"),
        Rule("!has(self.split) || (self.split != 0 && self.split != '0%' && self.split != '100%')",
             "split leaves some nodes to each revision: take a share between 1% and 99%", "split"),
        Rule("!has(self.cutOver) || self.cutOver == 'DownloadThenStop' || self.type != 'BlueGreen'",
             "BlueGreen has both revisions on each node: cutOver StopThenDownload goes with the other types", "cutOver"),
        Rule("!has(self.maxUnavailable) || (self.maxUnavailable != 0 && self.maxUnavailable != '0%')",
             "maxUnavailable needs at least one node", "maxUnavailable"),
    )  # fmt: skip

    type: Literal["Canary", "BlueGreen", "AB", "AllAtOnce"] = "Canary"
    """Canary: wave by wave, each node serves the candidate as soon as it has passed. BlueGreen: the candidate comes to all
    nodes beside the stable revision, and once all have passed, the Service is switched to it at once, and back at once
    where it fails or is given up before the promotion; nodes need the memory for both. AB: the candidate comes to a share
    of the nodes and stays there beside the stable revision on the others, until a person has it promoted, by the annotation
    slmops.dev/approve: REVISION/rest, or given up. AllAtOnce: all nodes at the same time."""
    hold: Duration | None = None
    """How long both revisions stay beside each other: after the Service was switched (BlueGreen), or before a person is
    asked which one is to stay (AB). The first revision of all has none beside it."""
    split: IntOrPercent | None = None
    """Nodes of each pool that get the candidate (AB), one of each hardware class in any case; half of them when absent."""
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
    promotion_scope: Literal["All", "Pool", "HardwareClass"] = "All"
    """What a candidate that fails is taken back from. All: from all nodes, so that they have the same revision. Pool or
    HardwareClass: from that pool, or from that hardware class of a pool, alone; the others go on, and are promoted."""
    cut_over: Literal["DownloadThenStop", "StopThenDownload"] = "DownloadThenStop"
    """DownloadThenStop: the candidate's server comes up beside the stable one, which goes once the candidate serves; the
    node needs the memory for both. StopThenDownload: the stable server is measured and stopped before anything of the
    candidate comes, for nodes that hold one server only; in its turn a node serves nobody."""
    failure_limit: FailureLimit = FailureLimit()
    """How many nodes may fail for reasons of their own; none when absent."""

    @property
    def steps(self) -> list[Wave]:
        """The waves that this comes to."""
        if self.type == "Canary":
            return self.waves
        everywhere = Wave(name="all", nodes="100%", soak=self.hold)
        if self.type != "AB":
            return [everywhere]
        split = Wave(name="split", nodes=self.split or "50%", soak=self.hold)
        return [split, Wave(name="rest", nodes="100%", approval="Required")]

    @property
    def stops_first(self) -> bool:
        """Whether a node has one server at a time."""
        return self.cut_over == "StopThenDownload"

    @property
    def at_once(self) -> int | str:
        """Nodes of a pool whose turn it is at the same time."""
        return "100%" if self.type == "AllAtOnce" else self.max_unavailable
