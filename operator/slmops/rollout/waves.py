"""How far a rollout has come: which wave it is, whose turn it is in it, and what it waits for."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from slmops.api.base import ratio, seconds, share_of
from slmops.api.conditions import moment
from slmops.api.edgedeployment import EdgeDeployment
from slmops.api.fleet import WaveStatus
from slmops.api.strategy import FailureLimit
from slmops.rollout.fleet import Node, in_order, targets
from slmops.rollout.people import approval
from slmops.rollout.turns import Turn


@dataclass(frozen=True)
class PoolState:
    """One pool in the rollout."""

    name: str
    nodes: list[Node]
    turns: dict[str, Turn] = field(default_factory=dict)
    """By node, of the candidate, or of the stable revision on nodes that are late; without those that do not get it."""
    active: list[Node] = field(default_factory=list)
    """Nodes of this wave whose turn it is now, at most maxUnavailable of them."""
    wave_done: bool = True
    admitted: set[str] = field(default_factory=set)
    """Host names that the candidate's DaemonSet is bound to."""


def wave_of(resource: EdgeDeployment, pools: Sequence[PoolState], revision: str, fast: bool, now: datetime) -> int:
    """The wave that the rollout is in; the last one where it is ``fast``: one that waits for nothing."""
    wave, last = 0, len(resource.spec.strategy.steps) - 1
    if not any(turn.node.ready for pool in pools for turn in pool.turns.values()):
        return 0
    while wave < last and (fast or all(_done(resource, pool, wave) for pool in pools)):
        if not fast and (soak_left(resource, revision, wave, now) > 0 or approval(resource, revision, wave)):
            break
        wave += 1
    return wave


def in_wave(resource: EdgeDeployment, pool: PoolState, wave: int) -> PoolState:
    """The pool with whose turn it is in the wave."""
    todo = [node for node in members(resource, pool, wave) if not _settled(pool.turns[node.name])]
    online = sum(node.ready for node in pool.nodes)
    at_once = max(1, share_of(resource.spec.strategy.at_once, online))
    begun = [node for node in todo if pool.turns[node.name].step != "Waiting"]
    # Half a batch at a time: each change of who is meant is a write, and a look at all nodes by the DaemonSet controller.
    # Those that take long, and are fewer, keep nobody waiting.
    active = todo[:at_once] if 2 * len(begun) <= at_once else begun[:at_once]
    return replace(pool, active=active, wave_done=not todo)


def late_ones(resource: EdgeDeployment, pool: PoolState, wait: bool) -> PoolState:
    """The pool with whose turn it is of the late nodes: those that may get it, at most maxUnavailable at once. ``wait``: no
    further one."""
    ends = ("Serving", "Failed", "Inconclusive")
    begun = {name for name, turn in pool.turns.items() if turn.step != "Waiting"}
    late = in_order([node for node in pool.nodes if node.name in pool.turns], begun)
    todo = [node for node in late if pool.turns[node.name].step not in ends]
    active = todo[: max(1, share_of(resource.spec.strategy.at_once, sum(node.ready for node in pool.nodes)))]
    return replace(pool, active=[node for node in active if node.name in begun or not wait], wave_done=not todo)


def too_many(limit: FailureLimit, turns: Sequence[Turn]) -> Turn | None:
    """The first of the nodes that failed for reasons of their own, where they are too many."""
    own, begun = [turn for turn in turns if turn.own], sum(turn.step != "Waiting" for turn in turns)
    within = len(own) < limit.minimum or len(own) <= ratio(limit.percent) * begun
    return None if within else own[0]


def soak_left(resource: EdgeDeployment, revision: str, wave: int, now: datetime) -> float:
    """Seconds to wait after a wave. The clock starts when status says that the wave is complete."""
    soak = resource.spec.strategy.steps[wave].soak
    if soak is None:
        return 0.0
    seen = wave_seen(resource, revision)
    if seen is not None and seen.index > wave + 1:
        return 0.0
    completed = moment(seen.completed_at) if seen is not None and seen.index == wave + 1 else None
    return seconds(soak) if completed is None else max(0.0, seconds(soak) - (now - completed).total_seconds())


def wave_seen(resource: EdgeDeployment, revision: str) -> WaveStatus | None:
    """The wave in status, where it is this candidate's."""
    candidate = resource.status.candidate
    return resource.status.wave if candidate is not None and candidate.revision == revision else None


def members(resource: EdgeDeployment, pool: PoolState, wave: int) -> list[Node]:
    """The pool's nodes that have the candidate at the end of a wave, as they come."""
    begun = {name for name, turn in pool.turns.items() if turn.step != "Waiting"}
    return in_order(_able(pool), begun)[: due_by(resource, pool, wave)]


def due_by(resource: EdgeDeployment, pool: PoolState, wave: int) -> int:
    """How many those are."""
    able = _able(pool)
    return targets(resource.spec.strategy.steps, len(able), len({node.hardware for node in able}))[wave]


def _able(pool: PoolState) -> list[Node]:
    """The nodes that can have their turn."""
    return [node for node in pool.nodes if node.ready and node.name in pool.turns]


def _done(resource: EdgeDeployment, pool: PoolState, wave: int) -> bool:
    return all(_settled(pool.turns[node.name]) for node in members(resource, pool, wave))


def _settled(turn: Turn) -> bool:
    """Whether a wave waits for the node no more: it serves, or is left out."""
    return turn.step == "Serving" or turn.own
