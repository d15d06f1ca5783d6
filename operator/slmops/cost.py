"""What Jobs have used: the time of every pod, failed and preempted ones too, and what it cost.

A pod counts from the moment its node took it (a GPU is its own from then on, also while the image is pulled) to the end
of its container. Pods go: with their Job, with their node, when a queue preempts them. So the status remembers those that
were there, and the time of one that has gone moves into a sum.

Whoever may write a status or annotate a Job can write anything there, and no pass may fail over it: what cannot be read
counts as absent.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from slmops.api.base import quantity
from slmops.api.budget import Attempt, Budget, CostStatus, Gone, Price
from slmops.api.conditions import moment
from slmops.contract import LARGEST
from slmops.state import ANNOTATION_GPUS, Manifest, Observed, ended

HOUR = 3600
MOST = 512
MOST_GPUS = 9999
SPENT = r"[0-9]{1,30}(\.[0-9]{1,4})?"
"""An amount as ``money`` writes it."""


def gpus(limits: Mapping[str, int | str]) -> int:
    """GPUs among a container's limits: extended resources named after them, as vendors' device plugins do
    (nvidia.com/gpu, amd.com/gpu, gpu.intel.com/xe), and slices of one (nvidia.com/mig-1g.5gb)."""
    return sum(
        int(quantity(amount)) for name, amount in limits.items() if "gpu" in name or name.startswith("nvidia.com/mig-")
    )


@dataclass(frozen=True)
class Used:
    """Time that was used."""

    gpu_seconds: float
    pod_seconds: float

    def amount(self, price: Price | None) -> Decimal:
        """What it cost."""
        if price is None:
            return Decimal(0)
        gpu, node = (Decimal(str(each or 0)) for each in (price.per_gpu_hour, price.per_node_hour))
        return (gpu * Decimal(self.gpu_seconds) + node * Decimal(self.pod_seconds)) / HOUR


def attempts(before: CostStatus | None, observed: Observed, now: datetime) -> tuple[list[Attempt], Gone]:
    """Every pod that is there, and the sum of those that were."""
    suspended: dict[str, str] = {}
    here: dict[str, Attempt] = {}
    for job in observed.of_kind("Job"):
        suspended[job["metadata"]["name"]] = _suspended(job)
        count = _gpus_of(job)
        for pod in observed.pods_of(job):
            start = (pod.get("status") or {}).get("startTime")
            if began := moment(start):
                name = pod["metadata"]["name"]
                here[name] = _by_one_clock(pod, began, Attempt(pod=name, gpus=count, start=start, end=_end(pod)))
    known = remembered(before)
    gone = known.gone or Gone()
    for old in known.attempts:
        if old.pod not in here:
            # Preempted: its Job knows when. Deleted with its Job: about now.
            whose = max((name for name in suspended if old.pod.startswith(f"{name}-")), key=len, default="")
            end = old.end or suspended.get(whose) or now.isoformat()
            used = _seconds(old.model_copy(update={"end": end}), now)
            gone = Gone(
                gpu_seconds=min(LARGEST, gone.gpu_seconds + round(used * old.gpus)),
                pod_seconds=min(LARGEST, gone.pod_seconds + round(used)),
            )
    return sorted(here.values(), key=lambda attempt: (attempt.start, attempt.pod))[-MOST:], gone


def remembered(before: CostStatus | None) -> CostStatus:
    """What a status says was used, as far as it can be."""
    found = before or CostStatus()
    gone = found.gone or Gone()
    return CostStatus(
        gpu_hours=min(max(0.0, found.gpu_hours), LARGEST),
        node_hours=min(max(0.0, found.node_hours), LARGEST),
        amount=found.amount if re.fullmatch(SPENT, found.amount or "") else None,
        currency=found.currency,
        attempts=[
            Attempt(pod=old.pod, gpus=min(max(0, old.gpus), MOST_GPUS), start=old.start,
                    end=old.end if moment(old.end) else None)
            for old in found.attempts if moment(old.start)
        ],
        gone=Gone(gpu_seconds=min(max(0, gone.gpu_seconds), LARGEST),
                  pod_seconds=min(max(0, gone.pod_seconds), LARGEST)),
    )  # fmt: skip


def _gpus_of(job: Manifest) -> int:
    """GPUs of each of a Job's pods."""
    text = str((job["metadata"].get("annotations") or {}).get(ANNOTATION_GPUS) or "")
    return int(text) if re.fullmatch("[0-9]{1,4}", text) else 0


def used(known: tuple[list[Attempt], Gone], now: datetime, whole_minutes: bool = False) -> Used:
    """The time of all of them."""
    listed, gone = known
    gpu, pod = float(gone.gpu_seconds), float(gone.pod_seconds)
    for attempt in listed:
        took = _seconds(attempt, now)
        if whole_minutes and attempt.end is None:
            took -= took % 60  # else each look at a running pod would be a change of its status
        gpu, pod = gpu + took * attempt.gpus, pod + took
    return Used(gpu, pod)


def cost(before: CostStatus | None, observed: Observed, price: Price | None, now: datetime) -> CostStatus | None:
    """What status shows; None before the first pod."""
    listed, gone = attempts(before, observed, now)
    told_soon = _told_soon(observed)
    listed = [each.model_copy(update={"end": None}) if each.pod in told_soon else each for each in listed]
    total = used((listed, gone), now, whole_minutes=True)
    if not listed and not gone.pod_seconds:
        return None
    return CostStatus(
        gpu_hours=round(total.gpu_seconds / HOUR, 4),
        node_hours=round(total.pod_seconds / HOUR, 4),
        amount=money(total.amount(price)) if price else None,
        currency=price.currency if price else None,
        attempts=listed,
        gone=gone if gone.pod_seconds else None,
    )


@dataclass(frozen=True)
class Growth:
    """What was used since a status was written."""

    gpu_seconds: float
    pod_seconds: float
    amount: float
    currency: str


def growth(before: CostStatus | None, after: CostStatus | None) -> Growth | None:
    """How much more a status says than the one before it; None when nothing. Another currency starts a sum of its own."""
    if after is None:
        return None
    old = remembered(before)
    same = old.amount if old.currency == after.currency else None
    grown = Growth(
        max(0.0, after.gpu_hours - old.gpu_hours) * HOUR,
        max(0.0, after.node_hours - old.node_hours) * HOUR,
        max(0.0, float(Decimal(after.amount or 0) - Decimal(same or 0))),
        after.currency or "",
    )
    return grown if grown.gpu_seconds or grown.pod_seconds or grown.amount else None


def exceeded(budget: Budget, total: Used) -> str:
    """What is spent beyond the budget, in words; empty when nothing is."""
    hours = total.gpu_seconds / HOUR
    if budget.gpu_hours is not None and hours > float(budget.gpu_hours):
        return f"{hours:.4g} GPU hours are used, spec.budget.gpuHours allows {budget.gpu_hours}"
    spent = total.amount(budget.price)
    if budget.max is not None and budget.price is not None and spent > Decimal(str(budget.max)):
        currency = budget.price.currency
        return f"{money(spent)} {currency} are spent, spec.budget.max allows {budget.max} {currency}"
    return ""


def money(amount: Decimal) -> str:
    """An amount for people; small ones with more digits, for they are not nothing."""
    return f"{amount:.2f}" if amount >= 1 or not amount else f"{amount:.4f}"


def _by_one_clock(pod: Manifest, began: datetime, told: Attempt) -> Attempt:
    """The same time from when the control plane says that a node took the pod. A node's own clock, which may be hours off,
    says only how long it was from there to the end."""
    start = max(_scheduled(pod) or began, moment(pod["metadata"].get("creationTimestamp")) or began)
    if start == began:
        return told
    ended, end = moment(told.end), told.end
    if ended and end in _finishes(pod):  # others' times are not the node's
        try:
            end = (ended + (start - began)).isoformat()
        except OverflowError:  # no clock is thousands of years off
            return told
    return told.model_copy(update={"start": start.isoformat(), "end": end})


def _scheduled(pod: Manifest) -> datetime | None:
    """When a node was found for a pod, as the scheduler says."""
    times = (
        c.get("lastTransitionTime") for c in pod["status"].get("conditions") or [] if c.get("type") == "PodScheduled"
    )
    return next(filter(None, map(moment, times)), None)


def budget_of(resource: Any) -> Budget | None:
    """The budget of a resource; kinds without one have none."""
    found = getattr(resource.spec, "budget", None)
    return found if isinstance(found, Budget) else None


def _seconds(attempt: Attempt, now: datetime) -> float:
    start, end = moment(attempt.start), moment(attempt.end) or now
    return max(0.0, (end - start).total_seconds()) if start else 0.0


def _told_soon(observed: Observed) -> set[str]:
    """Pods that ended well while their Job has not said so yet. It will at once, and one write of the status tells of
    both; where another of its pods goes on, that may take long."""
    found: set[str] = set()
    for job in observed.of_kind("Job"):
        pods = observed.pods_of(job)
        if not ended(job) and all(pod["status"].get("phase") in ("Succeeded", "Failed") for pod in pods):
            found |= {pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] == "Succeeded"}
    return found


def _end(pod: Manifest) -> str | None:
    """When a pod ended; None while it runs."""
    status = pod["status"]
    ends = _finishes(pod)
    if ends and all(map(moment, ends)):
        return max(ends)
    if status.get("phase") not in ("Succeeded", "Failed"):
        return None
    # Evicted, or lost with its node: nobody saw the container end.
    times = [c.get("lastTransitionTime") for c in status.get("conditions") or [] if c.get("type") == "DisruptionTarget"]
    found = (*times, pod["metadata"].get("deletionTimestamp"), status["startTime"])
    return next(str(time) for time in found if moment(time))


def _finishes(pod: Manifest) -> list[str]:
    """When each of a pod's containers ended, as their node says; a text that is no time for one that has not."""
    return [
        str(((container.get("state") or {}).get("terminated") or {}).get("finishedAt"))
        for container in pod["status"].get("containerStatuses") or []
    ]


def _suspended(job: Manifest) -> str:
    """When a Job was suspended; empty when it is not."""
    conditions = (job.get("status") or {}).get("conditions") or []
    return next(
        (str(c.get("lastTransitionTime") or "") for c in conditions
         if c.get("type") == "Suspended" and c.get("status") == "True"), "",
    )  # fmt: skip
