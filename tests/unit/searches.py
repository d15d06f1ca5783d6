"""A search's Jobs as they end one after the other: what the tests of its plan and of its status are made of."""

import json
from collections.abc import Mapping
from typing import Any

from slmops.api.finetune import FineTune
from slmops.contract import Report, TrialResult, Value
from slmops.plan.finetune import plan_finetune
from slmops.state import Manifest, Observed, Plan
from tests.unit.builders import COMPLETE, FAILED, SETTINGS, ended, failure, finetune, live, pod, report, said

SPACE = [{"name": "learningRate", "log": {"min": 1e-5, "max": 1e-2}}, {"name": "lora.rank", "choice": [8, 16]}]
VALUES: list[tuple[Value, ...]] = [(1e-3, 8), (2e-3, 16), (3e-3, 8), (4e-3, 16), (5e-3, 8), (6e-3, 16)]
"""What is suggested, by the trial's number."""
End = Report | str
"""A good report, or the reason of a failure."""


def searching(spec: dict[str, Any] | None = None, /, **search: Any) -> FineTune:
    """A FineTune that searches: four trials, two side by side, unless ``search`` says otherwise."""
    wanted = {"trials": 4, "parallelism": 2, "space": SPACE} | search
    return finetune({"search": wanted} | (spec or {}))


def plan_of(resource: FineTune, observed: Observed | None = None) -> Plan:
    return plan_finetune(resource, observed or Observed(), SETTINGS)


def value(number: float, *measured: float) -> Report:
    """The report of a trial that came to a value."""
    return report(trial=TrialResult(value=number, measured=measured))


PRUNED = report(trial=TrialResult(pruned=True, measured=(9.0,)))


class Story:
    """The world while a FineTune's Jobs end."""

    def __init__(self, resource: FineTune) -> None:
        self.resource = resource
        self.objects: dict[tuple[str, str], Manifest] = {}
        self.pods: dict[str, Manifest] = {}

    @property
    def observed(self) -> Observed:
        return Observed(children=tuple(self.objects.values()), pods=tuple(self.pods.values()))

    @property
    def plan(self) -> Plan:
        return plan_of(self.resource, self.observed)

    def carry_out(self) -> Plan:
        """One pass: what is planned is made, removed and written down. Returns the plan."""
        plan = self.plan
        for manifest in plan.remove:
            self.objects.pop((manifest["kind"], manifest["metadata"]["name"]))
            self.pods.pop(manifest["metadata"]["name"], None)
        for manifest in plan.apply:
            self.objects[manifest["kind"], manifest["metadata"]["name"]] = live(manifest)
        for manifest, annotations in plan.annotate:
            kept = self.objects["Job", manifest["metadata"]["name"]]["metadata"]
            kept["annotations"] = kept.get("annotations", {}) | dict(annotations)
        return plan

    def roles(self) -> dict[str, str]:
        """Names of the Jobs that are planned, by role, in order."""
        return {step.role: step.name for step in self.plan.steps}

    def end(self, ends: Mapping[str, End]) -> None:
        """Jobs of these roles end, in this order; those that choose values suggest the next of ``VALUES``."""
        for role, how in ends.items():
            name = self.roles()[role]
            job = self.objects["Job", name]
            good = isinstance(how, Report)
            job["status"] = {"conditions": [COMPLETE if good else FAILED]}
            state = ended(0, said(how)) if isinstance(how, Report) else ended(1, failure(how, "for a test"))
            self.pods[name] = pod(job, state=state)
            self.carry_out()

    def suggest(self) -> list[str]:
        """The Job that chooses values ends. Returns the roles of the trials."""
        self.carry_out()
        role = list(self.roles())[-1]
        assert role.startswith("suggest-")
        told = json.loads(self.objects["ConfigMap", self.roles()[role]]["data"]["run.json"])
        first = len(told["search"]["tried"])
        self.end({role: report(suggestions=tuple(VALUES[first : first + told["count"]]))})
        return list(self.roles())[-told["count"] :]

    def told(self, role: str) -> dict[str, Any]:
        """What a Job is told."""
        return dict(json.loads(self.objects["ConfigMap", self.roles()[role]]["data"]["run.json"]))


def generation(story: Story, *ends: End) -> None:
    """The next values are chosen, and the trials that get them end."""
    story.end(dict(zip(story.suggest(), ends, strict=True)))
