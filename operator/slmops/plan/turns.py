"""The Jobs of a node's turn: to pull the candidate's image there and look at it, and to measure both servers."""

import math
from collections.abc import Sequence
from typing import Literal

from slmops import contract
from slmops.api.base import seconds
from slmops.api.edgedeployment import Benchmark, EdgeDeployment, Pool
from slmops.api.run import RunSpec, Toleration
from slmops.plan.job import Work, work
from slmops.plan.serving import model_volume, serve_run
from slmops.plan.sources import Sources
from slmops.rollout.benches import BEFORE
from slmops.rollout.children import job_name, set_name
from slmops.rollout.pods import condition
from slmops.rollout.rollout import Rollout
from slmops.rollout.turns import Turn, compares
from slmops.settings import Settings
from slmops.state import LABEL_POOL, LABEL_REVISION, Manifest, Observed

JOB_RESOURCES = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
CORDONED = Toleration(key="node.kubernetes.io/unschedulable", operator="Exists", effect="NoSchedule")
"""DaemonSets go to cordoned nodes, so their Jobs have to: a node in maintenance must not fail the candidate."""


def turn_jobs(resource: EdgeDeployment, pool: Pool, turn: Turn, rollout: Rollout, observed: Observed,
              settings: Settings) -> list[Manifest]:  # fmt: skip
    """What is missing of the Job that the turn is at, if there is one. It is made once."""
    if turn.stops and turn.step == "Waiting" and compares(resource, turn):
        made = _before(resource, pool, turn, rollout, observed, settings)
    elif turn.step == ("Stopped" if turn.stops else "Waiting") and not turn.known:
        made = _pull(resource, pool, turn, rollout, observed, settings)
    elif turn.step == "Measuring":
        made = _bench(resource, pool, turn, rollout, observed, settings)
    else:
        return []
    return [] if observed.child("Job", made.step.name) is not None else made.missing(observed)


def run_spec(resource: EdgeDeployment, pool: Pool, deadlines: int = 1) -> RunSpec:
    """How a node's Job runs; it is stopped after so many times the progress deadline."""
    limit = deadlines * math.ceil(seconds(resource.spec.strategy.progress_deadline))
    spec = RunSpec.model_validate({"resources": JOB_RESOURCES, "deadline": f"{limit}s", "retries": 1})
    return spec.model_copy(update={"tolerations": [*pool.tolerations, CORDONED]})


def _pull(resource: EdgeDeployment, pool: Pool, turn: Turn, rollout: Rollout, observed: Observed,
          settings: Settings) -> Work:  # fmt: skip
    assert rollout.wanted is not None
    run = contract.PullRun(run="", model_path=contract.MODEL_DIR)
    # Twice, so that the turn is ended by us, who know why the pod waits: a Job that is stopped has no pod any more.
    place = run_spec(resource, pool, deadlines=2)
    return work(
        resource, "pull", run, image=settings.images.bench, run_spec=place,
        sources=Sources(observed), settings=settings, node=turn.node.hostname,
        name=job_name(resource, "pull", pool.name, rollout.wanted.name, turn.node),
        labels={LABEL_POOL: pool.name, LABEL_REVISION: rollout.wanted.name},
        extra_volumes=(model_volume(rollout.wanted.images[pool.name]),),
    )  # fmt: skip


def _before(resource: EdgeDeployment, pool: Pool, turn: Turn, rollout: Rollout, observed: Observed,
            settings: Settings) -> Work:  # fmt: skip
    """The stable server alone, before it is stopped."""
    targets = [_stable(resource, pool, turn, rollout, observed)]
    return _measuring(resource, pool, turn, rollout, observed, settings, BEFORE, targets)


def _bench(resource: EdgeDeployment, pool: Pool, turn: Turn, rollout: Rollout, observed: Observed,
           settings: Settings) -> Work:  # fmt: skip
    assert rollout.wanted is not None
    assert turn.pod is not None
    targets = [_target("candidate", turn.pod, serve_run(resource, pool, rollout.wanted))]
    if turn.incumbent and turn.stable_pod is not None and condition(turn.stable_pod, "Ready"):
        targets.insert(0, _stable(resource, pool, turn, rollout, observed))
    return _measuring(resource, pool, turn, rollout, observed, settings, "bench", targets)


def _stable(resource: EdgeDeployment, pool: Pool, turn: Turn, rollout: Rollout, observed: Observed) -> contract.Target:
    assert rollout.wanted is not None
    assert turn.stable_pod is not None
    config = observed.child("ConfigMap", set_name(resource, pool.name, str(turn.incumbent)))
    return _target("stable", turn.stable_pod, _configured(config) or serve_run(resource, pool, rollout.wanted))


def _measuring(resource: EdgeDeployment, pool: Pool, turn: Turn, rollout: Rollout, observed: Observed,
               settings: Settings, role: str, targets: Sequence[contract.Target]) -> Work:  # fmt: skip
    spec, sources = resource.spec.benchmark, Sources(observed)
    assert spec is not None
    assert rollout.wanted is not None
    run = bench_run(spec, sources, targets)
    return work(
        resource, role, run, image=settings.images.bench, run_spec=run_spec(resource, pool), sources=sources,
        settings=settings, node=turn.node.hostname,
        name=job_name(resource, role, pool.name, rollout.wanted.name, turn.node),
        labels={LABEL_POOL: pool.name, LABEL_REVISION: rollout.wanted.name},
    )  # fmt: skip


def bench_run(
    spec: Benchmark, sources: Sources, targets: Sequence[contract.Target], wait: float = 0.0
) -> contract.BenchRun:
    """The benchmark of the spec, of these servers, for which it waits so many seconds."""
    return contract.BenchRun(
        run="", targets=tuple(targets), data=sources.data(spec.data), warmup=spec.warmup, rounds=spec.rounds,
        prompts=spec.prompts, max_tokens=spec.max_tokens, concurrency=spec.concurrency, wait_seconds=wait,
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
