"""Variant Auto: which image each hardware class of a pool gets, by what was measured on one node of it.

A pool becomes one for each class, and each of these goes on as any pool does. A class is measured before a rollout of other
images begins; one that joins later is measured then, and until it is done its nodes are in no pool and keep what they have.
What was chosen is in the status, so that neither an operator that restarts nor a Job that is gone changes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from slmops.api.base import AUTO, ratio
from slmops.api.edgedeployment import EdgeDeployment, Pool
from slmops.api.fleet import MAX_CLASSES, ChoiceStatus
from slmops.figures import significant
from slmops.rollout.benches import void
from slmops.rollout.fleet import ClassPool, Node, own_settings, pool_nodes
from slmops.rollout.variants import problem, to_choose_from
from slmops.rollout.verdict import explained, figures, judge
from slmops.state import ANNOTATION_NODE, JobState, Manifest, Observed, Problem, digest8

CHOOSE = "choose"
"""Role of the Jobs that measure a variant."""
ATTEMPTS = 3
"""Measurements of a variant on a class that may be lost with their nodes."""
LABEL = 63
"""Longest value of a label."""


@dataclass(frozen=True)
class ToMeasure:
    """A variant that is measured on a node now, or is next."""

    pool: Pool
    node: Node
    variant: str
    image: str
    job: str


@dataclass(frozen=True)
class Choosing:
    """The pools as they are served, and what is still to be measured for that."""

    resource: EdgeDeployment
    choices: list[ChoiceStatus] = field(default_factory=list)
    measuring: list[ToMeasure] = field(default_factory=list)
    problem: Problem | None = None
    """Why no revision can be told yet."""
    jobs: frozenset[str] = frozenset()
    """Names of Jobs that are of use yet."""
    images: dict[str, str] = field(default_factory=dict)
    """All that there is to choose from, by variant."""


def choose(resource: EdgeDeployment, observed: Observed) -> Choosing:
    """Read what was measured, and split the pools."""
    if all(pool.variant != AUTO for pool in resource.spec.pools):
        return Choosing(resource)
    found = to_choose_from(resource, observed)
    options = [] if isinstance(found, Problem) else found
    images = {str(v["name"]): str(v["reference"]) for v in options}
    pools: list[Pool] = []
    split = _Split(resource, observed, options)
    for pool in resource.spec.pools:
        pools += [pool] if pool.variant != AUTO else split.of(pool)
    missing = found if isinstance(found, Problem) else split.missing()
    spec = resource.spec.model_copy(update={"pools": pools})
    return Choosing(resource.model_copy(update={"spec": spec}), split.choices, split.measuring, missing,
                    frozenset(split.jobs), images)  # fmt: skip


@dataclass
class _Split:
    """The classes of pools with variant Auto, one after the other."""

    resource: EdgeDeployment
    observed: Observed
    options: Sequence[Manifest]
    choices: list[ChoiceStatus] = field(default_factory=list)
    measuring: list[ToMeasure] = field(default_factory=list)
    jobs: set[str] = field(default_factory=set)
    waits: list[str] = field(default_factory=list)

    def of(self, pool: Pool) -> list[Pool]:
        """The classes that have an image, or had one."""
        classes: dict[str, list[Node]] = {}
        for node in pool_nodes(pool, self.observed.nodes):
            classes.setdefault(node.hardware, []).append(node)
        before = {choice.hardware: choice for choice in self.resource.status.choices if choice.pool == pool.name}
        made: list[Pool] = []
        among = self._among(pool)
        for hardware, nodes in sorted(classes.items()):
            choice = self._choice(pool, hardware, nodes, before.get(hardware), among)
            if choice is not None:
                self.choices.append(choice)
                made.append(_class_pool(pool, hardware, nodes, choice))
        if not made and self.options:
            # It belongs to the revision all the same, so that its first node makes no other one.
            made.append(_class_pool(pool, "", (), _first(pool, self.options, among)))
        return made

    def missing(self) -> Problem | None:
        """What has to be measured before other images come to any node."""
        if not self.waits:
            return None
        text = f"spec.pools: variants are measured to choose from: {'; '.join(self.waits)}"
        return problem("ChoosingVariant", text[:1024])

    def _among(self, pool: Pool) -> str:
        """What there is to choose from, and for what."""
        return digest8([*sorted(str(v["reference"]) for v in self.options), *_own(pool)])

    def _choice(
        self, pool: Pool, hardware: str, nodes: Sequence[Node], before: ChoiceStatus | None, among: str
    ) -> ChoiceStatus | None:
        if not self.options or (before is not None and before.among == among):
            return before
        measured = [self._measured(pool, hardware, str(v["reference"]), nodes) for v in self.options]
        names, states = [name for name, _ in measured], [state for _, state in measured]
        if all(state.finished for state in states):
            return chosen(self.resource, pool, hardware, self.options, states, among)
        if len(self.choices) >= MAX_CLASSES:
            return None
        number = next(number for number, state in enumerate(states) if not state.finished)
        node = next((node for node in nodes if node.ready and not node.pressed), None)
        if node is None and states[number].phase == "Absent":
            return None  # measured once it is back
        variant = self.options[number]
        if node is not None:
            told = ToMeasure(pool, node, str(variant["name"]), str(variant["reference"]), names[number])
            self.measuring.append(told)
        if not self._served(pool, among):
            where = node.name if node is not None else "a node that is away"
            self.waits.append(f"{variant['name']} on {where} ({hardware} of pool {pool.name})")
            return before
        return None

    def _measured(self, pool: Pool, hardware: str, image: str, nodes: Sequence[Node]) -> tuple[str, JobState]:
        """The Job that measures an image, and what it has come to. One that went with its node stays, so that it counts: a
        variant may be what takes nodes down."""
        for attempt in range(ATTEMPTS):
            name = job_name(self.resource, pool, hardware, image, attempt)
            self.jobs.add(name)
            if not self._lost(name, nodes):
                return name, self.observed.job(name)
        return name, JobState("Failed", message=f"its node went away in each of {ATTEMPTS} measurements")

    def _lost(self, name: str, nodes: Sequence[Node]) -> bool:
        """Whether a measurement says nothing, or will not: its node has left the class, or is or was away."""
        job, state = self.observed.child("Job", name), self.observed.job(name)
        if job is None or state.phase == "Succeeded":
            return False
        node = next((node for node in nodes if node.hostname == host_of(job)), None)
        if node is None or void(job, state, node):
            return True
        others = any(other.ready and not other.pressed for other in nodes)
        return not node.ready and (state.phase == "Failed" or others)

    def _served(self, pool: Pool, among: str) -> bool:
        """Whether these images are what nodes of other classes have, or are getting."""
        status = self.resource.status
        known = (status.stable, status.candidate)
        return any(each is not None and each.choices.get(pool.name) == among for each in known)


def chosen(resource: EdgeDeployment, pool: Pool, hardware: str, options: Sequence[Manifest],
           states: Sequence[JobState], among: str) -> ChoiceStatus:  # fmt: skip
    """The fastest that keeps the gates. Of those that may be as fast as it the one that the QuantizedModel names first; and
    where none keeps them the first one of all, which fails in its turn then."""
    seen = {str(v["name"]): _seen(resource, state) for v, state in zip(options, states, strict=True)}
    refused = {name: found for name, found in seen.items() if isinstance(found, str)}
    kept = {name: found for name, found in seen.items() if not isinstance(found, str)}
    least = max(kept.values(), key=lambda speed: speed.value).low if kept else 0.0
    taken = next((v for v in options if (speed := kept.get(str(v["name"]))) and speed.high >= least), options[0])
    speeds = {name: speed.value for name, speed in kept.items()}
    return ChoiceStatus(pool=pool.name, hardware=hardware, variant=str(taken["name"]), image=str(taken["reference"]),
                        among=among, speeds=speeds, refused=refused)  # fmt: skip


class _Speed(NamedTuple):
    """Tokens a second, and the 95 % confidence interval."""

    value: float
    low: float
    high: float


def _seen(resource: EdgeDeployment, state: JobState) -> _Speed | str:
    """How fast a variant is, or why it is not taken."""
    assert resource.spec.benchmark is not None
    target = state.report.targets.get("candidate") if state.report is not None else None
    if state.phase != "Succeeded" or state.report is None or target is None:
        return (state.message or "it was not measured")[:256]
    verdict, gates = judge(resource.spec.gates, state.report, ratio(resource.spec.benchmark.max_noise))
    speed = figures(target).get("TokensPerSecond")
    if verdict != "Passed" or speed is None:
        told = "; ".join(explained(gate) for gate in gates if gate.outcome == verdict)
        return f"{verdict}: {told or 'nothing was measured'}"[:256]
    return _Speed(significant(speed), *target.intervals.get("TokensPerSecond", (speed, speed)))


def _own(pool: Pool) -> list[object]:
    return [own] if (own := own_settings(pool)) else []


def host_of(job: Manifest) -> str | None:
    """Host name of the node that a Job is bound to."""
    host: str | None = job["metadata"].get("annotations", {}).get(ANNOTATION_NODE)
    return host


def job_name(resource: EdgeDeployment, pool: Pool, hardware: str, image: str, attempt: int = 0) -> str:
    """The Job that measures an image on a class."""
    told = [pool.name, hardware, image, *_own(pool), *([attempt] if attempt else [])]
    return f"{resource.metadata.name}-{CHOOSE}-{digest8(told)}"


def _first(pool: Pool, options: Sequence[Manifest], among: str) -> ChoiceStatus:
    name, image = str(options[0]["name"]), str(options[0]["reference"])
    return ChoiceStatus(pool=pool.name, hardware="", variant=name, image=image, among=among)


def _class_pool(pool: Pool, hardware: str, nodes: Sequence[Node], choice: ChoiceStatus) -> ClassPool:
    name = f"{pool.name}.{hardware}" if hardware else pool.name
    # Not validated: in the spec a name is shorter.
    return ClassPool.model_construct(
        name=name if len(name) <= LABEL else f"{name[: LABEL - 9].rstrip('.-_')}-{digest8(hardware)}",
        selector=pool.selector, variant=choice.variant, resources=pool.resources, tolerations=pool.tolerations,
        adapter=pool.adapter, generation=pool.generation, base=pool.name,
        hosts=frozenset(node.hostname for node in nodes), image=choice.image, among=choice.among,
    )  # fmt: skip
