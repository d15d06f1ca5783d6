"""Where raw Jobs and pods get their meaning, so that plan and status can never read the same Job in two ways. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from slmops.contract import Progress, Reason, Report

Manifest = dict[str, Any]
ANNOTATION_REPORT = "slmops.dev/report"
JOB_NAME_LABEL = "batch.kubernetes.io/job-name"
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
"""Rank of a pod among several that train together."""
LEADER = "0"
"""The rank that publishes and reports."""
CONTAINER = "run"
EXIT_PERMANENT = 3
"""Exit code of an image for a failure that a retry cannot mend (slmkit.run)."""
EXIT_TERMINATED = 143
"""Exit code of an image that got SIGTERM, or lost a pod that it worked with: no failure of its own (slmkit.run)."""
LABEL_QUEUE = "kueue.x-k8s.io/queue-name"
NO_IMAGE = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName")
IMAGE_UNAVAILABLE = "ImageUnavailable"
"""Reason of a Job that cannot start until somebody provides its image; the kubelet keeps trying."""
STARTING = "starting (an exhausted quota, a missing volume or Secret would keep it here)"
"""Said before there is a pod and while it is made ready: nobody gains by a write of the status in between."""
JobPhase = Literal["Absent", "Queued", "Starting", "Running", "Succeeded", "Failed"]


@dataclass(frozen=True)
class JobState:
    """What a Job has come to."""

    phase: JobPhase
    report: Report | None = None
    reason: str = ""
    message: str = ""
    progress: Progress | None = None
    started: str | None = None
    """When the pod that runs came to its node, as the API server writes times."""
    attempts: int = 0
    recorded: bool = False
    """Whether the report is kept in the Job's annotation, so that it outlives the pod."""
    ending: bool = False
    """Whether its pod has ended, and neither the Job has said what that comes to nor another pod followed. Nothing is
    heard of such a pod any more."""

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
    """Read a Job and its pods, which are given oldest first. Of several that train together the leader speaks."""
    conditions = _holding(job)
    kept = (job["metadata"].get("annotations") or {}).get(ANNOTATION_REPORT)
    report = parse_report(kept) if kept else None
    recorded = report is not None
    leaders = [pod for pod in pods if _rank(pod) == LEADER]
    attempts = len(leaders)
    if not conditions.keys().isdisjoint(GOOD_END):
        terminated = _terminations(leaders)
        if report is None and terminated:
            report = next((r for t in reversed(terminated) if t.get("exitCode") == 0 and (r := _report(t))), None)
        if report is not None and report.outcome == "Succeeded":
            return JobState("Succeeded", report, attempts=attempts, recorded=recorded)
        if not terminated and pods:
            return JobState("Running", attempts=attempts, ending=True)
        return JobState("Failed", None, "ReportMissing", "the Job ended well but left no readable report",
                        attempts=attempts)  # fmt: skip
    if not conditions.keys().isdisjoint(BAD_END):
        terminated = _terminations(pods)
        # Who was interrupted knows nothing of why the Job failed: another pod does.
        terminated = [t for t in terminated if t.get("exitCode") != EXIT_TERMINATED] or terminated
        if report is None and terminated:
            report = _report(terminated[-1]) or _killed(terminated[-1])
        reason, message = _failure(conditions, terminated, report)
        return JobState("Failed", report, reason, message, attempts=attempts, recorded=recorded)
    if job.get("spec", {}).get("suspend"):
        return JobState("Queued", message=_queued(job))
    if not leaders:
        return JobState("Starting", message=STARTING, attempts=attempts)
    newest = {_rank(pod): pod for pod in pods}
    waiting = next((pod for pod in newest.values() if not _running(pod) and _termination(pod) is None), None)
    if waiting is not None:
        reason = IMAGE_UNAVAILABLE if image_missing(waiting) else ""
        return JobState("Starting", reason=reason, message=waiting_for(waiting), attempts=attempts)
    current = newest[LEADER]
    if _running(current):
        return JobState("Running", progress=progress.get(current["metadata"]["uid"]),
                        started=(current.get("status") or {}).get("startTime"), attempts=attempts)  # fmt: skip
    done = _termination(current) or {}  # the Job's own verdict, or its next pod, follows
    return JobState("Running", message=_attempt(done, attempts), attempts=attempts, ending=True)


def _rank(pod: Manifest) -> str:
    """A pod's place among those that train together; one that is alone leads."""
    return str((pod["metadata"].get("labels") or {}).get(INDEX_LABEL, LEADER))


def _terminations(pods: list[Manifest]) -> list[Manifest]:
    return [found for pod in pods if (found := _termination(pod)) is not None]


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
    if termination.get("exitCode") == EXIT_TERMINATED:
        return f"attempt {number} was interrupted ({said.message if said else 'told to stop'}); another follows"
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


def image_missing(pod: Manifest) -> bool:
    """Whether the kubelet cannot get the image that a pod's container runs, or reads."""
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
    """Of a long message both ends: what was tried, and what came in between last, which is the cause."""
    words = " ".join(str(text or "").split())
    return words if len(words) <= 400 else f"{words[:160]} … {words[-237:]}"
