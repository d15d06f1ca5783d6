"""EdgeDeployment -> Service, DaemonSets, and the Jobs of the nodes whose turn it is.

Order matters and is the order of the list: a candidate's pod gets traffic before the stable one is told to go, so a
node serves at every moment, wherever the operator is killed.
"""

from datetime import datetime

from slmops import contract
from slmops.api.common import RunSpec
from slmops.api.edgedeployment import EdgeDeployment, Pool
from slmops.plan.job import Work, work
from slmops.plan.serving import config_map, daemon_set, model_volume, service, without
from slmops.plan.sources import Sources
from slmops.rollout.rollout import PoolState, Rollout, daemon_set_of, read
from slmops.rollout.turns import SERVING, Turn, gate_open, job_name
from slmops.settings import Settings
from slmops.state import ANNOTATION_REPORT, LABEL_POOL, LABEL_REVISION, LABEL_ROLE, Manifest, Observed, Plan

WATCH_SECONDS = 10.0
"""How often a rollout under way is looked at without an event: deadlines pass silently."""
JOB_RESOURCES = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}


def plan_edgedeployment(resource: EdgeDeployment, observed: Observed, settings: Settings, now: datetime) -> Plan:
    """What the EdgeDeployment needs now."""
    rollout = read(resource, observed, settings, now)
    if rollout.problem is not None:
        return Plan(problem=rollout.problem, detail=rollout)
    apply: list[Manifest] = [service(resource)]
    conditions = []
    for pool, state in zip(resource.spec.pools, rollout.pools, strict=True):
        apply += _servers(resource, pool, state, rollout, observed, settings)
        if rollout.candidate and rollout.decision not in ("RollBack", "Promote"):
            for turn in _begun(state, rollout):
                apply += _jobs(resource, pool, turn, rollout, observed, settings)
                if turn.step == "Passed" and turn.pod is not None and not gate_open(turn.pod):
                    conditions.append((turn.pod, {"type": SERVING, "status": "True", "reason": "Passed"}))
    active = rollout.candidate is not None and rollout.decision != "Pause"
    return Plan(
        apply=tuple(apply),
        remove=tuple(_stale(resource, rollout, observed)),
        annotate=tuple(_reports(observed)),
        pod_conditions=tuple(conditions),
        detail=rollout,
        deadline=min(WATCH_SECONDS, rollout.soak_left or WATCH_SECONDS) if active else None,
    )


def _begun(state: PoolState, rollout: Rollout) -> list[Turn]:
    """The turns to work on: on a pause only those that have begun."""
    turns = [state.turns[node.name] for node in state.active]
    return [turn for turn in turns if turn.step != "Waiting"] if rollout.decision == "Pause" else turns


def _servers(resource: EdgeDeployment, pool: Pool, state: PoolState, rollout: Rollout, observed: Observed,
             settings: Settings) -> list[Manifest]:  # fmt: skip
    out: list[Manifest] = []
    wanted = rollout.wanted
    assert wanted is not None
    if rollout.stable == wanted.name or rollout.decision == "Promote":
        return [
            config_map(resource, pool, wanted),
            daemon_set(resource, pool, wanted, settings, track="stable", only=None),
        ]
    taken: set[str] = set()
    if rollout.candidate is not None and rollout.decision != "RollBack":
        taken = {t.node.hostname for t in state.turns.values() if t.step == "Serving"}
        ready = {t.node.hostname for t in _begun(state, rollout) if t.step == "Starting"}
        known = {node.hostname for node in state.nodes}
        if hosts := (state.admitted & known) | ready:
            out += [
                config_map(resource, pool, wanted),
                daemon_set(resource, pool, wanted, settings, track="candidate", only=hosts),
            ]
    if rollout.stable is not None:
        live = daemon_set_of(resource, observed, pool.name, rollout.stable)
        if live is not None:
            out.append(without(live, pool, taken))
    return out


def _jobs(resource: EdgeDeployment, pool: Pool, turn: Turn, rollout: Rollout, observed: Observed,
          settings: Settings) -> list[Manifest]:  # fmt: skip
    if turn.step == "Waiting":
        made = _pull(resource, pool, turn, rollout, observed, settings)
    elif turn.step == "Measuring":
        made = _bench(resource, pool, turn, rollout, observed, settings)
    else:
        return []
    job = observed.child("Job", made.step.name)
    if job is not None:
        return []
    return [made.job] if observed.child("ConfigMap", made.step.name) else [made.config_map, made.job]


def _run_spec(resource: EdgeDeployment, pool: Pool) -> RunSpec:
    return RunSpec.model_validate(
        {
            "resources": JOB_RESOURCES,
            "tolerations": [t.dump() for t in pool.tolerations],
            "deadline": resource.spec.strategy.progress_deadline,
            "retries": 1,
        }
    )


def _pull(resource: EdgeDeployment, pool: Pool, turn: Turn, rollout: Rollout, observed: Observed,
          settings: Settings) -> Work:  # fmt: skip
    assert rollout.wanted is not None
    run = contract.PullRun(run="", model_path=contract.MODEL_DIR)
    return work(
        resource, "pull", run, image=settings.images.bench, run_spec=_run_spec(resource, pool),
        sources=Sources(observed), settings=settings, node=turn.node.hostname,
        name=job_name(resource, "pull", pool.name, rollout.wanted.name, turn.node.name),
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
    port = resource.spec.runtime.port
    targets = [contract.Target(name="candidate", url=_url(turn.pod, port), model=rollout.wanted.model)]
    if turn.stable_pod is not None and _address(turn.stable_pod):
        targets.insert(0, contract.Target(name="stable", url=_url(turn.stable_pod, port), model=rollout.wanted.model))
    run = contract.BenchRun(
        run="", targets=tuple(targets), data=sources.data(spec.data), warmup=spec.warmup, rounds=spec.rounds,
        prompts=spec.prompts, max_tokens=spec.max_tokens, concurrency=spec.concurrency,
    )  # fmt: skip
    return work(
        resource, "bench", run, image=settings.images.bench, run_spec=_run_spec(resource, pool), sources=sources,
        settings=settings, node=turn.node.hostname,
        name=job_name(resource, "bench", pool.name, rollout.wanted.name, turn.node.name),
        labels={LABEL_POOL: pool.name, LABEL_REVISION: rollout.wanted.name},
    )  # fmt: skip


def _address(pod: Manifest) -> str:
    return str((pod.get("status") or {}).get("podIP") or "")


def _url(pod: Manifest, port: int) -> str:
    address = _address(pod)
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def _reports(observed: Observed) -> list[tuple[Manifest, dict[str, str]]]:
    out = []
    for job in observed.of_kind("Job"):
        state = observed.job(job["metadata"]["name"])
        if state.finished and state.report is not None and not state.recorded:
            out.append((job, {ANNOTATION_REPORT: state.report.model_dump_json(exclude_defaults=True)}))
    return out


def _stale(resource: EdgeDeployment, rollout: Rollout, observed: Observed) -> list[Manifest]:
    """Children of revisions that are neither stable nor on trial, and what has done its duty.

    Benchmarks of the wanted and of the stable revision stay: they are the evidence for what was decided.
    """
    assert rollout.wanted is not None
    on_trial = rollout.candidate if rollout.decision not in ("RollBack", "Promote") else None
    serving = {rollout.wanted.name if rollout.decision == "Promote" else rollout.stable, on_trial}
    pools = {pool.name for pool in resource.spec.pools}
    out = []
    for child in observed.children:
        labels = child["metadata"].get("labels") or {}
        role, revision = labels.get(LABEL_ROLE), labels.get(LABEL_REVISION)
        if child.get("kind") == "Service":
            keep = child["metadata"]["name"] == resource.metadata.name
        elif labels.get(LABEL_POOL) not in pools:
            keep = False
        elif role == "serve":
            keep = revision in serving
        elif role == "bench":
            keep = revision in (rollout.wanted.name, rollout.stable)
        else:
            keep = revision == on_trial
        if not keep:
            out.append(child)
    return out
