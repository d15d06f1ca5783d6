"""The status of an EdgeDeployment: what runs, what is on trial, what was measured, how the last rollout ended."""

from datetime import datetime
from typing import Literal

from slmops.api.conditions import ConditionType, Fact, false, merge, timestamp, true, unknown
from slmops.api.edgedeployment import (
    ClassStatus,
    EdgeDeployment,
    EdgeDeploymentStatus,
    NodeCounts,
    OutcomeStatus,
    PoolStatus,
    RevisionStatus,
    WaveStatus,
)
from slmops.rollout.fleet import Node
from slmops.rollout.rollout import PoolState, Rollout
from slmops.rollout.turns import bench as bench_of
from slmops.rollout.turns import condition, serving_pod
from slmops.rollout.verdict import figures
from slmops.state import Observed, Plan
from slmops.status.batch import intake

C = ConditionType


def edgedeployment_status(
    resource: EdgeDeployment, observed: Observed, plan: Plan, now: datetime
) -> EdgeDeploymentStatus:
    """The state of the fleet."""
    rollout = plan.detail
    assert isinstance(rollout, Rollout)
    before = resource.status
    promoted = rollout.decision == "Promote"
    stable = rollout.candidate if promoted else rollout.stable
    rolled_back = rollout.decision == "RollBack"
    candidate = rollout.candidate if not promoted and not rolled_back else None
    failed = list(before.failed)
    if rolled_back and rollout.candidate and rollout.candidate not in failed:
        failed = [*failed, rollout.candidate][-10:]
    pools = [_pool(resource, observed, state, stable, rollout) for state in rollout.pools]
    facts = _facts(plan, rollout, pools, stable)
    return EdgeDeploymentStatus(
        phase=_phase(rollout, facts),
        observed_generation=resource.metadata.generation,
        stable=_revision(before.stable, stable, rollout, now),
        candidate=_revision(before.candidate, candidate, rollout, now),
        failed=failed,
        last_outcome=_outcome(before, rollout, now),
        wave=_wave(resource, rollout, now),
        activity=_activity(rollout),
        pools=pools,
        conditions=merge(before.conditions, facts, resource.metadata.generation, now),
    )


def _facts(plan: Plan, rollout: Rollout, pools: list[PoolStatus], stable: str | None) -> list[Fact]:
    facts = intake(plan)
    text = rollout.message
    bad_candidate = rollout.decision == "RollBack" or rollout.reason == "CandidateFailed"
    if rollout.problem is not None:
        facts.append(unknown(C.PROGRESSING, "Waiting", "for spec.model"))
    elif rollout.candidate is None or rollout.decision == "Promote":
        facts.append(false(C.PROGRESSING, rollout.reason or "Idle") if bad_candidate else true(C.PROGRESSING, "Done"))
    elif rollout.decision == "Pause":
        facts.append(false(C.PROGRESSING, rollout.reason, f"{text}. {_way_on(rollout)}"))
    elif rollout.decision == "RollBack":
        facts.append(false(C.PROGRESSING, rollout.reason, text))
    else:
        facts.append(unknown(C.PROGRESSING, rollout.reason, text) if rollout.decision == "Wait"
                     else true(C.PROGRESSING, rollout.reason, text))  # fmt: skip
    verdicts = {c.verdict for pool in pools for c in pool.classes if c.verdict != "Pending"}
    facts.append(
        false(C.BENCHMARKED, "Failed", text) if "Failed" in verdicts
        else false(C.BENCHMARKED, "Inconclusive", text) if "Inconclusive" in verdicts
        else true(C.BENCHMARKED, "Passed") if "Passed" in verdicts
        else unknown(C.BENCHMARKED, "NotMeasured")
    )  # fmt: skip
    if bad_candidate:
        facts.append(false(C.PROMOTED, rollout.reason, text or "the wanted revision failed; the stable one serves. "
                           "Change the spec, or set the annotation slmops.dev/retry to try again"))  # fmt: skip
    elif (rollout.candidate is None and rollout.problem is None) or rollout.decision == "Promote":
        facts.append(true(C.PROMOTED, "Promoted"))
    else:
        facts.append(unknown(C.PROMOTED, rollout.reason or "Waiting", text))
    serving = sum(pool.nodes.ready for pool in pools)
    online = sum(pool.nodes.total - pool.nodes.offline for pool in pools)
    facts.append(
        unknown(C.READY, "NothingPromoted", "no revision has been promoted yet") if stable is None
        else unknown(C.READY, "NoNodes", "no node of the pools is Ready") if online == 0
        else true(C.READY, "Serving", f"{serving} of {online} nodes serve") if serving >= online
        else false(C.READY, "NodesNotServing", f"{serving} of {online} nodes serve")
    )  # fmt: skip
    return facts


def _way_on(rollout: Rollout) -> str:
    if rollout.reason == "Paused":
        return "Unset it to go on."
    return "Set the annotation slmops.dev/retry to measure again, or change the spec."


def _phase(rollout: Rollout, facts: list[Fact]) -> str:
    if rollout.problem is not None:
        return "Pending"
    if rollout.decision == "RollBack" or rollout.reason == "CandidateFailed":
        return "Degraded"
    if rollout.decision == "Pause":
        return "Paused"
    if rollout.candidate is not None and rollout.decision != "Promote":
        return "Progressing"
    return "Ready" if facts[-1].status == "True" else "Degraded" if facts[-1].status == "False" else "Pending"


def _revision(
    before: RevisionStatus | None, name: str | None, rollout: Rollout, now: datetime
) -> RevisionStatus | None:
    if name is None:
        return None
    if before is not None and before.revision == name:
        return before
    wanted = rollout.wanted
    images = wanted.images if wanted is not None and wanted.name == name else {}
    return RevisionStatus(revision=name, images=images, since=timestamp(now))


def _outcome(before: EdgeDeploymentStatus, rollout: Rollout, now: datetime) -> OutcomeStatus | None:
    outcome: Literal["Promoted", "RolledBack", "Superseded"] | None = None
    name, reason, message = rollout.candidate, rollout.reason, rollout.message
    if rollout.decision == "Promote":
        outcome, message = "Promoted", ""
    elif rollout.decision == "RollBack":
        outcome = "RolledBack"
    elif before.candidate is not None and rollout.problem is None and before.candidate.revision not in (
        rollout.candidate, rollout.stable, *before.failed
    ):  # fmt: skip
        outcome, name, reason, message = "Superseded", before.candidate.revision, "SpecChanged", ""
    if outcome is None or name is None:
        return before.last_outcome
    same = before.last_outcome
    if same is not None and (same.outcome, same.revision) == (outcome, name):
        return same
    return OutcomeStatus(outcome=outcome, revision=name, reason=reason, message=message[:2048], at=timestamp(now))


def _wave(resource: EdgeDeployment, rollout: Rollout, now: datetime) -> WaveStatus | None:
    if rollout.candidate is None or rollout.decision == "RollBack":
        return resource.status.wave if rollout.decision == "RollBack" or rollout.reason == "CandidateFailed" else None
    if rollout.decision == "Promote":
        return None
    waves = resource.spec.strategy.waves
    done = all(pool.wave_done for pool in rollout.pools)
    seen = resource.status.wave
    at = None
    if done:
        at = seen.completed_at if seen and seen.index == rollout.wave + 1 and seen.completed_at else timestamp(now)
    return WaveStatus(name=waves[rollout.wave].name, index=rollout.wave + 1, of=len(waves), completed_at=at)


def _activity(rollout: Rollout) -> str | None:
    if rollout.candidate is None or rollout.decision in ("RollBack", "Promote"):
        return None
    parts = [
        f"{turn.node.name}: {turn.step}" + (f" ({turn.message})" if turn.message and turn.step != "Failed" else "")
        for pool in rollout.pools
        for node in pool.active[:5]
        if (turn := pool.turns[node.name])
    ]
    return "; ".join(parts)[:512] or None


def _pool(
    resource: EdgeDeployment, observed: Observed, state: PoolState, stable: str | None, rollout: Rollout
) -> PoolStatus:
    current = rollout.candidate or stable
    revisions = [r for r in (rollout.candidate, stable) if r]
    ready = sum(any(_serves(observed, state.name, r, node) for r in revisions) for node in state.nodes)
    updated = sum(bool(current) and _serves(observed, state.name, str(current), node) for node in state.nodes)
    offline = sum(not node.ready for node in state.nodes)
    judged = rollout.wanted.name if rollout.wanted is not None else stable
    return PoolStatus(
        name=state.name,
        nodes=NodeCounts(total=len(state.nodes), updated=updated, ready=ready, offline=offline),
        classes=_classes(resource, observed, state, judged),
    )


def _serves(observed: Observed, pool: str, revision: str, node: Node) -> bool:
    pod = serving_pod(observed, pool, revision, node.name)
    return pod is not None and node.ready and condition(pod, "Ready")


def _classes(resource: EdgeDeployment, observed: Observed, state: PoolState, revision: str | None) -> list[ClassStatus]:
    out = []
    rank = {"Failed": 3, "Inconclusive": 2, "Passed": 1, "Pending": 0}
    for name in sorted({node.hardware for node in state.nodes}):
        members = [node for node in state.nodes if node.hardware == name]
        best = ClassStatus(name=name, nodes=len(members), verdict="Pending")
        for node in members:
            found = bench_of(resource, observed, state.name, revision, node) if revision else None
            verdict = found.verdict if found is not None else None
            if found is None or verdict is None or rank[verdict] <= rank[best.verdict]:
                continue
            shown = {k: figures(v) for k, v in found.report.targets.items()} if found.report else {}
            best = ClassStatus(name=name, nodes=len(members), verdict=verdict, node=node.name, figures=shown,
                               gates=found.gates)  # fmt: skip
        out.append(best)
    return out
