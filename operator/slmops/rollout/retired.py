"""Revisions that are neither stable nor on trial any more, on the nodes that still have nothing better.

A candidate that failed or was overtaken, and a stable revision that was replaced while a node was away, go from a node
only once another server there is ready: to stop serving is worse than to serve what was good enough an hour ago.
"""

from dataclasses import dataclass

from slmops.api.edgedeployment import EdgeDeployment
from slmops.rollout.pods import condition, may_serve
from slmops.rollout.rollout import Rollout, daemon_set_of
from slmops.rollout.waves import PoolState
from slmops.state import LABEL_POOL, LABEL_REVISION, Manifest, Observed


@dataclass(frozen=True)
class Retired:
    """A pool's DaemonSet of such a revision."""

    pool: str
    daemon_set: Manifest
    hosts: set[str]
    """Host names where it has to stay for now; it goes when there are none."""


def retired(resource: EdgeDeployment, observed: Observed, rollout: Rollout) -> list[Retired]:
    """All of them, by name."""
    pools = {pool.name: pool for pool in rollout.pools}
    found = []
    for daemon_set in observed.of_kind("DaemonSet"):
        labels = daemon_set["metadata"].get("labels") or {}
        pool, revision = pools.get(labels.get(LABEL_POOL, "")), labels.get(LABEL_REVISION)
        if pool is None or revision is None or revision in (rollout.stays, rollout.on_trial):
            continue
        hosts = set()
        # What failed is not kept where nothing will take its place: in the first rollout ever, in a pool that is new.
        if revision not in resource.status.failed or _comes(resource, observed, rollout, pool):
            hosts = _needed(rollout, pool, revision)
        found.append(Retired(pool.name, daemon_set, hosts))
    return sorted(found, key=lambda item: str(item.daemon_set["metadata"]["name"]))


def _comes(resource: EdgeDeployment, observed: Observed, rollout: Rollout, pool: PoolState) -> bool:
    """Whether the pool has the stable revision, or gets it now."""
    wanted = rollout.wanted is not None and rollout.stays == rollout.wanted.name
    return wanted or daemon_set_of(resource, observed, pool.name, rollout.stays) is not None


def _needed(rollout: Rollout, pool: PoolState, revision: str) -> set[str]:
    """Host names of nodes that it serves and nobody else does."""
    hosts = set()
    for node in pool.nodes:
        pod = rollout.servers.get(pool.name, revision, node.name)
        if pod is None or not may_serve(pod):
            continue
        others = [rollout.servers.get(pool.name, name, node.name) for name in (rollout.stays, rollout.on_trial)]
        if not any(other is not None and condition(other, "Ready") for other in others):
            hosts.add(node.hostname)
    return hosts
