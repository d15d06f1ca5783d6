"""What the three batch kinds have in common: a list of Jobs, of which the missing ones are to be made.

A Job that exists is left alone (its template is immutable, and it may be running); one that the wish no longer holds is
removed; a finished one gets its report written into an annotation, because pods are collected and reports with them. A
training's volume is there until it has succeeded: what it made is in the registry then. Its pods go with it, because
Kubernetes keeps a volume that any pod names, also one that has ended. The volume of a labelling stays: what a teacher has
answered once is not paid for again.
"""

from collections.abc import Collection, Sequence
from typing import Any

from slmops.api.resource import Resource
from slmops.plan.job import Work
from slmops.plan.volume import grown
from slmops.state import ANNOTATION_REPORT, ANNOTATION_RETRY, JobState, Manifest, Observed, Plan, Problem

POLL_SECONDS = 10.0
"""How often a running pod is asked for its progress."""


def batch_plan(
    resource: Resource[Any, Any], observed: Observed, works: Sequence[Work], problem: Problem | None = None,
    settled: Collection[str] = (), later: Sequence[Work] = (),
) -> Plan:  # fmt: skip
    """The plan that brings these Jobs about. Earlier Jobs stay while a later one cannot be described: once the problem is
    solved they may be just what is wanted, and hours of work are not thrown away for a slip in a reference. ``settled``:
    Jobs whose failure has been taken into account, and that are not tried again. ``later``: those whose turn is to come;
    what an earlier attempt of theirs has left on its volume stays."""
    apply: list[Manifest] = []
    retried: list[Manifest] = []
    lifted: list[Manifest] = []
    spent: list[Manifest] = []
    annotate: list[tuple[Manifest, dict[str, str]]] = []
    busy = False
    for item in works:
        job = observed.child("Job", item.step.name)
        state = observed.job(item.step.name)
        fence = observed.child("NetworkPolicy", item.step.name)
        if item.policy is not None and not state.finished:
            apply.append(item.policy)
        elif item.policy is None and fence is not None:
            lifted.append(fence)
        # Also under a running Job: its next pod would wait for a ConfigMap that somebody deleted.
        if not state.finished and observed.child("ConfigMap", item.step.name) is None:
            apply.append(item.config_map)
        if item.service is not None and not state.finished and observed.child("Service", item.step.name) is None:
            apply.append(item.service)
        if item.claim is not None:
            claim = observed.child("PersistentVolumeClaim", item.claim["metadata"]["name"])
            if not state.finished and (claim is None or grown(item.claim, claim)):
                apply.append(item.claim)
            elif claim and job and state.phase == "Succeeded" and state.recorded and not item.lasting:
                spent += [claim, *observed.pods_of(job)]
        if job is None:
            apply.append(item.job)
        elif state.phase == "Failed" and item.step.name not in settled and _retry_wanted(resource, job):
            retried.append(job)
            if not item.config_map.get("immutable"):  # it says what may be spent, which has become less
                retried += [found for found in [observed.child("ConfigMap", item.step.name)] if found]
        else:
            annotate += unrecorded(job, state)
        busy = busy or not state.finished
    claims = {item.claim["metadata"]["name"] for item in (*works, *later) if item.claim}
    wanted = {item.step.name for item in works} | claims
    stale = [c for c in observed.children if c["metadata"]["name"] not in wanted]
    return Plan(
        apply=tuple(apply),
        remove=(*retried, *lifted, *spent, *(stale if problem is None else ())),
        annotate=tuple(annotate),
        steps=tuple(item.step for item in works),
        problem=problem,
        deadline=POLL_SECONDS if busy else None,
    )


def unrecorded(job: Manifest, state: JobState) -> list[tuple[Manifest, dict[str, str]]]:
    """The report of a Job that is over and does not carry it yet."""
    if not state.finished or state.report is None or state.recorded:
        return []
    return [(job, {ANNOTATION_REPORT: state.report.model_dump_json(exclude_defaults=True)})]


def _retry_wanted(resource: Resource[Any, Any], job: Manifest) -> bool:
    """Whether the retry annotation changed since the Job was made."""
    wanted = resource.metadata.annotations.get(ANNOTATION_RETRY)
    made = (job["metadata"].get("annotations") or {}).get(ANNOTATION_RETRY)
    return wanted is not None and wanted != made
