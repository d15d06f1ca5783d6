"""EdgeDeployment -> Service, DaemonSets, and the Jobs of the nodes whose turn it is.

Order matters and is the order of the list: a candidate's pod gets traffic before the stable one is told to go, so a
node serves at every moment, wherever the operator is killed.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from slmops.api.edgedeployment import EdgeDeployment
from slmops.monitoring.baseline import ROLE as BASELINE
from slmops.plan.batch import unrecorded
from slmops.plan.choosing import looked_for, measuring, no_more_measured
from slmops.plan.evidence import evidence
from slmops.plan.monitoring import kept, with_monitoring
from slmops.plan.placement import WATCH_SECONDS, begun_turns, servers, stopped
from slmops.plan.serving import NOWHERE, bound, service
from slmops.plan.sources import Sources, Unresolved
from slmops.plan.turns import turn_jobs
from slmops.plan.verification import verification
from slmops.rollout.benches import BEFORE, void
from slmops.rollout.children import job_name
from slmops.rollout.choosing import CHOOSE, Choosing, choose
from slmops.rollout.evidence import EVIDENCE, evidence_job
from slmops.rollout.people import retries
from slmops.rollout.pods import SERVING, gate_open
from slmops.rollout.retired import Retired, bridging, retired
from slmops.rollout.rollout import Rollout, read
from slmops.rollout.standing import given_up
from slmops.rollout.trust import VERIFY, VERIFYING
from slmops.rollout.trust import job_name as verification_name
from slmops.rollout.turns import Turn
from slmops.rollout.waves import PoolState
from slmops.settings import Settings
from slmops.state import LABEL_POOL, LABEL_REVISION, LABEL_ROLE, LABEL_TRACK, Manifest, Observed, Plan, Problem

SOON = 1.0
"""A failure is recorded in one pass and cleared away in the next."""
SHORT = (VERIFYING, "ChoosingVariant")
"""What a Job is at that ends soon."""
JOBS = ("pull", BEFORE, "bench")
"""Roles of the Jobs of a node's turn."""
MEASURED = ("GateFailed", "GateInconclusive", "BenchmarkFailed")
"""Reasons that come of a benchmark."""


def plan_edgedeployment(resource: EdgeDeployment, observed: Observed, settings: Settings, now: datetime) -> Plan:
    """What the EdgeDeployment needs now."""
    choosing = choose(resource, observed)
    trials, untried = measuring(resource, choosing, observed, settings)
    told = read(choosing.resource, observed, settings, now, untried or choosing.problem)
    plan = _of_rollout(resource, choosing, trials, observed, replace(told, choices=choosing.choices), settings, now)
    assert isinstance(plan.detail, Rollout)
    return with_monitoring(plan, choosing.resource, observed, plan.detail, now)


def _of_rollout(given: EdgeDeployment, choosing: Choosing, trials: Sequence[Manifest], observed: Observed,
                rollout: Rollout, settings: Settings, now: datetime) -> Plan:  # fmt: skip
    resource = choosing.resource
    looking = verification(resource, rollout.wanted, observed, settings) if rollout.wanted is not None else []
    if problem := rollout.problem or _unmeasurable(resource, observed, rollout):
        rollout = replace(rollout, candidate=None, decision="Wait", problem=problem)
        return Plan(problem=problem, detail=rollout, apply=(*looking, *trials),
                    remove=_configurations_last(no_more_measured(choosing, observed)), annotate=tuple(_reports(observed)),
                    pod_conditions=tuple(_opened([p for state in rollout.pools for p in _expected(state, rollout)])),
                    deadline=WATCH_SECONDS if problem.reason in SHORT else None)  # fmt: skip
    old, gone = retired(resource, observed, rollout), bridging(given, observed, rollout)
    looking += evidence(resource, rollout, observed, settings)
    apply: list[Manifest] = [*looking, *trials, service(resource, _receives(resource, observed, rollout))]
    pods: list[Manifest] = []
    for pool, state in zip(resource.spec.pools, rollout.pools, strict=True):
        leaves = stopped(resource, state, rollout)
        apply += servers(resource, pool, state, rollout, observed, settings, leaves, now)
        mine = [item for item in old if item.pool == pool.name and (item.hosts or item.kept)]
        apply += [bound(item.daemon_set, pool, "retired", only=item.hosts - leaves or NOWHERE) for item in mine]
        pods += _expected(state, rollout)
        if rollout.decision not in ("RollBack", "Promote"):
            for turn in begun_turns(state, rollout):
                apply += turn_jobs(resource, pool, turn, rollout, observed, settings)
                if turn.step == "Passed" and turn.pod is not None:
                    pods.append(turn.pod)
    apply += [bound(i.daemon_set, None, track_of(i.daemon_set), only=i.hosts) for i in gone]
    return Plan(
        apply=tuple(apply),
        remove=(
            *_configurations_last(_stale(resource, rollout, observed, [*old, *gone], choosing)),
            *_stuck(resource, rollout),
        ),
        annotate=tuple(_reports(observed)),
        pod_conditions=tuple(_opened(pods)),
        detail=rollout,
        deadline=_deadline(rollout),
    )


def _receives(resource: EdgeDeployment, observed: Observed, rollout: Rollout) -> str | None:
    """The revision that gets all traffic (BlueGreen); None where each server that may gets its share.

    Once switched it stays so while a server of the candidate is unready for a moment: the Service itself remembers. A
    failure switches back, whoever is to decide on the candidate."""
    if resource.spec.strategy.type != "BlueGreen":
        return None
    if rollout.candidate is None or rollout.stable is None or rollout.decision == "Promote":
        return rollout.stays
    live = observed.child("Service", resource.metadata.name) or {}
    switched = ((live.get("spec") or {}).get("selector") or {}).get(LABEL_REVISION) == rollout.candidate
    failed = any(turn.fatal for pool in rollout.pools for turn in pool.turns.values())
    ready = switched or (all(pool.wave_done for pool in rollout.pools) and rollout.reason != "NoNodes")
    return rollout.candidate if ready and not failed and rollout.decision != "RollBack" else rollout.stable


def _unmeasurable(resource: EdgeDeployment, observed: Observed, rollout: Rollout) -> Problem | None:
    """What is wrong with the benchmark's data, said before anything is begun that could not be measured."""
    if resource.spec.benchmark is None or rollout.candidate is None or rollout.decision in ("RollBack", "Pause"):
        return None
    try:
        Sources(observed).data(resource.spec.benchmark.data)
    except Unresolved as error:
        return error.problem
    return None


def _expected(state: PoolState, rollout: Rollout) -> list[Manifest]:
    """The pods of the revisions that the pool's nodes get."""
    names = ((rollout.standing.expected(state.name, node), node.name) for node in state.nodes)
    return [pod for name, node in names if (pod := rollout.servers.get(state.name, name, node)) is not None]


def _deadline(rollout: Rollout) -> float | None:
    if any(turn.fatal for pool in rollout.pools for turn in pool.turns.values()) and rollout.decision == "Proceed":
        return SOON
    if rollout.candidate is None:
        return WATCH_SECONDS if any(pool.active for pool in rollout.pools) else None
    if rollout.decision == "Pause":
        return rollout.left
    return SOON if rollout.decision == "RollBack" else min(WATCH_SECONDS, rollout.left or WATCH_SECONDS)


def _opened(pods: Sequence[Manifest]) -> list[tuple[Manifest, dict[str, str]]]:
    """Pods that shall get traffic. The stable revision's too: one may date from its time as candidate, and stand
    before a gate that nobody else will open."""
    return [(pod, {"type": SERVING, "status": "True", "reason": "Passed"}) for pod in pods if not gate_open(pod)]


def _reports(observed: Observed) -> list[tuple[Manifest, dict[str, str]]]:
    jobs = observed.of_kind("Job")
    return [found for job in jobs for found in unrecorded(job, observed.job(job["metadata"]["name"]))]


def track_of(daemon_set: Manifest) -> str:
    """What a DaemonSet is to the rollout: of a pool that is no more it stays that."""
    return str(daemon_set["metadata"]["labels"].get(LABEL_TRACK, "retired"))


def _stale(resource: EdgeDeployment, rollout: Rollout, observed: Observed, old: Sequence[Retired],
           choosing: Choosing) -> list[Manifest]:  # fmt: skip
    """Children of revisions that are nowhere needed any more, and what has done its duty.

    Benchmarks of the wanted and of the stable revision stay, and who looked for the wanted one's signature: they are the
    evidence for what was decided.
    """
    assert rollout.wanted is not None
    held = {item.daemon_set["metadata"]["name"] for item in old if item.hosts or item.kept}
    held |= _late_pulls(resource, rollout)
    looked, before = verification_name(resource, rollout.wanted), looked_for(resource, choosing)
    pools = {pool.name for pool in resource.spec.pools}
    again = _to_repeat(resource, rollout, observed)
    unused = {child["metadata"]["name"] for child in no_more_measured(choosing, observed)}
    out = []
    for child in observed.children:
        labels, name = child["metadata"].get("labels") or {}, child["metadata"]["name"]
        role, revision = labels.get(LABEL_ROLE), labels.get(LABEL_REVISION)
        if child.get("kind") == "Service":
            keep = name == resource.metadata.name
        elif role == VERIFY:
            keep = name in (looked, before)
        elif role == CHOOSE:
            keep = name not in unused
        elif role == EVIDENCE:
            keep = name == evidence_job(resource)
        elif role == BASELINE:
            keep = kept(resource, rollout, child)
        elif labels.get(LABEL_POOL) not in pools:
            keep = name in held
        elif role == "serve":
            keep = revision in (rollout.stays, rollout.on_trial) or name in held
        elif role in ("bench", BEFORE):
            keep = revision in (rollout.wanted.name, rollout.stable) and name not in again
        else:
            keep = (revision == rollout.on_trial or name in held) and name not in again
        if not keep:
            out.append(child)
    return out


def _configurations_last(children: Sequence[Manifest]) -> tuple[Manifest, ...]:
    """So that nothing is left without its own wherever we are cut off."""
    return tuple(sorted(children, key=lambda child: bool(child.get("kind") == "ConfigMap")))


def _late_pulls(resource: EdgeDeployment, rollout: Rollout) -> set[str]:
    """Pull Jobs of late nodes that do not serve yet."""
    if rollout.candidate is not None or rollout.stable is None:
        return set()
    return {
        job_name(resource, "pull", pool.name, rollout.stable, turn.node)
        for pool in rollout.pools
        for turn in pool.turns.values()
        if turn.step != "Serving"
    }


def _stuck(resource: EdgeDeployment, rollout: Rollout) -> list[Manifest]:
    """The candidate's pods that are started anew, so that restarts and lost time count no more. What a benchmark said is
    asked of the pod that is there."""
    turns = [turn for _, turn in _again(resource, rollout) if turn.reason not in MEASURED]
    return [turn.pod for turn in turns if turn.pod is not None]


def _again(resource: EdgeDeployment, rollout: Rollout) -> list[tuple[str, Turn]]:
    """Turns in which the candidate failed or is doubtful and which are to be had again, as a person wants it, with their
    pools."""
    if rollout.tried is None or rollout.decision in ("RollBack", "Promote") or not retries(resource):
        return []
    return [
        (pool.name, turn)
        for pool in rollout.pools
        for turn in pool.turns.values()
        if turn.step in ("Failed", "Inconclusive")
    ]


def _to_repeat(resource: EdgeDeployment, rollout: Rollout, observed: Observed) -> set[str]:
    """Jobs, and their configurations, that are done again; pods may have other addresses then."""
    names = (job["metadata"]["name"] for job in observed.of_kind("Job"))
    failed = {name for name in names if observed.job(name).phase == "Failed"}
    tried = rollout.tried or (rollout.stable if rollout.failed else None)
    if tried is None:
        return set()
    again = [(pool, turn.node) for pool, turn in _again(resource, rollout)]
    if retries(resource):
        again += [(p.name, n) for p in rollout.pools for n in p.nodes if given_up(resource, rollout.failed, p.name, n)]
    found = {job_name(resource, r, pool, tried, node) for pool, node in again for r in JOBS}
    for pool in rollout.pools if failed else ():  # a fleet has thousands of nodes, and mostly nothing has failed
        for node in pool.nodes:
            for name in (job_name(resource, r, pool.name, tried, node) for r in JOBS):
                job = observed.child("Job", name) if name in failed else None
                if job is not None and void(job, observed.job(name), node):
                    found.add(name)
    return found
