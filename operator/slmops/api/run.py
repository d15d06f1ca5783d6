"""Where and how Jobs run."""

from typing import Annotated, Literal

from pydantic import Field

from slmops.api.base import NAME, ApiModel, Duration, Quantity
from slmops.api.egress import EgressPeer
from slmops.api.sources import DIGEST_REFERENCE


class Toleration(ApiModel):
    """A taint that the pods tolerate, as in a Pod."""

    key: str | None = None
    """Taint key; all keys when absent with operator Exists."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """How key and value are compared."""
    value: str | None = None
    """Taint value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Taint effect; all effects when absent."""


class Resources(ApiModel):
    """Compute resources of a container, as in a Pod."""

    requests: Annotated[dict[str, Quantity], Field(max_length=16)] = {}
    """What the scheduler sets aside."""
    limits: Annotated[dict[str, Quantity], Field(max_length=16)] = {}
    """What the container may not exceed. GPUs are asked for here: nvidia.com/gpu: 1."""


class Volume(ApiModel):
    """A volume that outlives the pods of a Job."""

    storage_class: Annotated[str, Field(max_length=253)] | None = None
    """StorageClass; the cluster's default when absent."""
    size: Quantity
    """Size, for example 10Gi. A larger one later grows the volume where its class allows that; a smaller one changes
    nothing of a volume that is there."""


class RunSpec(ApiModel):
    """Where and how Jobs run."""

    image: Annotated[str, Field(pattern=DIGEST_REFERENCE, max_length=512)] | None = None
    """Image to run instead of the installation's own, by digest."""
    resources: Resources = Resources()
    """Compute resources of the container; the installation's defaults fill what is absent."""
    node_selector: dict[str, str] = {}
    """Labels that a node must have."""
    tolerations: Annotated[list[Toleration], Field(max_length=16)] = []
    """Taints that are tolerated."""
    priority_class_name: Annotated[str, Field(max_length=253)] | None = None
    """PriorityClass of the pods; Kueue orders its queue by it too."""
    runtime_class_name: Annotated[str, Field(max_length=253)] | None = None
    """RuntimeClass of the pods, where GPUs need one: nvidia."""
    queue: Annotated[str, Field(pattern=NAME, min_length=1, max_length=63)] | None = None
    """LocalQueue of Kueue in the same namespace. The Job is made suspended and starts when the queue admits it; until
    then, and again after a preemption, the phase is Queued."""
    deadline: Duration = "24h"
    """The Job is stopped and fails after this time."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """Further attempts after a failure that may pass by itself. Preemption, eviction and node loss do not count, and
    failures that a retry cannot mend (bad data, bad configuration) are not tried again."""
    egress: Annotated[list[EgressPeer], Field(max_length=64)] | None = None
    """Who the pods may connect to besides DNS and whom the spec names otherwise (sources, teacher, output). With a list,
    also an empty one, everybody else is refused; without one, what the installation's `egress.default` says."""


class ResumableRun(RunSpec):
    """Where and how Jobs run that can go on where another attempt ended."""

    volume: Volume | None = None
    """Keeps what a Job has done so far, so that the next attempt goes on from there, also one with other resources. That of
    a training is removed once it has succeeded, and kept when it fails. That of a labelling stays with the resource: what
    a teacher has answered is not asked again, whatever else is changed. Without it an interrupted Job begins anew."""


class TrainingRun(ResumableRun):
    """Where and how a training runs."""

    nodes: Annotated[int, Field(ge=1, le=64)] = 1
    """Pods that train together, each on a node of its own and all with these resources. They share each batch, so the
    result is that of one pod; training.batchSize counts over all. With `volume`, its class has to allow ReadWriteMany."""
