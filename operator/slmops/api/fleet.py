"""What an EdgeDeployment tells of its fleet: revisions, waves, pools and what was measured there."""

from typing import Annotated, Literal

from pydantic import Field

from slmops.api.base import ApiModel
from slmops.api.batch import GateStatus, Number

MAX_CLASSES = 64
"""Hardware classes of a pool that the status has room for."""


class RevisionStatus(ApiModel):
    """A revision: model image and everything else that shapes the server."""

    revision: str
    """Short name of the revision."""
    images: dict[str, str] = {}
    """Model image by pool."""
    sizes: dict[str, str] = {}
    """Size of the model image by pool: what a node pulls that does not have it. Of an image that no QuantizedModel knows it
    is told once the first node has it."""
    since: str
    """When it became what it is."""
    retry: str | None = None
    """The annotation slmops.dev/retry that it came of."""
    choices: dict[str, str] = {}
    """Of pools with variant Auto, a hash of the images that there were to choose from."""
    classes: dict[str, Annotated[list[str], Field(max_length=MAX_CLASSES)]] = {}
    """Hardware classes on which it has passed, by pool. Nodes of other classes get it once it has passed there too; all
    nodes of a pool that is not named get it."""
    failed: dict[str, dict[str, str]] = {}
    """Hardware classes on which it has failed, by pool, and why. They keep what they have."""
    behind: dict[str, dict[str, str]] = {}
    """Revision that hardware classes keep meanwhile, by pool."""


class WaveStatus(ApiModel):
    """Where the rollout is."""

    name: str
    """Name of the wave."""
    index: int
    """Its place, from 1."""
    of: int
    """Waves in all."""
    pulls: str | None = None
    """What the nodes that the wave adds pull of model images, all together and at most. Absent while the size of an image
    is not known."""
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
    pressed: int | None = None
    """Nodes that are short of memory or disk, where no turn begins until that is over; absent where there are none."""
    behind: int = 0
    """Nodes, offline ones too, that do not have the revision that is counted as updated."""
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
    noise: dict[str, Number] = {}
    """How far a server may be from itself when it is asked the same again, by metric: 0.1 is 10 %."""
    disturbances: Annotated[list[str], Field(max_length=4)] = []
    """What else went on on the node while it was measured: load, stolen CPU time, thermal throttling."""
    gates: Annotated[list[GateStatus], Field(max_length=32)] = []
    """What each gate said."""


class PoolStatus(ApiModel):
    """The state of one pool."""

    name: str
    """Name of the pool."""
    nodes: NodeCounts
    """Nodes of the pool; in the midst of a rollout to within a twentieth."""
    classes: Annotated[list[ClassStatus], Field(max_length=MAX_CLASSES)] = []
    """What was measured, by hardware class."""


class ChoiceStatus(ApiModel):
    """The variant that a hardware class of a pool gets, where the pool's variant is Auto."""

    pool: str
    """Name of the pool."""
    hardware: str
    """Hardware class."""
    variant: str
    """The variant."""
    image: str
    """Its image."""
    among: str
    """A hash of the images that there were to choose from; with other ones it is chosen anew."""
    speeds: dict[str, Number] = {}
    """Tokens a second of each variant that keeps the gates."""
    refused: dict[str, str] = {}
    """Why others were not taken."""


class OutcomeStatus(ApiModel):
    """How the last rollout ended."""

    outcome: Literal["Promoted", "FastPromoted", "RolledBack", "Aborted", "Superseded"]
    """What became of the candidate."""
    revision: str
    """The candidate."""
    images: dict[str, str] = {}
    """Its model images, by pool."""
    reason: str
    """A stable word for why."""
    message: str = ""
    """Why, and what to do about it."""
    at: str
    """When."""
    evidence: dict[str, str] = {}
    """What it rests on, by pool: a document in the registry that refers to the model image."""
