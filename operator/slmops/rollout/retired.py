"""Revisions that are neither stable nor on trial any more, on the nodes that still have nothing better.

A candidate that failed or was overtaken, and a stable revision that was replaced while a node was away, go from a node
only once another server there is ready: to stop serving is worse than to serve what was good enough an hour ago.
"""

from dataclasses import dataclass

from slmops.api.edgedeployment import EdgeDeployment
from slmops.rollout.pods import condition, may_serve
from slmops.rollout.rollout import PoolState, Rollout
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
        hosts = _needed(resource, rollout, pool, revision)
        found.append(Retired(pool.name, daemon_set, hosts))
    return sorted(found, key=lambda item: str(item.daemon_set["metadata"]["name"]))


def _needed(resource: EdgeDeployment, rollout: Rollout, pool: PoolState, revision: str) -> set[str]:
    if rollout.stays is None and revision in resource.status.failed:
        return set()  # nothing will take its place, and what failed is not kept for that
    hosts = set()
    for node in pool.nodes:
        pod = rollout.servers.get(pool.name, revision, node.name)
        if pod is None or not may_serve(pod):
            continue
        others = [rollout.servers.get(pool.name, name, node.name) for name in (rollout.stays, rollout.on_trial)]
        if not any(other is not None and condition(other, "Ready") for other in others):
            hosts.add(node.hostname)
    return hosts
