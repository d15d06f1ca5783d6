"""EdgeDeployment -> Service, DaemonSets, and the Jobs of the nodes whose turn it is.

Order matters and is the order of the list: a candidate's pod gets traffic before the stable one is told to go, so a
node serves at every moment, wherever the operator is killed.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Literal

from slmops import contract
from slmops.api.base import seconds
from slmops.api.conditions import moment, timestamp
from slmops.api.edgedeployment import EdgeDeployment, Pool
from slmops.api.run import RunSpec, Toleration
from slmops.plan.batch import unrecorded
from slmops.plan.evidence import evidence
from slmops.plan.job import Work, work
from slmops.plan.serving import bound, config_map, daemon_set, model_volume, serve_run, service
from slmops.plan.sources import Sources, Unresolved
from slmops.plan.verification import verification
from slmops.rollout.evidence import EVIDENCE, evidence_job
from slmops.rollout.fleet import Node
from slmops.rollout.people import retries
from slmops.rollout.pods import SERVING, condition, gate_open, may_serve
from slmops.rollout.retired import Retired, needed, retired, serves_alone
from slmops.rollout.rollout import Rollout, daemon_set_of, read
from slmops.rollout.standing import given_up
from slmops.rollout.trust import VERIFY, VERIFYING
from slmops.rollout.trust import job_name as verification_name
from slmops.rollout.turns import Turn, barred, job_name, set_name, void
from slmops.rollout.waves import PoolState
from slmops.settings import Settings
from slmops.state import ANNOTATION_ADMITTED, LABEL_POOL, LABEL_REVISION, LABEL_ROLE, Manifest, Observed, Plan, Problem

WATCH_SECONDS = 10.0
"""How often a rollout under way is looked at without an event: deadlines pass silently."""
SOON = 1.0
"""A failure is recorded in one pass and cleared away in the next."""
NOWHERE = ("nowhere.invalid",)
"""Host names of no node, for a DaemonSet that is kept for later."""
MEASURED = ("GateFailed", "GateInconclusive", "BenchmarkFailed")
"""Reasons that come of a benchmark."""
JOB_RESOURCES = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
CORDONED = Toleration(key="node.kubernetes.io/unschedulable", operator="Exists", effect="NoSchedule")
"""DaemonSets go to cordoned nodes, so their Jobs have to: a node in maintenance must not fail the candidate."""


def plan_edgedeployment(resource: EdgeDeployment, observed: Observed, settings: Settings, now: datetime) -> Plan:
    """What the EdgeDeployment needs now."""
    rollout = read(resource, observed, settings, now)
    looking = verification(resource, rollout.wanted, observed, settings) if rollout.wanted is not None else []
    if problem := rollout.problem or _unmeasurable(resource, observed, rollout):
        rollout = replace(rollout, candidate=None, decision="Wait", problem=problem)
        return Plan(problem=problem, detail=rollout, apply=tuple(looking), annotate=tuple(_reports(observed)),
                    pod_conditions=tuple(_opened([p for state in rollout.pools for p in _expected(state, rollout)])),
                    deadline=WATCH_SECONDS if problem.reason == VERIFYING else None)  # fmt: skip
    old = retired(resource, observed, rollout)
    looking += evidence(resource, rollout, observed, settings)
    apply: list[Manifest] = [*looking, service(resource, _receives(resource, observed, rollout))]
    pods: list[Manifest] = []
    for pool, state in zip(resource.spec.pools, rollout.pools, strict=True):
        apply += _servers(resource, pool, state, rollout, observed, settings, now)
        mine = [item for item in old if item.pool == pool.name and (item.hosts or item.kept)]
        apply += [bound(item.daemon_set, pool, "retired", only=item.hosts or NOWHERE) for item in mine]
        pods += _expected(state, rollout)
        if rollout.decision not in ("RollBack", "Promote"):
            for turn in _begun(state, rollout):
                apply += _jobs(resource, pool, turn, rollout, observed, settings)
                if turn.step == "Passed" and turn.pod is not None:
                    pods.append(turn.pod)
    return Plan(
        apply=tuple(apply),
        remove=(*_stale(resource, rollout, observed, old), *_stuck(resource, rollout)),
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
        return WATCH_SECONDS if rollout.tried else None
    if rollout.decision == "Pause":
        return rollout.left
    return SOON if rollout.decision == "RollBack" else min(WATCH_SECONDS, rollout.left or WATCH_SECONDS)


def _opened(pods: Sequence[Manifest]) -> list[tuple[Manifest, dict[str, str]]]:
    """Pods that shall get traffic. The stable revision's too: one may date from its time as candidate, and stand
    before a gate that nobody else will open."""
    return [(pod, {"type": SERVING, "status": "True", "reason": "Passed"}) for pod in pods if not gate_open(pod)]


def _begun(state: PoolState, rollout: Rollout) -> list[Turn]:
    """The turns to work on: on a pause only those that have begun."""
    turns = [state.turns[node.name] for node in state.active]
    return [turn for turn in turns if turn.step != "Waiting"] if rollout.decision == "Pause" else turns


def _servers(resource: EdgeDeployment, pool: Pool, state: PoolState, rollout: Rollout, observed: Observed,
             settings: Settings, now: datetime) -> list[Manifest]:  # fmt: skip
    out: list[Manifest] = []
    wanted = rollout.wanted
    assert wanted is not None
    if rollout.stays == wanted.name:
        # A late node's server stands before a gate, as a candidate's does.
        gated = rollout.candidate is None and bool(state.turns)
        kept_from = _kept_from(resource, state, rollout)
        return [
            config_map(resource, pool, wanted),
            daemon_set(resource, pool, wanted, settings, track="stable", excluded=kept_from, gated=gated),
        ]
    taken: set[str] = set()
    if rollout.candidate is not None:
        hosts = state.admitted & {node.hostname for node in state.nodes}
        taken = {node.hostname for node in state.nodes if serves_alone(resource, rollout, state, node)}
        if not _due(state, rollout, daemon_set_of(resource, observed, pool.name, rollout.candidate), now):
            taken &= barred(daemon_set_of(resource, observed, pool.name, rollout.stable))
        if rollout.decision != "RollBack":
            left = {n.hostname for n in state.nodes if given_up(resource, rollout.failed, state.name, n)}
            hosts -= left - _given_back(rollout, state, rollout.candidate)
            hosts |= {turn.node.hostname for turn in _begun(state, rollout) if _comes(turn)}
        if hosts:
            made = daemon_set(
                resource, pool, wanted, settings, track="candidate", only=hosts, gated=_unknown(state, hosts)
            )
            mine = daemon_set_of(resource, observed, pool.name, wanted.name)
            out += [config_map(resource, pool, wanted), _admitting(made, mine, hosts <= state.admitted, now)]
    live = daemon_set_of(resource, observed, pool.name, rollout.stable)
    if live is not None:
        out.append(bound(live, pool, "stable", excluded=taken | _kept_from(resource, state, rollout)))
    return out


def _due(state: PoolState, rollout: Rollout, live: Manifest | None, now: datetime) -> bool:
    """Whether the stable servers go from nodes that they are not needed on any more: together with the next nodes' turn,
    so that a fleet's nodes cost as few writes as its batches, or after a while where others keep that waiting."""
    begun = _begun(state, rollout)
    if not begun or any(_comes(turn) and turn.node.hostname not in state.admitted for turn in begun):
        return True
    at = moment(((live or {}).get("metadata", {}).get("annotations") or {}).get(ANNOTATION_ADMITTED))
    return at is None or (now - at).total_seconds() >= WATCH_SECONDS


def _comes(turn: Turn) -> bool:
    """Whether a node gets the candidate's server now: its image was pulled, or no Job is needed for that."""
    return turn.step == "Starting" or (turn.step == "Waiting" and turn.known)


def _unknown(state: PoolState, hosts: Collection[str]) -> bool:
    """Whether the candidate has yet to pass on some of these host names; elsewhere its servers need no gate, and a fleet
    of thousands as many writes less."""
    known = {turn.node.hardware for turn in state.turns.values() if turn.known}
    return any(node.hardware not in known for node in state.nodes if node.hostname in hosts)


def _admitting(made: Manifest, live: Manifest | None, same: bool, now: datetime) -> Manifest:
    """The candidate's DaemonSet with the time at which it was given its last nodes."""
    before = ((live or {}).get("metadata", {}).get("annotations") or {}).get(ANNOTATION_ADMITTED)
    at = before if same and before else timestamp(now)
    made["metadata"]["annotations"] = {**made["metadata"].get("annotations", {}), ANNOTATION_ADMITTED: at}
    return made


def _kept_from(resource: EdgeDeployment, state: PoolState, rollout: Rollout) -> set[str]:
    """Host names that do not get the revision that stays: not yet, or because it failed on such hardware."""
    return {
        node.hostname
        for node in state.nodes
        if rollout.standing.held(state.name, node) and not _let_in(resource, state, rollout, node)
    }


def _let_in(resource: EdgeDeployment, state: PoolState, rollout: Rollout, node: Node) -> bool:
    """Whether a node gets the revision that stays though it has not passed on such hardware."""
    if rollout.candidate is None and node.name in state.turns:
        return state.turns[node.name].step not in ("Waiting", "Pulling")
    if given_up(resource, rollout.standing.failed, state.name, node):
        return node.hostname in _given_back(rollout, state, rollout.stays)
    elsewhere = rollout.wanted is not None and rollout.stays != rollout.wanted.name
    if elsewhere and rollout.standing.expected(state.name, node) is None:
        # Its turn comes when the spec is about it again, which may be never: better served by this than by nothing.
        return True
    pod = rollout.servers.get(state.name, rollout.stays, node.name)
    return pod is not None and may_serve(pod)  # before it went away, or before there was a candidate


def _given_back(rollout: Rollout, state: PoolState, revision: str | None) -> set[str]:
    """Host names of nodes that a revision which they are to lose still serves, until what they go back to is ready."""
    back = {n.hostname for n in state.nodes if rollout.standing.expected(state.name, n) is not None}
    return back & needed(rollout, state, str(revision)) if revision else set()


def _jobs(resource: EdgeDeployment, pool: Pool, turn: Turn, rollout: Rollout, observed: Observed,
          settings: Settings) -> list[Manifest]:  # fmt: skip
    if turn.step == "Waiting" and not turn.known:
        made = _pull(resource, pool, turn, rollout, observed, settings)
    elif turn.step == "Measuring":
        made = _bench(resource, pool, turn, rollout, observed, settings)
    else:
        return []
    job = observed.child("Job", made.step.name)
    if job is not None:
        return []
    missing = [item for item in made.before if observed.child(item["kind"], made.step.name) is None]
    return [*missing, made.job]


def _run_spec(resource: EdgeDeployment, pool: Pool, deadlines: int = 1) -> RunSpec:
    """How a node's Job runs; it is stopped after so many times the progress deadline."""
    limit = deadlines * math.ceil(seconds(resource.spec.strategy.progress_deadline))
    spec = RunSpec.model_validate({"resources": JOB_RESOURCES, "deadline": f"{limit}s", "retries": 1})
    return spec.model_copy(update={"tolerations": [*pool.tolerations, CORDONED]})


def _pull(resource: EdgeDeployment, pool: Pool, turn: Turn, rollout: Rollout, observed: Observed,
          settings: Settings) -> Work:  # fmt: skip
    assert rollout.wanted is not None
    run = contract.PullRun(run="", model_path=contract.MODEL_DIR)
    # Twice, so that the turn is ended by us, who know why the pod waits: a Job that is stopped has no pod any more.
    run_spec = _run_spec(resource, pool, deadlines=2)
    return work(
        resource, "pull", run, image=settings.images.bench, run_spec=run_spec,
        sources=Sources(observed), settings=settings, node=turn.node.hostname,
        name=job_name(resource, "pull", pool.name, rollout.wanted.name, turn.node),
        labels={LABEL_POOL: pool.name, LABEL_REVISION: rollout.wanted.name},
        extra_volumes=(model_volume(rollout.wanted.images[pool.name]),),
    )  # fmt: skip


def _bench(resource: EdgeDeployment, pool: Pool, turn: Turn, rollout: Rollout, observed: Observed,
           settings: Settings) -> Work:  # fmt: skip
    spec = resource.spec.benchmark
    assert spec is not None
    assert rollout.wanted is not None
    assert turn.pod is not None
    sources = Sources(observed)
    targets = [_target("candidate", turn.pod, serve_run(resource, rollout.wanted))]
    if turn.incumbent and turn.stable_pod is not None and condition(turn.stable_pod, "Ready"):
        config = observed.child("ConfigMap", set_name(resource, pool.name, turn.incumbent))
        targets.insert(
            0, _target("stable", turn.stable_pod, _configured(config) or serve_run(resource, rollout.wanted))
        )
    run = contract.BenchRun(
        run="", targets=tuple(targets), data=sources.data(spec.data), warmup=spec.warmup, rounds=spec.rounds,
        prompts=spec.prompts, max_tokens=spec.max_tokens, concurrency=spec.concurrency,
    )  # fmt: skip
    return work(
        resource, "bench", run, image=settings.images.bench, run_spec=_run_spec(resource, pool), sources=sources,
        settings=settings, node=turn.node.hostname,
        name=job_name(resource, "bench", pool.name, rollout.wanted.name, turn.node),
        labels={LABEL_POOL: pool.name, LABEL_REVISION: rollout.wanted.name},
    )  # fmt: skip


def _configured(config: Manifest | None) -> contract.ServeRun | None:
    """How a server was configured; None where somebody deleted or spoiled that. It is most likely like the next one then,
    and where it is not, its figures are missing: better than to pass a candidate that was compared with nothing."""
    try:
        return contract.ServeRun.model_validate_json((config or {})["data"][contract.CONFIG_KEY])
    except (KeyError, TypeError, ValueError):
        return None


def _target(name: Literal["stable", "candidate"], pod: Manifest, run: contract.ServeRun) -> contract.Target:
    """A server as it was configured itself: the other revision may have another port and another model name."""
    address = str((pod.get("status") or {}).get("podIP") or "")
    host = f"[{address}]" if ":" in address else address
    return contract.Target(name=name, url=f"http://{host}:{run.port}", model=run.model_name)


def _reports(observed: Observed) -> list[tuple[Manifest, dict[str, str]]]:
    jobs = observed.of_kind("Job")
    return [found for job in jobs for found in unrecorded(job, observed.job(job["metadata"]["name"]))]


def _stale(resource: EdgeDeployment, rollout: Rollout, observed: Observed, old: Sequence[Retired]) -> list[Manifest]:
    """Children of revisions that are nowhere needed any more, and what has done its duty; configurations last, so that
    nothing is left without its own wherever we are cut off.

    Benchmarks of the wanted and of the stable revision stay, and who looked for the wanted one's signature: they are the
    evidence for what was decided.
    """
    assert rollout.wanted is not None
    kept = {item.daemon_set["metadata"]["name"] for item in old if item.hosts or item.kept}
    kept |= _late_pulls(resource, rollout)
    looked = verification_name(resource, rollout.wanted)
    pools = {pool.name for pool in resource.spec.pools}
    again = _to_repeat(resource, rollout, observed)
    out = []
    for child in observed.children:
        labels, name = child["metadata"].get("labels") or {}, child["metadata"]["name"]
        role, revision = labels.get(LABEL_ROLE), labels.get(LABEL_REVISION)
        if child.get("kind") == "Service":
            keep = name == resource.metadata.name
        elif role == VERIFY:
            keep = name == looked
        elif role == EVIDENCE:
            keep = name == evidence_job(resource)
        elif labels.get(LABEL_POOL) not in pools:
            keep = False
        elif role == "serve":
            keep = revision in (rollout.stays, rollout.on_trial) or name in kept
        elif role == "bench":
            keep = revision in (rollout.wanted.name, rollout.stable) and name not in again
        else:
            keep = (revision == rollout.on_trial or name in kept) and name not in again
        if not keep:
            out.append(child)
    return sorted(out, key=lambda child: bool(child.get("kind") == "ConfigMap"))


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
    states = {name: observed.job(name) for job in observed.of_kind("Job") if (name := job["metadata"]["name"])}
    failed = {name for name, state in states.items() if state.phase == "Failed"}
    tried = rollout.tried or (rollout.stable if rollout.failed else None)
    if tried is None:
        return set()
    again = [(pool, turn.node) for pool, turn in _again(resource, rollout)]
    if retries(resource):
        again += [(p.name, n) for p in rollout.pools for n in p.nodes if given_up(resource, rollout.failed, p.name, n)]
    found = {job_name(resource, r, pool, tried, node) for pool, node in again for r in ("pull", "bench")}
    for pool in rollout.pools if failed else ():  # a fleet has thousands of nodes, and mostly nothing has failed
        for node in pool.nodes:
            for name in (job_name(resource, r, pool.name, tried, node) for r in ("pull", "bench")):
                job = observed.child("Job", name) if name in failed else None
                if job is not None and void(job, states[name], node):
                    found.add(name)
    return found
