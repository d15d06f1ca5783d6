"""The rollout as a whole: which revision is stable, which is on trial, whose turn it is, and how it ends."""

from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Literal

from slmops.api.base import seconds
from slmops.api.conditions import ConditionType
from slmops.api.edgedeployment import EdgeDeployment
from slmops.rollout.fleet import Node, in_order, pool_nodes, targets
from slmops.rollout.revision import Revision, wanted
from slmops.rollout.turns import Turn, admitted, bench, set_name, turn
from slmops.settings import Settings
from slmops.state import LABEL_REVISION, LABEL_TRACK, Manifest, Observed, Problem

Decision = Literal["Nothing", "Wait", "Proceed", "Soak", "Pause", "RollBack", "Promote"]


@dataclass(frozen=True)
class PoolState:
    """One pool in the rollout."""

    name: str
    nodes: list[Node]
    turns: dict[str, Turn]
    """By node, of the candidate; empty when there is none."""
    active: list[Node]
    """Nodes of this wave whose turn it is now, at most maxUnavailable of them."""
    proven: set[str]
    """Hardware classes on which the candidate has passed its benchmark."""
    wave_done: bool
    admitted: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Rollout:
    """Everything that plan and status need to know."""

    stable: str | None
    candidate: str | None
    wanted: Revision | None
    pools: list[PoolState]
    wave: int
    """Index of the current wave."""
    decision: Decision
    reason: str = ""
    message: str = ""
    failing: Turn | None = None
    problem: Problem | None = None
    soak_left: float | None = None


def read(resource: EdgeDeployment, observed: Observed, settings: Settings, now: datetime) -> Rollout:
    """Read the rollout from what is observed."""
    stable = stable_revision(observed)
    if problem := overlap(resource, observed):
        return _idle(resource, observed, stable, None, "Wait", problem=problem)
    asked = wanted(resource, observed, settings)
    if isinstance(asked, Problem):
        return _idle(resource, observed, stable, None, "Wait", problem=asked)
    if asked.name == stable:
        return _idle(resource, observed, stable, asked, "Nothing")
    if asked.name in resource.status.failed:
        return _idle(resource, observed, stable, asked, "Nothing", "CandidateFailed")
    return _on_trial(resource, observed, stable, asked, now)


def _on_trial(resource: EdgeDeployment, observed: Observed, stable: str | None, asked: Revision,
              now: datetime) -> Rollout:  # fmt: skip
    pools, wave = [], 0
    drafts = [_pool(resource, observed, pool.name, asked.name, stable, now) for pool in resource.spec.pools]
    last = len(resource.spec.strategy.waves) - 1
    while wave < last and all(_wave_done(resource, draft, wave) for draft in drafts):
        if _soak_left(resource, wave, now) > 0:
            break
        wave += 1
    for draft in drafts:
        pools.append(_with_wave(resource, draft, wave))
    make = partial(Rollout, stable, asked.name, asked, pools, wave)
    turns = [t for pool in pools for t in pool.turns.values()]
    failed = next((t for t in turns if t.step == "Failed"), None)
    if failed is not None:
        decision: Decision = "RollBack" if resource.spec.rollback.automatic else "Pause"
        return make(decision, reason=failed.reason, failing=failed,
                       message=f"node {failed.node.name} ({failed.node.hardware}): {failed.message}")  # fmt: skip
    doubt = next((t for t in turns if t.step == "Inconclusive"), None)
    if doubt is not None:
        return make("Pause", reason=doubt.reason, failing=doubt,
                       message=f"node {doubt.node.name} ({doubt.node.hardware}): {doubt.message}")  # fmt: skip
    if not any(node.ready for pool in pools for node in pool.nodes):
        return make("Wait", reason="NoNodes", message="no node of the pools is Ready")
    if resource.spec.paused:
        return make("Pause", reason="Paused", message="spec.paused is set")
    if all(pool.wave_done for pool in pools):
        if wave == last:
            return make("Promote", reason="AllNodesPassed")
        left = _soak_left(resource, wave, now)
        return make("Soak", reason="Soaking", soak_left=left)
    return make("Proceed", reason="InTurn")


def stable_revision(observed: Observed) -> str | None:
    """The revision promoted last: the DaemonSets say it, which nobody writes but us."""
    for daemon_set in observed.of_kind("DaemonSet"):
        labels = daemon_set["metadata"].get("labels") or {}
        if labels.get(LABEL_TRACK) == "stable":
            return labels.get(LABEL_REVISION)
    return None


def overlap(resource: EdgeDeployment, observed: Observed) -> Problem | None:
    """A node that two pools select could get two servers: refused."""
    seen: dict[str, str] = {}
    for pool in resource.spec.pools:
        for node in pool_nodes(pool, observed.nodes):
            if node.name in seen:
                message = (
                    f"spec.pools: node {node.name} is selected by pools {seen[node.name]} and {pool.name}; "
                    "make the selectors exclusive"
                )
                return Problem(ConditionType.ACCEPTED, "OverlappingPools", message)
            seen[node.name] = pool.name
    return None


def daemon_set_of(resource: EdgeDeployment, observed: Observed, pool: str, revision: str) -> Manifest | None:
    """A pool's DaemonSet of a revision."""
    return observed.child("DaemonSet", set_name(resource, pool, revision))


def _pool(resource: EdgeDeployment, observed: Observed, name: str, revision: str, stable: str | None,
          now: datetime) -> PoolState:  # fmt: skip
    pool = next(p for p in resource.spec.pools if p.name == name)
    nodes = pool_nodes(pool, observed.nodes)
    proven = set()
    for node in nodes:
        found = bench(resource, observed, name, revision, node)
        if found is not None and found.verdict == "Passed":
            proven.add(node.hardware)
    turns = {n.name: turn(resource, observed, name, revision, stable, n, proven, now) for n in nodes if n.ready}
    daemon_set = daemon_set_of(resource, observed, name, revision)
    return PoolState(name, nodes, turns, [], proven, False, admitted(daemon_set) if daemon_set else set())


def _members(resource: EdgeDeployment, pool: PoolState, wave: int) -> list[Node]:
    begun = {name for name, t in pool.turns.items() if t.step != "Waiting"}
    ordered = in_order(pool.nodes, begun)
    return ordered[: targets(resource.spec.strategy.waves, len(ordered))[wave]]


def _wave_done(resource: EdgeDeployment, pool: PoolState, wave: int) -> bool:
    return all(pool.turns[node.name].step == "Serving" for node in _members(resource, pool, wave))


def _with_wave(resource: EdgeDeployment, pool: PoolState, wave: int) -> PoolState:
    todo = [node for node in _members(resource, pool, wave) if pool.turns[node.name].step != "Serving"]
    active = todo[: resource.spec.strategy.max_unavailable]
    return PoolState(pool.name, pool.nodes, pool.turns, active, pool.proven, not todo, pool.admitted)


def _soak_left(resource: EdgeDeployment, wave: int, now: datetime) -> float:
    """Seconds to wait after a wave. The clock starts when status says that the wave is complete."""
    soak = resource.spec.strategy.waves[wave].soak
    if soak is None:
        return 0.0
    seen = resource.status.wave
    if seen is None or seen.index < wave + 1 or (seen.index == wave + 1 and seen.completed_at is None):
        return seconds(soak)
    if seen.index > wave + 1:
        return 0.0
    assert seen.completed_at is not None
    return max(0.0, seconds(soak) - (now - datetime.fromisoformat(seen.completed_at)).total_seconds())


def _idle(resource: EdgeDeployment, observed: Observed, stable: str | None, asked: Revision | None, decision: Decision,
          reason: str = "", problem: Problem | None = None) -> Rollout:  # fmt: skip
    pools = [
        PoolState(pool.name, pool_nodes(pool, observed.nodes), {}, [], set(), True) for pool in resource.spec.pools
    ]
    return Rollout(stable, None, asked, pools, 0, decision, reason, problem=problem)
