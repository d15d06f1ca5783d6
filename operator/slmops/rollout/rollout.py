"""The rollout as a whole: which revision is stable, which is on trial, whose turn it is, and how it ends."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, Literal

from slmops.api.conditions import ConditionType
from slmops.api.edgedeployment import EdgeDeployment, Pool
from slmops.api.fleet import ChoiceStatus
from slmops.rollout.benches import Benches
from slmops.rollout.children import admitted, barred, daemon_set_of
from slmops.rollout.fit import image_bytes
from slmops.rollout.fleet import Node, pool_nodes
from slmops.rollout.people import ABORT, aborted, approval, in_full
from slmops.rollout.pods import Servers
from slmops.rollout.revision import Revision, wanted
from slmops.rollout.standing import ByClass, Standing, at_promotion, given_up, group, recorded
from slmops.rollout.trust import untrusted
from slmops.rollout.turns import Asked, Trial, Turn, lost, turn
from slmops.rollout.waves import PoolState, in_wave, late_ones, soak_left, too_many, wave_of
from slmops.rollout.window import hours, opens_in, unknown_zone
from slmops.settings import Settings
from slmops.state import ANNOTATION_ADMITTED, LABEL_REVISION, LABEL_TRACK, Observed, Problem

Decision = Literal["Nothing", "Wait", "Proceed", "Soak", "Pause", "RollBack", "Promote"]


@dataclass(frozen=True)
class Rollout:
    """Everything that plan and status need to know."""

    stable: str | None
    candidate: str | None
    wanted: Revision | None
    pools: list[PoolState]
    servers: Servers
    benches: Benches
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
    standing: Standing = field(default_factory=lambda: Standing(None))
    """Which nodes get the revision that stays, and what the others keep."""
    failed: ByClass = field(default_factory=dict)
    """Where the candidate, or else the stable revision, has failed, and why, as status has it."""
    failing: ByClass = field(default_factory=dict)
    """The same, with what is seen now."""

    stops_first: bool = False
    """Whether nodes hold one server only: what is not to stay goes before another one is ready."""
    choices: Sequence[ChoiceStatus] = ()
    """Which variant each hardware class gets, where that is chosen."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Bytes of the candidate's model image by pool, where they are known."""

    @property
    def stays(self) -> str | None:
        """The revision that every node gets which is not the candidate's."""
        return self.candidate if self.decision == "Promote" else self.stable

    @property
    def on_trial(self) -> str | None:
        """The revision that may be on some nodes besides. One that failed still is, until status has recorded that."""
        return self.candidate if self.decision != "Promote" else None

    @property
    def tried(self) -> str | None:
        """The revision that the turns are about: the candidate, or the stable one on nodes that are late."""
        return self.candidate or (self.stable if any(pool.turns for pool in self.pools) else None)


def read(resource: EdgeDeployment, observed: Observed, settings: Settings, now: datetime,
         missing: Problem | None = None) -> Rollout:  # fmt: skip
    """Read the rollout from what is observed. ``missing``: why no revision can be told."""
    asked = missing or wanted(resource, observed, settings)
    name = asked.name if isinstance(asked, Revision) else None
    stable = stable_revision(resource, observed, name)
    pools = [PoolState(pool.name, pool_nodes(pool, observed.nodes)) for pool in resource.spec.pools]
    servers = Servers.of(observed)
    standing = _standing(resource, observed, pools, servers, stable)
    idle = partial(Rollout, stable, None, pools=pools, servers=servers, benches=Benches(resource, observed),
                   standing=standing, failed=standing.failed, failing=standing.failed,
                   stops_first=resource.spec.strategy.stops_first)  # fmt: skip
    if problem := overlap(pools) or unknown_zone(resource):
        return idle(None, decision="Wait", problem=problem)
    if isinstance(asked, Problem):
        return idle(None, decision="Wait", problem=asked)
    if asked.name == stable:
        return _settled(resource, observed, idle(asked, decision="Nothing"), asked, now)
    if asked.name in resource.status.failed:
        return idle(asked, decision="Nothing", reason="CandidateFailed")
    if problem := untrusted(resource, observed, asked):
        return idle(asked, decision="Wait", problem=problem)
    return _on_trial(resource, observed, idle(asked, decision="Proceed"), asked, now)


def _on_trial(resource: EdgeDeployment, observed: Observed, idle: Rollout, asked: Revision, now: datetime) -> Rollout:
    strategy = resource.spec.strategy
    known = next((former for former in resource.status.history if former.revision == asked.name), None)
    sizes = image_bytes(resource, observed, asked.images, asked.name)
    about = Asked(asked.name, known.classes if known else {}, in_full(resource, asked.name), sizes)
    fast = known is not None or about.trusted
    seen = resource.status.candidate
    before = seen if seen is not None and seen.revision == asked.name else known
    failed: ByClass = before.failed if before is not None else {}
    drafts = [
        _pool(resource, observed, pool, state.nodes, idle, about, now,
              [node for node in state.nodes if not given_up(resource, failed, pool.name, node)])
        for pool, state in zip(resource.spec.pools, idle.pools, strict=True)
    ]  # fmt: skip
    # Beside nothing there is nothing to compare, and nothing to hold.
    on = fast or (strategy.type == "AB" and idle.stable is None)
    wave = wave_of(resource, drafts, asked.name, on, now)
    pools = [in_wave(resource, draft, wave) for draft in drafts]
    alone = strategy.promotion_scope != "All" and resource.spec.rollback.automatic
    failing = _failing(failed, pools) if alone else failed
    begun = replace(idle, candidate=asked.name, pools=pools, wave=wave, known_good=known is not None, failed=failed,
                    failing=failing, sizes=sizes)  # fmt: skip

    def make(decision: Decision, reason: str, message: str = "", **more: Any) -> Rollout:
        return replace(begun, decision=decision, reason=reason, message=message, **more)

    if aborted(resource, asked.name):
        return make("RollBack", "Aborted", f"the annotation {ABORT} names it")
    if (bad := _bad(resource, begun)) is not None:
        return make("RollBack" if resource.spec.rollback.automatic else "Pause", bad.reason, _of_node(bad))
    turns = [t for pool in pools for t in pool.turns.values()]
    if failed and all(given_up(resource, failed, pool.name, node) for pool in pools for node in pool.nodes):
        return make("RollBack", "FailedEverywhere", _of_classes(failed))
    if doubt := next((t for t in turns if t.step == "Inconclusive"), None):
        return make("Pause", doubt.reason, _of_node(doubt))
    if not any(turn.node.ready for turn in turns):
        return make("Wait", "NoNodes", _of_classes(failed) or "no node of the pools is Ready")
    if resource.spec.paused:
        return make("Pause", "Paused", "spec.paused is set")
    if not on and (needed := approval(resource, asked.name, wave)) is not None:
        return make("Pause", "ApprovalRequired", f"wave {strategy.steps[wave].name} needs an approval", approval=needed)
    if all(pool.wave_done for pool in pools):
        # The first revision of all has nothing beside it that is to be held.
        waits = not fast and (idle.stable is not None or strategy.type == "Canary")
        if waits and (left := soak_left(resource, asked.name, wave, now)) > 0:
            return make("Soak", "Soaking", left=left)
        standing = at_promotion(resource, pools, idle.servers, asked.name, idle.standing, failed, observed)
        reason = "KnownGood" if known else "SomeClassesPassed" if failed else "AllNodesPassed"
        return make("Promote", reason, _of_classes(failed), standing=standing)
    if not fast and (left := opens_in(strategy.window, now)) > 0:
        return make("Pause", "OutsideWindow", f"nodes get their turn {hours(strategy.window)}", left=left)
    return make("Proceed", "InTurn", "; ".join(text for text in (_left_out(turns), _of_classes(failing)) if text))


def _bad(resource: EdgeDeployment, rollout: Rollout) -> Turn | None:
    """The turn that fails the candidate: a node where it failed, unless others are left that do not fail with it, or the
    first of too many that failed for reasons of their own."""
    left = {
        group(resource, pool.name, node)
        for pool in rollout.pools
        for node in pool.nodes
        if not given_up(resource, rollout.failed, pool.name, node)
    }
    fatal = [(group(resource, pool.name, t.node), t) for pool in rollout.pools for t in pool.turns.values() if t.fatal]
    if fatal and (left <= {group for group, _ in fatal} or not resource.spec.rollback.automatic):
        return fatal[0][1]
    turns = [turn for pool in rollout.pools for turn in pool.turns.values()]
    return too_many(resource.spec.strategy.failure_limit, turns)


def _settled(resource: EdgeDeployment, observed: Observed, idle: Rollout, asked: Revision, now: datetime) -> Rollout:
    """The wanted revision is the stable one: nodes that are late get it, where it passes."""
    about = Asked(asked.name, idle.standing.passed, in_full(resource, asked.name))
    failed = idle.standing.failed
    wait = resource.spec.paused or opens_in(resource.spec.strategy.window, now) > 0
    standing, pools = idle.standing, []
    for pool, state in zip(resource.spec.pools, idle.pools, strict=True):
        held = [node for node in state.nodes if standing.held(pool.name, node)]
        held = [node for node in held if not given_up(resource, failed, pool.name, node)]
        if held:
            passed = _proven(resource, idle.benches, pool.name, held, about)
            standing = standing.with_passed(pool.name, passed)
        if late := [node for node in held if standing.held(pool.name, node)]:
            sized = replace(about, sizes=image_bytes(resource, observed, asked.images, asked.name))
            state = _pool(resource, observed, pool, state.nodes, idle, sized, now, late, late=True)
            state = late_ones(resource, state, wait)
        pools.append(state)
    failing = _failing(failed, pools)
    return replace(idle, pools=pools, standing=standing, failed=failed, failing=failing, message=_of_classes(failing))


def _failing(before: ByClass, pools: Sequence[PoolState]) -> ByClass:
    """Where the revision has failed, with what is seen now."""
    found: dict[str, Mapping[str, str]] = dict(before)
    for pool in pools:
        new = {
            turn.node.hardware: f"{turn.node.name}: {turn.message}"[:256] for turn in pool.turns.values() if turn.fatal
        }
        if new:
            found[pool.name] = {**new, **found.get(pool.name, {})}
    return found


def _standing(
    resource: EdgeDeployment, observed: Observed, pools: list[PoolState], servers: Servers, stable: str | None
) -> Standing:
    """Of the revision that is stable now. Where the status was lost, every node counts as any other."""
    known, candidate = resource.status.stable, resource.status.candidate
    if known is not None and known.revision == stable:
        return recorded(known)
    if stable is not None and candidate is not None and candidate.revision == stable:
        # Promoted by a pass that was cut off before it said so.
        before = recorded(known) if known else Standing(None)
        return at_promotion(resource, pools, servers, stable, before, candidate.failed, observed)
    return Standing(stable)


def _of_classes(failed: ByClass) -> str:
    return "; ".join(
        f"it has failed on {hardware} of pool {pool} ({why})"
        for pool, classes in failed.items()
        for hardware, why in classes.items()
    )[:1024]


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


def _pool(resource: EdgeDeployment, observed: Observed, pool: Pool, nodes: list[Node], idle: Rollout, asked: Asked,
          now: datetime, whose: Sequence[Node], late: bool = False) -> PoolState:  # fmt: skip
    revision = asked.revision
    proven = {*asked.classes.get(pool.name, ()), *_proven(resource, idle.benches, pool.name, nodes, asked)}
    if resource.spec.benchmark is None:
        proven |= {node.hardware for node in nodes if idle.servers.serves(pool.name, revision, node.name)}
    back = {node.name: name for node in whose if (name := idle.standing.expected(pool.name, node)) is not None}
    sets = {name: daemon_set_of(resource, observed, pool.name, name) for name in set(back.values())}
    there = {name: found for name, found in sets.items() if found is not None}
    incumbents = {node: name for node, name in back.items() if name in there}
    bound = daemon_set_of(resource, observed, pool.name, revision)
    all_of_them = {node.hostname for node in nodes}
    hosts = all_of_them - barred(bound, all_of_them) if late else admitted(bound)
    since = (bound["metadata"].get("annotations") or {}).get(ANNOTATION_ADMITTED) if bound is not None else None
    kept_from = {name: barred(found, all_of_them) for name, found in there.items()} if idle.stops_first else {}
    trial = Trial(resource, observed, idle.servers, idle.benches, pool, asked, incumbents, hosts, since, now, there,
                  kept_from, late)  # fmt: skip
    able = (node for node in whose if node.ready and (not node.pressed or trial.begun(node)))
    turns = {node.name: turn(trial, node, proven) for node in able}
    gone = (lost(trial, node) for node in whose if not node.ready and not late)
    turns |= {found.node.name: found for found in gone if found is not None}
    return PoolState(pool.name, nodes, turns, admitted=hosts)


def _proven(resource: EdgeDeployment, benches: Benches, pool: str, nodes: list[Node], asked: Asked) -> set[str]:
    """Hardware classes on enough nodes of which the revision has passed."""
    passed = Counter(
        node.hardware
        for node in nodes
        if (found := benches.of(pool, asked.revision, node)) is not None and found.verdict == "Passed"
    )
    enough = resource.spec.benchmark.nodes_per_class if resource.spec.benchmark is not None else 1
    return {hardware for hardware, count in passed.items() if count >= enough}
