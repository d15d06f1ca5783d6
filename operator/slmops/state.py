"""What one reconcile pass carries: ``Observed`` -> ``Plan`` -> status. Values only, no I/O, no clock.

It is also where raw Kubernetes objects get their meaning (``JobState``, ``Report`` of a pod), so that plan and status
can never read the same Job in two ways.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from pydantic import ValidationError

from slmops.api.conditions import ConditionType
from slmops.contract import Progress, Reason, Report

Manifest = dict[str, Any]

LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_KIND = "slmops.dev/kind"
LABEL_NAME = "slmops.dev/name"
LABEL_ROLE = "slmops.dev/role"
LABEL_POOL = "slmops.dev/pool"
LABEL_REVISION = "slmops.dev/revision"
LABEL_TRACK = "slmops.dev/track"
LABEL_QUEUE = "kueue.x-k8s.io/queue-name"
ANNOTATION_REPORT = "slmops.dev/report"
ANNOTATION_RETRY = "slmops.dev/retry"
ANNOTATION_NODE = "slmops.dev/node"
ANNOTATION_GPUS = "slmops.dev/gpus"
"""On a Job: GPUs of each of its pods."""
ANNOTATION_BUDGET = "slmops.dev/budget"
"""On a Job: a hash of the budget that it was made under."""
JOB_NAME_LABEL = "batch.kubernetes.io/job-name"
CONTAINER = "run"
EXIT_PERMANENT = 3
"""Exit code of an image for a failure that a retry cannot mend (slmkit.run)."""
EXIT_TERMINATED = 143
"""Exit code of an image that ended because it got SIGTERM (slmkit.run)."""


@dataclass(frozen=True)
class Problem:
    """Why a pass cannot go on: a condition that does not hold, for a person to mend or for the world to move."""

    condition: ConditionType
    reason: str
    message: str
    waiting: bool = False
    """True when it may pass by itself (a referenced resource is not there yet): Unknown instead of False."""


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
        if name in self.halted:
            return JobState("Failed", reason=Reason.BUDGET_EXCEEDED, message=self.halted[name])
        job = self.child("Job", name)
        return job_state(job, self.pods_of(job), self.progress) if job else JobState("Absent")


def digest8(value: object) -> str:
    """Eight characters of a hash over a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def owners(manifest: Manifest) -> set[str]:
    """UIDs of an object's controllers."""
    references = manifest.get("metadata", {}).get("ownerReferences") or []
    return {reference.get("uid", "") for reference in references if reference.get("controller")}


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
    pod_conditions: tuple[tuple[Manifest, Mapping[str, str]], ...] = ()
    """Live pods to set a readiness gate's condition on."""
    steps: tuple[Step, ...] = ()
    """Jobs in the order of the work, as far as it is known."""
    problem: Problem | None = None
    """Why there is no more to do now."""
    halted: Mapping[str, str] = field(default_factory=dict)
    """Jobs that the budget does not let run, by name, and why."""
    detail: object = None
    """What the kind's own status function needs besides (EdgeDeployment: its ``Rollout``)."""
    deadline: float | None = None
    """Seconds until the next pass is due, whatever happens."""


STARTING = "starting (an exhausted quota, a missing volume or Secret would keep it here)"
"""Said before there is a pod and while it is made ready: nobody gains by a write of the status in between."""
NO_IMAGE = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName")
IMAGE_UNAVAILABLE = "ImageUnavailable"
"""Reason of a Job that cannot start until somebody provides its image; the kubelet keeps trying."""
JobPhase = Literal["Absent", "Queued", "Starting", "Running", "Succeeded", "Failed"]


@dataclass(frozen=True)
class JobState:
    """What a Job has come to."""

    phase: JobPhase
    report: Report | None = None
    reason: str = ""
    message: str = ""
    progress: Progress | None = None
    attempts: int = 0
    recorded: bool = False
    """Whether the report is kept in the Job's annotation, so that it outlives the pod."""

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def failing(self) -> bool:
        """Whether it failed, or cannot start before somebody does something."""
        return self.phase == "Failed" or self.reason == IMAGE_UNAVAILABLE


GOOD_END, BAD_END = ("Complete", "SuccessCriteriaMet"), ("Failed", "FailureTarget")
"""Conditions of a Job that has ended, or is about to once its pods are gone."""


def ended(job: Manifest) -> bool:
    """Whether a Job has ended, or is about to."""
    return not _holding(job).keys().isdisjoint((*GOOD_END, *BAD_END))


def _holding(job: Manifest) -> dict[str, Manifest]:
    """The conditions of a Job that hold."""
    return {c["type"]: c for c in (job.get("status") or {}).get("conditions") or [] if c.get("status") == "True"}


def job_state(job: Manifest, pods: list[Manifest], progress: Mapping[str, Progress]) -> JobState:
    """Read a Job and its pods, which are given oldest first."""
    conditions = _holding(job)
    kept = (job["metadata"].get("annotations") or {}).get(ANNOTATION_REPORT)
    report = parse_report(kept) if kept else None
    recorded = report is not None
    attempts = len(pods)
    terminated = [found for pod in pods if (found := _termination(pod)) is not None]
    if not conditions.keys().isdisjoint(GOOD_END):
        if report is None and terminated:
            report = next((r for t in reversed(terminated) if t.get("exitCode") == 0 and (r := _report(t))), None)
        if report is not None and report.outcome == "Succeeded":
            return JobState("Succeeded", report, attempts=attempts, recorded=recorded)
        if not terminated and pods:
            return JobState("Running", attempts=attempts)
        return JobState("Failed", None, "ReportMissing", "the Job ended well but left no readable report",
                        attempts=attempts)  # fmt: skip
    if not conditions.keys().isdisjoint(BAD_END):
        if report is None and terminated:
            report = _report(terminated[-1]) or _killed(terminated[-1])
        reason, message = _failure(conditions, terminated, report)
        return JobState("Failed", report, reason, message, attempts=attempts, recorded=recorded)
    if job.get("spec", {}).get("suspend"):
        return JobState("Queued", message=_queued(job))
    current = pods[-1] if pods else None
    if current is None:
        return JobState("Starting", message=STARTING, attempts=attempts)
    if _running(current):
        return JobState("Running", progress=progress.get(current["metadata"]["uid"]), attempts=attempts)
    if (done := _termination(current)) is not None:  # the Job's own verdict, or its next pod, follows
        return JobState("Running", message=_attempt(done, attempts), attempts=attempts)
    reason = IMAGE_UNAVAILABLE if _image_missing(current) else ""
    return JobState("Starting", reason=reason, message=waiting_for(current), attempts=attempts)


def _queued(job: Manifest) -> str:
    """Who has to admit a suspended Job, and where to look when that takes long."""
    queue = (job["metadata"].get("labels") or {}).get(LABEL_QUEUE)
    if not queue:
        return "suspended; it starts when whoever suspended the Job lets it"
    return (
        f"waits in queue {queue} until Kueue admits it. If that takes long: kubectl get localqueue {queue}, and "
        "kubectl describe workloads, in this namespace"
    )


def _attempt(termination: Manifest, number: int) -> str:
    """What is to be said of an attempt that is over; nothing when it ended well."""
    if termination.get("exitCode") == 0:
        return ""
    said = _report(termination) or _killed(termination)
    why = f"{said.reason}: {said.message}" if said and said.reason else f"exit code {termination.get('exitCode')}"
    return f"attempt {number} failed ({why}); another follows unless retries are used up"


def _failure(conditions: Mapping[str, Manifest], ended: list[Manifest], report: Report | None) -> tuple[str, str]:
    condition = conditions.get("Failed") or conditions["FailureTarget"]
    if condition.get("reason") == "DeadlineExceeded":
        return "DeadlineExceeded", "the Job ran longer than spec.run.deadline"
    if ended and (killed := _killed(ended[-1])):
        return Reason.OUT_OF_MEMORY, killed.message
    if report is not None:
        return report.reason or Reason.INTERNAL_ERROR, report.message
    if ended:
        return "ContainerFailed", f"the container exited with code {ended[-1].get('exitCode')} and left no report"
    return "JobFailed", f"the Job failed: {condition.get('reason', '')} {condition.get('message', '')}".strip()[:1024]


def parse_report(text: str) -> Report | None:
    """A report as a pod wrote it; None when it is not one. What a pod says is untrusted: the model bounds it."""
    try:
        return Report.model_validate(json.loads(text))
    except (ValueError, ValidationError, RecursionError):
        return None


def _report(termination: Manifest) -> Report | None:
    return parse_report(termination.get("message") or "")


def _killed(termination: Manifest) -> Report | None:
    """What a container that the kernel killed for its memory would have reported; kept like any report."""
    if termination.get("reason") != "OOMKilled":
        return None
    message = "the container was killed because it used more memory than its limit"
    return Report(outcome="Failed", reason=Reason.OUT_OF_MEMORY, message=message)


def _status(pod: Manifest) -> Manifest:
    statuses = pod.get("status", {}).get("containerStatuses") or []
    return next((dict(s) for s in statuses if s.get("name") == CONTAINER), {})


def _termination(pod: Manifest) -> Manifest | None:
    found = (_status(pod).get("state") or {}).get("terminated")
    return dict(found) if found else None


def _running(pod: Manifest) -> bool:
    return bool((_status(pod).get("state") or {}).get("running"))


def _image_missing(pod: Manifest) -> bool:
    return (_status(pod).get("state") or {}).get("waiting", {}).get("reason") in NO_IMAGE


def waiting_for(pod: Manifest) -> str:
    """Why a pod's containers do not run yet, in words for a person; empty when nothing is known."""
    for status in pod.get("status", {}).get("containerStatuses") or []:
        waiting = (status.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in NO_IMAGE:
            return f"image {status.get('image')} cannot be pulled: {_short(waiting.get('message'))}"
        if waiting.get("reason") in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError",
                                     "CrashLoopBackOff"):  # fmt: skip
            return f"{waiting['reason']}: {_short(waiting.get('message'))}"
    for condition in pod.get("status", {}).get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"no node fits: {_short(condition.get('message'))}"
    if pod.get("status", {}).get("phase") == "Pending":
        return STARTING
    return ""


def _short(text: object) -> str:
    return " ".join(str(text or "").split())[:400]
