"""The smallest world that a batch resource can live in: its children in a dictionary, a Job controller that takes turns.

Passes go as in ``slmops.reconcile``: observe, plan, act, state. Every write is counted.
"""

import itertools
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from slmops.cluster.objects import status_differs
from slmops.contract import Report
from slmops.kinds import KINDS
from slmops.state import Manifest, Observed
from tests.unit.builders import (
    COMPLETE,
    NOW,
    RUNNING,
    SETTINGS,
    condition,
    ended,
    failure,
    figures,
    pod,
    report,
    said,
    waiting,
)

MADE = {"label": ("dataset",), "train": ("model", "adapter")}
OUTCOMES = ("good", "good", "silent", "garbage", "permanent", "passing", "oom", "evicted", "late", "noimage")


class World:
    """One resource and what it owns. ``outcomes`` are how pods end, one after the other, and ``then`` how all others do."""

    def __init__(
        self, body: Manifest, outcomes: Iterable[str] = (), references: Iterable[Manifest] = (), then: str = "good"
    ) -> None:
        self.body = body
        self.kind = KINDS[body["kind"]]
        self.children: dict[tuple[str, str], Manifest] = {}
        self.pods: list[Manifest] = []
        self.references = {(m["kind"], m["metadata"]["name"]): m for m in references}
        self.outcomes = itertools.chain(outcomes, itertools.repeat(then))
        self.made: list[tuple[str, str]] = []
        """(UID, name) of every Job that there ever was."""
        self._uids = itertools.count(1)

    # --- the operator

    def observe(self) -> Observed:
        """What a pass reads."""
        return Observed(tuple(self.children.values()), tuple(self.pods), self.references)

    def reconcile(self, now: datetime = NOW) -> int:
        """One pass; returns the number of writes."""
        resource = self.kind.model.model_validate(self.body)
        observed = self.observe()
        plan = self.kind.plan(resource, observed, SETTINGS, now)
        status = self.kind.status(resource, observed, plan, now)
        for manifest in plan.apply:
            self._create(manifest)
        for live, annotations in plan.annotate:
            live["metadata"].setdefault("annotations", {}).update(annotations)
        for live in plan.remove:
            self.delete(live)
        writes = len(plan.apply) + len(plan.annotate) + len(plan.remove)
        desired = self.body | {"status": json.loads(json.dumps(status.dump()))}
        if status_differs(desired, self.body):
            self.body = desired
            writes += 1
        return writes

    def _create(self, manifest: Manifest) -> None:
        key = manifest["kind"], manifest["metadata"]["name"]
        assert key not in self.children, f"{key} is there: a Job's template cannot be changed"
        made: Manifest = json.loads(json.dumps(manifest))
        made["metadata"]["uid"] = f"uid-{next(self._uids)}"
        self.children[key] = made
        if made["kind"] == "Job":
            self.made.append((made["metadata"]["uid"], key[1]))

    def delete(self, live: Manifest) -> None:
        """Delete a child and, as the garbage collector does, its pods."""
        del self.children[live["kind"], live["metadata"]["name"]]
        self.pods = [found for found in self.pods if not self._owns(live, found)]

    # --- people

    def change(self, spec: Mapping[str, Any]) -> None:
        """Somebody applies another spec."""
        if spec != self.body["spec"]:
            generation = self.body["metadata"]["generation"] + 1
            self.body = self.body | {"spec": dict(spec), "metadata": self.body["metadata"] | {"generation": generation}}

    def annotate(self, **annotations: str) -> None:
        """Somebody sets annotations in our domain."""
        mine = {f"slmops.dev/{key}": value for key, value in annotations.items()}
        old = self.body["metadata"].get("annotations", {})
        self.body = self.body | {"metadata": self.body["metadata"] | {"annotations": old | mine}}

    # --- the Job controller and the kubelet

    @property
    def jobs(self) -> list[Manifest]:
        """The Jobs that there are, by name."""
        return [child for key, child in sorted(self.children.items()) if key[0] == "Job"]

    def turn(self) -> bool:
        """Each Job that is not done moves by one step. Returns whether one did."""
        open_jobs = [job for job in self.jobs if not self.over(job)]
        for job in open_jobs:
            mine = [found for found in self.pods if self._owns(job, found)]
            if not mine or mine[-1]["status"]["phase"] == "Failed":
                self.pods.append(pod(job, len(mine), RUNNING))
            else:
                self._end(job, mine)
        return bool(open_jobs)

    @staticmethod
    def over(job: Manifest) -> bool:
        """Whether the Job is done."""
        return bool(job.get("status", {}).get("conditions"))

    def _end(self, job: Manifest, mine: list[Manifest]) -> None:
        outcome = next(self.outcomes)
        last = mine[-1]
        state = {
            "good": ended(0, said(self.report(job))),
            "silent": ended(0),
            "garbage": ended(0, '{"outcome": "Succeeded", "seconds": NaN}'),
            "permanent": ended(3, failure("InvalidData", "train.jsonl line 17")),
            "passing": ended(1, failure("SourceUnreachable", "timed out")),
            "oom": ended(137, reason="OOMKilled"),
            "evicted": ended(143),
            "noimage": waiting("ImagePullBackOff", "not found"),
        }.get(outcome)
        if outcome == "late":
            self.pods.remove(last)
            self._over(job, condition("Failed", "DeadlineExceeded"))
            return
        ending = [condition("DisruptionTarget")] if outcome == "evicted" else []
        changed = pod(job, len(mine) - 1, state, conditions=ending)
        self.pods[self.pods.index(last)] = changed
        failures = sum(
            found["status"]["phase"] == "Failed" and not found["status"].get("conditions")
            for found in self.pods
            if self._owns(job, found)
        )
        if changed["status"]["phase"] == "Succeeded":
            self._over(job, COMPLETE)
        elif outcome == "permanent":
            self._over(job, condition("Failed", "PodFailurePolicy"))
        elif failures > job["spec"]["backoffLimit"]:
            self._over(job, condition("Failed", "BackoffLimitExceeded"))

    @staticmethod
    def _over(job: Manifest, how: Manifest) -> None:
        job["status"] = {"conditions": [how]}

    @staticmethod
    def _owns(job: Manifest, found: Manifest) -> bool:
        return any(owner["uid"] == job["metadata"]["uid"] for owner in found["metadata"]["ownerReferences"])

    @staticmethod
    def report(job: Manifest) -> Report:
        """What a run of this Job has to say when all is well."""
        role = job["metadata"]["labels"]["slmops.dev/role"]
        measured = {} if role == "label" else {"model": figures(0.9), "baseline": figures(0.5)}
        return report(*MADE.get(role, ("image",)), evaluation=measured, inputs={"data": f"oci://{role}"})

    # --- all of them

    def settle(self, now: datetime = NOW, limit: int = 200) -> int:
        """Turns and passes until nothing happens any more; returns how many it took."""
        for count in range(limit):
            writes = self.reconcile(now)
            if not self.turn() and not writes:
                return count
        raise AssertionError("no fixed point")

    def condition(self, type: str) -> Manifest:
        """A condition of the resource."""
        found: list[Manifest] = self.body["status"]["conditions"]
        return next(one for one in found if one["type"] == type)
