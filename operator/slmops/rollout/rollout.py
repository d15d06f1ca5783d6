"""The rollout as a whole: which revision is stable, which is on trial, whose turn it is, and how it ends."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Literal

from slmops.api.conditions import ConditionType
from slmops.api.edgedeployment import EdgeDeployment, Pool
from slmops.rollout.fleet import Node, pool_nodes
from slmops.rollout.people import ABORT, aborted, approval, in_full
from slmops.rollout.pods import Servers
from slmops.rollout.revision import Revision, wanted
from slmops.rollout.trust import untrusted
from slmops.rollout.turns import Asked, Trial, Turn, admitted, bench, set_name, turn
from slmops.rollout.waves import PoolState, failure, in_wave, soak_left, wave_of
from slmops.rollout.window import hours, opens_in, unknown_zone
from slmops.settings import Settings
from slmops.state import LABEL_REVISION, LABEL_TRACK, Manifest, Observed, Problem

Decision = Literal["Nothing", "Wait", "Proceed", "Soak", "Pause", "RollBack", "Promote"]


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
    left: float | None = None
    """Seconds until it goes on by itself."""
    approval: str | None = None
    """What the annotation slmops.dev/approve has to say before it goes on."""
    known_good: bool = False
    """Whether the candidate was stable once, and so has nothing to prove."""

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
    if problem := overlap(pools) or unknown_zone(resource):
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
    strategy = resource.spec.strategy
    known = next((former for former in resource.status.history if former.revision == asked.name), None)
    about = Asked(asked.name, known.classes if known else {}, trusted=in_full(resource, asked.name))
    fast = known is not None or about.trusted
    drafts = [
        _pool(resource, observed, pool, state.nodes, idle, about, now)
        for pool, state in zip(resource.spec.pools, idle.pools, strict=True)
    ]
    wave = wave_of(resource, drafts, asked.name, fast, now)
    pools = [in_wave(resource, draft, wave) for draft in drafts]
    make = partial(
        Rollout, idle.stable, asked.name, asked, pools, idle.servers, wave=wave, known_good=known is not None
    )
    if aborted(resource, asked.name):
        return make("RollBack", "Aborted", f"the annotation {ABORT} names it")
    turns = [t for pool in pools for t in pool.turns.values()]
    if (failed := failure(strategy.failure_limit, turns)) is not None:
        decision: Decision = "RollBack" if resource.spec.rollback.automatic else "Pause"
        return make(decision, failed.reason, _of_node(failed))
    if doubt := next((t for t in turns if t.step == "Inconclusive"), None):
        return make("Pause", doubt.reason, _of_node(doubt))
    if not any(node.ready for pool in pools for node in pool.nodes):
        return make("Wait", "NoNodes", "no node of the pools is Ready")
    if resource.spec.paused:
        return make("Pause", "Paused", "spec.paused is set")
    if not fast and (needed := approval(resource, asked.name, wave)) is not None:
        return make("Pause", "ApprovalRequired", f"wave {strategy.steps[wave].name} needs an approval", approval=needed)
    if all(pool.wave_done for pool in pools):
        # The first revision of all has nothing beside it that is to be held.
        waits = not fast and (idle.stable is not None or strategy.type == "Canary")
        if waits and (left := soak_left(resource, asked.name, wave, now)) > 0:
            return make("Soak", "Soaking", left=left)
        return make("Promote", "KnownGood" if known else "AllNodesPassed")
    if not fast and (left := opens_in(strategy.window, now)) > 0:
        return make("Pause", "OutsideWindow", f"nodes get their turn {hours(strategy.window)}", left=left)
    return make("Proceed", "InTurn", _left_out(turns))


def _left_out(turns: Sequence[Turn]) -> str:
    left = [turn for turn in turns if turn.own]
    return f"{len(left)} left out, as {_of_node(left[0])}" if left else ""


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


def _pool(resource: EdgeDeployment, observed: Observed, pool: Pool, nodes: list[Node], idle: Rollout, asked: Asked,
          now: datetime) -> PoolState:  # fmt: skip
    revision = asked.revision
    passed = Counter(
        node.hardware
        for node in nodes
        if (found := bench(resource, observed, pool.name, revision, node)) is not None and found.verdict == "Passed"
    )
    enough = resource.spec.benchmark.nodes_per_class if resource.spec.benchmark is not None else 1
    before = asked.classes.get(pool.name, ())
    proven = {*before, *(hardware for hardware, count in passed.items() if count >= enough)}
    stable = idle.stable if daemon_set_of(resource, observed, pool.name, idle.stable) else None
    bound = admitted(daemon_set_of(resource, observed, pool.name, revision))
    trial = Trial(resource, observed, idle.servers, pool.name, asked, stable, bound, now)
    turns = {node.name: turn(trial, node, proven) for node in nodes if node.ready}
    return PoolState(pool.name, nodes, turns, admitted=bound)
