"""A pool's DaemonSets, and on which of its nodes each has servers: it is said by host name alone."""

from collections.abc import Collection
from datetime import datetime

from slmops.api.conditions import moment, timestamp
from slmops.api.edgedeployment import EdgeDeployment, Pool
from slmops.plan.serving import NOWHERE, bound, config_map, daemon_set
from slmops.rollout.children import barred, daemon_set_of
from slmops.rollout.fleet import Node
from slmops.rollout.retired import needed, serves_alone
from slmops.rollout.rollout import Rollout
from slmops.rollout.standing import given_up
from slmops.rollout.turns import Turn, compares
from slmops.rollout.waves import PoolState
from slmops.settings import Settings
from slmops.state import ANNOTATION_ADMITTED, Manifest, Observed

RESTS = ("Waiting", "Failed", "Inconclusive")
"""Steps at which a node has what it had."""
WATCH_SECONDS = 10.0
"""How often a rollout under way is looked at without an event: deadlines pass silently."""


def begun_turns(state: PoolState, rollout: Rollout) -> list[Turn]:
    """The turns to work on: on a pause only those that have begun."""
    turns = [state.turns[node.name] for node in state.active]
    return [turn for turn in turns if turn.step != "Waiting"] if rollout.decision == "Pause" else turns


def servers(resource: EdgeDeployment, pool: Pool, state: PoolState, rollout: Rollout, observed: Observed,
            settings: Settings, leaves: Collection[str], now: datetime) -> list[Manifest]:  # fmt: skip
    """The DaemonSets of the revision that stays and of the one on trial, with their configurations. A candidate's servers
    come before the stable ones go, but on host names that the one before ``leaves``."""
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
    names = (rollout.candidate, rollout.stable)
    mine, live = (daemon_set_of(resource, observed, pool.name, name) for name in names)
    taken: set[str] = set()
    if rollout.candidate is not None:
        hosts = state.admitted & {node.hostname for node in state.nodes}
        taken = {node.hostname for node in state.nodes if serves_alone(resource, rollout, state, node)}
        if not _due(state, rollout, mine, now):
            taken &= barred(live, taken)
        if rollout.decision != "RollBack":
            begins = begun_turns(state, rollout)
            taken |= set(leaves)
            single = [turn for turn in state.turns.values() if turn.stops]
            # While a person is asked, such a node has the server that it had.
            hosts -= {turn.node.hostname for turn in single if turn.step == "Inconclusive"}
            left = {n.hostname for n in state.nodes if given_up(resource, rollout.failed, state.name, n)}
            hosts -= left - _given_back(rollout, state, rollout.candidate)
            hosts |= {turn.node.hostname for turn in begins if _comes(turn)}
        if hosts or mine is not None:  # also where it has to go from the last of them
            made = daemon_set(
                resource, pool, wanted, settings, track="candidate", only=hosts or NOWHERE, gated=_unknown(state, hosts)
            )
            out += [config_map(resource, pool, wanted), _admitting(made, mine, hosts <= state.admitted, now)]
    if live is not None:
        out.append(bound(live, pool, "stable", excluded=taken | _kept_from(resource, state, rollout)))
    return out


def stopped(resource: EdgeDeployment, state: PoolState, rollout: Rollout) -> set[str]:
    """Host names of nodes that hold one server and lose it now, or have lost it, so that the candidate's can come.

    One whose turn does not go on, since others come first or a person is asked, has it back: nobody knows for how long.
    """
    if not rollout.stops_first or rollout.candidate is None or rollout.decision in ("RollBack", "Promote"):
        return set()
    begins = begun_turns(state, rollout)
    going = {turn.node.hostname for turn in begins} | state.admitted
    single = [turn for turn in state.turns.values() if turn.stops and turn.step not in (*RESTS, "MeasuringStable")]
    return {turn.node.hostname for turn in single if turn.node.hostname in going} | {
        turn.node.hostname for turn in begins if _stops_now(resource, turn)
    }


def _due(state: PoolState, rollout: Rollout, live: Manifest | None, now: datetime) -> bool:
    """Whether the stable servers go from nodes that they are not needed on any more: together with the next nodes' turn,
    so that a fleet's nodes cost as few writes as its batches, or after a while where others keep that waiting."""
    begun = begun_turns(state, rollout)
    if not begun or any(_comes(turn) and turn.node.hostname not in state.admitted for turn in begun):
        return True
    at = moment(((live or {}).get("metadata", {}).get("annotations") or {}).get(ANNOTATION_ADMITTED))
    return at is None or (now - at).total_seconds() >= WATCH_SECONDS


def _comes(turn: Turn) -> bool:
    """Whether a node gets the candidate's server now: its image was pulled, or no Job is needed for that."""
    return turn.step == "Starting" or (turn.step == ("Stopped" if turn.stops else "Waiting") and turn.known)


def _stops_now(resource: EdgeDeployment, turn: Turn) -> bool:
    """Whether a node whose turn begins loses its stable server with that: nobody has to measure it before."""
    return turn.stops and turn.step == "Waiting" and not compares(resource, turn)


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
    # Before it went away, or before there was a candidate.
    return rollout.servers.serves(state.name, rollout.stays, node.name)


def _given_back(rollout: Rollout, state: PoolState, revision: str | None) -> set[str]:
    """Host names of nodes that a revision which they are to lose still serves, until what they go back to is ready."""
    back = {n.hostname for n in state.nodes if rollout.standing.expected(state.name, n) is not None}
    return back & needed(rollout, state, str(revision)) if revision else set()
