"""Revisions that are neither stable nor on trial any more, on the nodes that still have nothing better.

A candidate that failed or was overtaken, and a stable revision that was replaced while a node was away, go from a node
only once another server there is ready: to stop serving is worse than to serve what was good enough an hour ago.
"""

from dataclasses import dataclass

from slmops.api.edgedeployment import EdgeDeployment
from slmops.rollout.children import daemon_set_of
from slmops.rollout.fleet import Node, pool_nodes
from slmops.rollout.pods import condition, gate_open
from slmops.rollout.rollout import Rollout
from slmops.rollout.standing import given_up
from slmops.rollout.waves import PoolState
from slmops.state import LABEL_POOL, LABEL_REVISION, Manifest, Observed


@dataclass(frozen=True)
class Retired:
    """A pool's DaemonSet of such a revision."""

    pool: str
    daemon_set: Manifest
    hosts: set[str]
    """Host names where it has to stay for now."""
    kept: bool
    """Whether nodes may yet go back to it; else it goes when it has to stay nowhere."""


def retired(resource: EdgeDeployment, observed: Observed, rollout: Rollout) -> list[Retired]:
    """All of them that pools have, by name."""
    pools = {pool.name: pool for pool in rollout.pools}
    found = []
    for daemon_set in observed.of_kind("DaemonSet"):
        labels = daemon_set["metadata"].get("labels") or {}
        pool, revision = pools.get(labels.get(LABEL_POOL, "")), labels.get(LABEL_REVISION)
        if pool is None or revision is None or revision in (rollout.stays, rollout.on_trial):
            continue
        own = [node for node in pool.nodes if rollout.standing.expected(pool.name, node) == revision]
        hosts = {node.hostname for node in own if not serves_alone(resource, rollout, pool, node)}
        # What failed is not kept where nothing will take its place: in the first rollout ever, in a pool that is new.
        if revision not in resource.status.failed or _comes(resource, observed, rollout, pool):
            hosts |= needed(rollout, pool, revision)
        found.append(Retired(pool.name, daemon_set, hosts, kept=bool(own)))
    return sorted(found, key=_name)


def bridging(given: EdgeDeployment, observed: Observed, rollout: Rollout) -> list[Retired]:
    """Those of pools that are no more, where nodes for which the spec has a server have no other yet, by name."""
    pools = {pool.name for pool in rollout.pools}
    sets = [
        d for d in observed.of_kind("DaemonSet") if (d["metadata"].get("labels") or {}).get(LABEL_POOL) not in pools
    ]
    if not sets:
        return []
    ready = set[str]().union(*(rollout.servers.ready(state.name) for state in rollout.pools))
    bare = [node for pool in given.spec.pools for node in pool_nodes(pool, observed.nodes) if node.name not in ready]
    found = []
    for daemon_set in sets:
        labels = daemon_set["metadata"].get("labels") or {}
        pool, revision = labels.get(LABEL_POOL, ""), labels.get(LABEL_REVISION)
        hosts = {node.hostname for node in bare if rollout.servers.serves(pool, revision, node.name)}
        found += [Retired(pool, daemon_set, hosts, kept=False)] if hosts else []
    return sorted(found, key=_name)


def _name(item: Retired) -> str:
    return str(item.daemon_set["metadata"]["name"])


def _comes(resource: EdgeDeployment, observed: Observed, rollout: Rollout, pool: PoolState) -> bool:
    """Whether the pool has the stable revision, or gets it now."""
    wanted = rollout.wanted is not None and rollout.stays == rollout.wanted.name
    return wanted or daemon_set_of(resource, observed, pool.name, rollout.stays) is not None


def serves_alone(resource: EdgeDeployment, rollout: Rollout, pool: PoolState, node: Node) -> bool:
    """Whether the revision that is tried serves on a node, and what was there before is not needed. A node that went away
    meanwhile stays as it is."""
    if rollout.decision == "RollBack" or (rollout.candidate and resource.spec.strategy.type == "BlueGreen"):
        return False
    if node.ready and node.name in pool.turns:
        return pool.turns[node.name].step == "Serving"
    if rollout.candidate is None or given_up(resource, rollout.failed, pool.name, node):
        return False
    pod = rollout.servers.get(pool.name, rollout.candidate, node.name)
    incumbent = rollout.servers.get(pool.name, rollout.standing.expected(pool.name, node), node.name)
    return pod is not None and incumbent is None and gate_open(pod)


def needed(rollout: Rollout, pool: PoolState, revision: str) -> set[str]:
    """Host names of nodes that it serves and nobody else does."""
    hosts = set()
    for node in pool.nodes:
        if not rollout.servers.serves(pool.name, revision, node.name):
            continue
        names = {rollout.stays, rollout.on_trial, rollout.standing.expected(pool.name, node)} - {revision}
        others = [rollout.servers.get(pool.name, name, node.name) for name in names]
        if not any(other is not None and (rollout.stops_first or condition(other, "Ready")) for other in others):
            hosts.add(node.hostname)
    return hosts
