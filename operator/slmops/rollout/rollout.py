"""The rollout as a whole: which revision is stable, which is on trial, whose turn it is, and how it ends."""

from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Literal

from slmops.api.base import seconds
from slmops.api.conditions import ConditionType, moment
from slmops.api.edgedeployment import EdgeDeployment, Pool, WaveStatus
from slmops.rollout.fleet import Node, in_order, pool_nodes, targets
from slmops.rollout.pods import Servers
from slmops.rollout.revision import Revision, wanted
from slmops.rollout.trust import untrusted
from slmops.rollout.turns import Trial, Turn, admitted, bench, set_name, turn
from slmops.settings import Settings
from slmops.state import LABEL_REVISION, LABEL_TRACK, Manifest, Observed, Problem

Decision = Literal["Nothing", "Wait", "Proceed", "Soak", "Pause", "RollBack", "Promote"]


@dataclass(frozen=True)
class PoolState:
    """One pool in the rollout."""

    name: str
    nodes: list[Node]
    turns: dict[str, Turn] = field(default_factory=dict)
    """By node, of the candidate; empty when there is none."""
    active: list[Node] = field(default_factory=list)
    """Nodes of this wave whose turn it is now, at most maxUnavailable of them."""
    wave_done: bool = True
    admitted: set[str] = field(default_factory=set)
    """Host names that the candidate's DaemonSet is bound to."""


@dataclass(frozen=True)
class Rollout:
    """Everything that plan and status need to know."""

    stable: str | None
    candidate: str | None
    wanted: Revision | None
    pools: list[PoolState]
    servers: Servers
    decision: Decision
    reason: str = ""
    message: str = ""
    wave: int = 0
    """Index of the current wave."""
    problem: Problem | None = None
    soak_left: float | None = None

    @property
    def stays(self) -> str | None:
        """The revision that every node gets which is not the candidate's."""
        return self.candidate if self.decision == "Promote" else self.stable

    @property
    def on_trial(self) -> str | None:
        """The revision that may be on some nodes besides. One that failed still is, until status has recorded that."""
        return self.candidate if self.decision != "Promote" else None


def read(resource: EdgeDeployment, observed: Observed, settings: Settings, now: datetime) -> Rollout:
    """Read the rollout from what is observed."""
    asked = wanted(resource, observed, settings)
    name = asked.name if isinstance(asked, Revision) else None
    stable = stable_revision(resource, observed, name)
    pools = [PoolState(pool.name, pool_nodes(pool, observed.nodes)) for pool in resource.spec.pools]
    idle = partial(Rollout, stable, None, pools=pools, servers=Servers.of(observed))
    if problem := overlap(pools):
        return idle(None, decision="Wait", problem=problem)
    if isinstance(asked, Problem):
        return idle(None, decision="Wait", problem=asked)
    if asked.name == stable:
        return idle(asked, decision="Nothing")
    if asked.name in resource.status.failed:
        return idle(asked, decision="Nothing", reason="CandidateFailed")
    if problem := untrusted(resource, observed, asked):
        return idle(asked, decision="Wait", problem=problem)
    return _on_trial(resource, observed, idle(asked, decision="Proceed"), asked, now)


def _on_trial(resource: EdgeDeployment, observed: Observed, idle: Rollout, asked: Revision, now: datetime) -> Rollout:
    drafts = [
        _pool(resource, observed, pool, state.nodes, idle, asked.name, now)
        for pool, state in zip(resource.spec.pools, idle.pools, strict=True)
    ]
    online = any(node.ready for pool in drafts for node in pool.nodes)
    wave, last = 0, len(resource.spec.strategy.waves) - 1
    while online and wave < last and all(_wave_done(resource, draft, wave) for draft in drafts):
        if _soak_left(resource, asked.name, wave, now) > 0:
            break
        wave += 1
    pools = [_with_wave(resource, draft, wave) for draft in drafts]
    make = partial(Rollout, idle.stable, asked.name, asked, pools, idle.servers, wave=wave)
    turns = [t for pool in pools for t in pool.turns.values()]
    if failed := next((t for t in turns if t.step == "Failed"), None):
        decision: Decision = "RollBack" if resource.spec.rollback.automatic else "Pause"
        return make(decision, failed.reason, _of_node(failed))
    if doubt := next((t for t in turns if t.step == "Inconclusive"), None):
        return make("Pause", doubt.reason, _of_node(doubt))
    if not online:
        return make("Wait", "NoNodes", "no node of the pools is Ready")
    if resource.spec.paused:
        return make("Pause", "Paused", "spec.paused is set")
    if all(pool.wave_done for pool in pools):
        if (left := _soak_left(resource, asked.name, wave, now)) > 0:
            return make("Soak", "Soaking", soak_left=left)
        return make("Promote", "AllNodesPassed")
    return make("Proceed", "InTurn")


def _of_node(turn: Turn) -> str:
    return f"node {turn.node.name} ({turn.node.hardware}): {turn.message}"


def stable_revision(resource: EdgeDeployment, observed: Observed, asked: str | None) -> str | None:
    """The revision promoted last: the DaemonSets say it, which nobody writes but us.

    Two are called stable where a promotion was cut off in the middle: it is decided, so it is carried on.
    """
    found = {
        labels.get(LABEL_REVISION)
        for daemon_set in observed.of_kind("DaemonSet")
        if (labels := daemon_set["metadata"].get("labels") or {}).get(LABEL_TRACK) == "stable"
    }
    status = resource.status
    likely = [asked, *(known.revision for known in (status.candidate, status.stable) if known)]
    return next((name for name in likely if name in found), min((n for n in found if n), default=None))


def overlap(pools: list[PoolState]) -> Problem | None:
    """A node that two pools select could get two servers: refused."""
    seen: dict[str, str] = {}
    for pool in pools:
        for node in pool.nodes:
            if node.name in seen:
                message = (
                    f"spec.pools: node {node.name} is selected by pools {seen[node.name]} and {pool.name}; "
                    "make the selectors exclusive"
                )
                return Problem(ConditionType.ACCEPTED, "OverlappingPools", message)
            seen[node.name] = pool.name
    return None


def daemon_set_of(resource: EdgeDeployment, observed: Observed, pool: str, revision: str | None) -> Manifest | None:
    """A pool's DaemonSet of a revision."""
    return observed.child("DaemonSet", set_name(resource, pool, revision)) if revision else None


def wave_seen(resource: EdgeDeployment, revision: str) -> WaveStatus | None:
    """The wave in status, where it is this candidate's."""
    candidate = resource.status.candidate
    return resource.status.wave if candidate is not None and candidate.revision == revision else None


def _pool(resource: EdgeDeployment, observed: Observed, pool: Pool, nodes: list[Node], idle: Rollout, revision: str,
          now: datetime) -> PoolState:  # fmt: skip
    benches = [(node, bench(resource, observed, pool.name, revision, node)) for node in nodes]
    proven = {node.hardware for node, found in benches if found is not None and found.verdict == "Passed"}
    stable = idle.stable if daemon_set_of(resource, observed, pool.name, idle.stable) else None
    bound = admitted(daemon_set_of(resource, observed, pool.name, revision))
    trial = Trial(resource, observed, idle.servers, pool.name, revision, stable, bound, now)
    turns = {node.name: turn(trial, node, proven) for node in nodes if node.ready}
    return PoolState(pool.name, nodes, turns, admitted=bound)


def _members(resource: EdgeDeployment, pool: PoolState, wave: int) -> list[Node]:
    begun = {name for name, t in pool.turns.items() if t.step != "Waiting"}
    ordered = in_order(pool.nodes, begun)
    return ordered[: targets(resource.spec.strategy.waves, len(ordered))[wave]]


def _wave_done(resource: EdgeDeployment, pool: PoolState, wave: int) -> bool:
    return all(pool.turns[node.name].step == "Serving" for node in _members(resource, pool, wave))


def _with_wave(resource: EdgeDeployment, pool: PoolState, wave: int) -> PoolState:
    todo = [node for node in _members(resource, pool, wave) if pool.turns[node.name].step != "Serving"]
    active = todo[: resource.spec.strategy.max_unavailable]
    return PoolState(pool.name, pool.nodes, pool.turns, active, not todo, pool.admitted)


def _soak_left(resource: EdgeDeployment, revision: str, wave: int, now: datetime) -> float:
    """Seconds to wait after a wave. The clock starts when status says that the wave is complete."""
    soak = resource.spec.strategy.waves[wave].soak
    if soak is None:
        return 0.0
    seen = wave_seen(resource, revision)
    if seen is not None and seen.index > wave + 1:
        return 0.0
    completed = moment(seen.completed_at) if seen is not None and seen.index == wave + 1 else None
    return seconds(soak) if completed is None else max(0.0, seconds(soak) - (now - completed).total_seconds())
