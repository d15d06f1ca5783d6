"""What one reconcile pass carries: ``Observed`` -> ``Plan`` -> status. Values only, no I/O, no clock."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from slmops.api.conditions import ConditionType
from slmops.api.resource import Resource
from slmops.contract import Progress, Reason, Served
from slmops.jobs import (
    ANNOTATION_REPORT,
    CONTAINER,
    EXIT_PERMANENT,
    EXIT_TERMINATED,
    IMAGE_UNAVAILABLE,
    INDEX_LABEL,
    JOB_NAME_LABEL,
    LABEL_QUEUE,
    LEADER,
    STARTING,
    JobPhase,
    JobState,
    Manifest,
    ended,
    image_missing,
    job_state,
    parse_report,
    waiting_for,
)

__all__ = [
    "ANNOTATION_ADMITTED",
    "ANNOTATION_BUDGET",
    "ANNOTATION_GPUS",
    "ANNOTATION_NODE",
    "ANNOTATION_REPORT",
    "ANNOTATION_RETRY",
    "CONTAINER",
    "EXIT_PERMANENT",
    "EXIT_TERMINATED",
    "IMAGE_UNAVAILABLE",
    "INDEX_LABEL",
    "JOB_NAME_LABEL",
    "LABEL_KIND",
    "LABEL_MANAGED_BY",
    "LABEL_NAME",
    "LABEL_POOL",
    "LABEL_QUEUE",
    "LABEL_REVISION",
    "LABEL_ROLE",
    "LABEL_TRACK",
    "LEADER",
    "SIGN",
    "STARTING",
    "Heard",
    "JobPhase",
    "JobState",
    "Manifest",
    "Observed",
    "Plan",
    "Problem",
    "Step",
    "child_labels",
    "digest8",
    "ended",
    "image_missing",
    "job_state",
    "owners",
    "parse_report",
    "waiting_for",
]

LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_KIND = "slmops.dev/kind"
LABEL_NAME = "slmops.dev/name"
LABEL_ROLE = "slmops.dev/role"
LABEL_POOL = "slmops.dev/pool"
LABEL_REVISION = "slmops.dev/revision"
LABEL_TRACK = "slmops.dev/track"
SIGN = "sign"
"""Role of the Job that signs what others have published."""
ANNOTATION_RETRY = "slmops.dev/retry"
ANNOTATION_ADMITTED = "slmops.dev/admitted-at"
"""On a candidate's DaemonSet: when it was given further nodes."""
ANNOTATION_NODE = "slmops.dev/node"
ANNOTATION_GPUS = "slmops.dev/gpus"
"""On a Job: GPUs of each of its pods."""
ANNOTATION_BUDGET = "slmops.dev/budget"
"""On a Job: a hash of the budget that it was made under."""


@dataclass(frozen=True)
class Problem:
    """Why a pass cannot go on: a condition that does not hold, for a person to mend or for the world to move."""

    condition: ConditionType
    reason: str
    message: str
    waiting: bool = False
    """True when it may pass by itself (a referenced resource is not there yet): Unknown instead of False."""


@dataclass(frozen=True)
class Heard:
    """What the servers of a pool told of the requests that they answered."""

    window: Served
    """Of the time that is judged."""
    first: Served | None
    """Since the revision became stable, as long as there is no baseline."""
    servers: int
    """How many told it."""


@dataclass(frozen=True)
class Observed:
    """Everything that a pass read. Children are ours by owner UID; strangers with our labels are not among them."""

    children: tuple[Manifest, ...] = ()
    """Jobs, ConfigMaps, DaemonSets, Services and PersistentVolumeClaims that the resource owns."""
    pods: tuple[Manifest, ...] = ()
    """Pods that one of those children owns."""
    references: Mapping[tuple[str, str], Manifest] = field(default_factory=dict)
    """Other resources of the namespace that exist, by (kind, name)."""
    nodes: tuple[Manifest, ...] = ()
    """All nodes of the cluster (EdgeDeployment only)."""
    progress: Mapping[str, Progress] = field(default_factory=dict)
    """What running pods said on /progress, by pod UID."""
    heard: Mapping[str, Heard] = field(default_factory=dict)
    """What servers of the stable revision told, by pool (EdgeDeployment with monitoring only)."""
    halted: Mapping[str, str] = field(default_factory=dict)
    """Jobs that the budget does not let run, by name, and why."""

    def child(self, kind: str, name: str) -> Manifest | None:
        """The child of that kind and name."""
        return self._by_name.get((kind, name))

    def of_kind(self, kind: str) -> list[Manifest]:
        """The children of a kind."""
        return [c for c in self.children if c.get("kind") == kind]

    def pods_of(self, owner: Manifest) -> list[Manifest]:
        """The pods of a child, oldest first."""
        mine = self._pods_by_owner.get(owner["metadata"]["uid"], [])
        return sorted(mine, key=lambda pod: (pod["metadata"].get("creationTimestamp") or "", pod["metadata"]["name"]))

    @cached_property
    def _by_name(self) -> Mapping[tuple[str, str], Manifest]:
        """Children by kind and name: a rollout asks for thousands in one pass."""
        return {(str(c.get("kind")), c["metadata"]["name"]): c for c in reversed(self.children)}

    @cached_property
    def _pods_by_owner(self) -> Mapping[str, list[Manifest]]:
        found: dict[str, list[Manifest]] = {}
        for pod in self.pods:
            for uid in owners(pod):
                found.setdefault(uid, []).append(pod)
        return found

    def job(self, name: str) -> "JobState":
        """What a Job has come to."""
        if name not in self._states:
            self._states[name] = self._state(name)
        return self._states[name]

    @cached_property
    def _states(self) -> dict[str, "JobState"]:
        """What Jobs have come to, as far as it was asked for: their reports are read once a pass, not at each question."""
        return {}

    def _state(self, name: str) -> "JobState":
        if name in self.halted:
            return JobState("Failed", reason=Reason.BUDGET_EXCEEDED, message=self.halted[name])
        job = self.child("Job", name)
        return job_state(job, self.pods_of(job), self.progress) if job else JobState("Absent")


def digest8(value: object) -> str:
    """Eight characters of a hash over a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def child_labels(resource: Resource[Any, Any], role: str) -> dict[str, str]:
    """The labels by which a child, and a pod of it, is led back to its resource."""
    return {
        LABEL_MANAGED_BY: "slmops",
        LABEL_KIND: resource.kind(),
        LABEL_NAME: resource.metadata.name,
        LABEL_ROLE: role[:63],
    }


def owners(manifest: Manifest) -> set[str]:
    """UIDs of an object's controllers. Anybody may name an owner besides; that makes the object nobody's child."""
    references = manifest.get("metadata", {}).get("ownerReferences") or ()
    return {reference["uid"] for reference in references if reference.get("uid") and reference.get("controller")}


@dataclass(frozen=True)
class Step:
    """One Job of a plan."""

    role: str
    name: str


@dataclass(frozen=True)
class Plan:
    """What a pass wants done."""

    apply: tuple[Manifest, ...] = ()
    """Children to create or change, in this order."""
    remove: tuple[Manifest, ...] = ()
    """Live children to delete."""
    annotate: tuple[tuple[Manifest, Mapping[str, str]], ...] = ()
    """Live children to add annotations to."""
    retrain: tuple[Manifest, Any] | None = None
    """A FineTune that is to run once more, and the ``Trace`` that its annotation is to say."""
    watched: object = None
    """Of an EdgeDeployment with monitoring: what its servers' figures come to (``Watched``)."""
    pod_conditions: tuple[tuple[Manifest, Mapping[str, str]], ...] = ()
    """Live pods to set a readiness gate's condition on."""
    steps: tuple[Step, ...] = ()
    """Jobs in the order of the work, as far as it is known."""
    problem: Problem | None = None
    """Why there is no more to do now."""
    halted: Mapping[str, str] = field(default_factory=dict)
    """Jobs that the budget does not let run, by name, and why."""
    detail: object = None
    """What the kind's own status function needs besides (EdgeDeployment: its ``Rollout``; FineTune: its ``Searched``)."""
    deadline: float | None = None
    """Seconds until the next pass is due, whatever happens."""
