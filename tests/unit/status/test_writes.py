"""How often a status is written: once for each phase, in whatever steps Kubernetes tells of a Job and its pod."""

import itertools
from datetime import timedelta
from typing import Any

import pytest

from slmops.contract import Progress
from slmops.kinds import KINDS
from slmops.state import Manifest, Observed
from tests.unit.builders import COMPLETE, NOW, SETTINGS, body, condition, ended, jobs, live, pod, report, said

START, END = "2026-03-01T12:00:01Z", "2026-03-01T12:00:04Z"


def steps(job: Manifest, text: str) -> tuple[list[Manifest | None], list[Manifest | None]]:
    """What the API server shows of a Job and of its pod, one after the other."""
    name = job["metadata"]["name"]
    scheduled = [condition("PodScheduled")]
    running = {"running": {"startedAt": START}}
    over = ended(0, text)
    over["terminated"]["finishedAt"] = END
    pods: list[Manifest | None] = [
        None,
        pod(job),
        pod(job, conditions=scheduled),
        pod(job, state=running, startTime=START, conditions=scheduled),
        pod(job, state=over, startTime=START, conditions=scheduled),
    ]
    met = condition("SuccessCriteriaMet", "CompletionsReached")
    numbers: list[dict[str, Any]] = [
        {},
        {"active": 1, "ready": 0},
        {"active": 1, "ready": 1},
        {"active": 0, "uncountedTerminatedPods": {"succeeded": [f"pod-0-of-{name}"]}},
        {"conditions": [met], "succeeded": 1},
        {"conditions": [met, COMPLETE], "succeeded": 1},
    ]
    return pods, [live(job) | {"status": status} for status in numbers]


@pytest.mark.parametrize("stage", [None, "Publishing"])
def test_a_life_is_a_write_a_phase(stage: str | None) -> None:
    """Events of pod and Job come in any order that keeps each one's own. What a pod that has ended was at last, if it was
    heard, stands until the Job's end is known."""
    found = KINDS["FineTune"]
    first = found.model.model_validate(body("FineTune"))
    plan = found.plan(first, Observed(), SETTINGS, NOW)
    (made,) = jobs(plan)
    pods, states = steps(live(made), said(report("adapter", "model")))
    rest = [live(m) for m in plan.apply if m["kind"] != "Job"]
    # The pod is first seen once the Job has been made, and the Job's good end is told after the pod's.
    ways = [
        way
        for way in itertools.combinations(range(len(pods) + len(states) - 2), len(pods) - 1)
        if way[-1] - (len(pods) - 1) < 3
    ]
    assert len(ways) > 20
    for way in ways:
        at_pod = at_job = 0
        status: Manifest = {}
        phases: list[str] = []
        for number in range(-1, len(pods) + len(states) - 2):
            if number >= 0:
                at_pod, at_job = (at_pod + 1, at_job) if number in way else (at_pod, at_job + 1)
            there = pods[at_pod]
            heard = there is not None and there["status"]["phase"] == "Running" and stage is not None
            said_by = {there["metadata"]["uid"]: Progress(stage=stage, step=3, of=4)} if heard else {}
            observed = Observed(children=(*rest, states[at_job]), pods=(there,) if there else (), progress=said_by)
            resource = found.model.model_validate(body("FineTune", status=status))
            now = NOW + timedelta(seconds=5 + number)
            told = found.status(resource, observed, found.plan(resource, observed, SETTINGS, now), now).dump()
            if told != status:
                phases.append(told["phase"])
                status = told
        assert phases == ["Pending", stage or "Training", "Succeeded"], way
