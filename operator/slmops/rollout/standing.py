"""On which hardware a revision may serve, and what the rest keeps.

A revision that was promoted has passed on the classes that were there. A node of another class, one that was away or that
is new, gets it once it has passed there as well; until then the node keeps what it has. So does a class on which it failed,
where the strategy lets classes or pools fail alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from slmops.api.edgedeployment import EdgeDeployment
from slmops.api.fleet import MAX_CLASSES, RevisionStatus
from slmops.rollout.children import daemon_set_of
from slmops.rollout.fleet import Node
from slmops.rollout.pods import Servers
from slmops.rollout.waves import PoolState
from slmops.state import Observed

ByClass = Mapping[str, Mapping[str, str]]
"""Pool, hardware class, and something about it."""


@dataclass(frozen=True)
class Standing:
    """What is known of a revision that was promoted."""

    revision: str | None
    passed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Classes that get it, by pool; a pool that is not named gets it everywhere."""
    behind: ByClass = field(default_factory=dict)
    """The revision that other classes keep."""
    failed: ByClass = field(default_factory=dict)
    """Classes on which it has failed, and why."""

    def expected(self, pool: str, node: Node) -> str | None:
        """The revision that a node gets; None where it gets none yet."""
        if pool not in self.passed or node.hardware in self.passed[pool]:
            return self.revision
        return self.behind.get(pool, {}).get(node.hardware)

    def held(self, pool: str, node: Node) -> bool:
        """Whether a node does not get the revision yet."""
        return pool in self.passed and node.hardware not in self.passed[pool]

    def with_passed(self, pool: str, classes: Iterable[str]) -> "Standing":
        """The same, with more classes of a pool."""
        return replace(self, passed={**self.passed, pool: self.passed[pool] | set(classes)})


def recorded(known: RevisionStatus) -> Standing:
    """What the status says."""
    passed = {pool: frozenset(found) for pool, found in known.classes.items()}
    return Standing(known.revision, passed, known.behind, known.failed)


def at_promotion(resource: EdgeDeployment, pools: Iterable[PoolState], servers: Servers, revision: str,
                 before: Standing, failed: ByClass, observed: Observed) -> Standing:  # fmt: skip
    """The standing of a revision that is promoted: it has passed wherever it serves, and where it did so once. The rest
    keeps what its pool has a DaemonSet of."""
    if resource.spec.benchmark is None and resource.spec.strategy.promotion_scope == "All":
        return Standing(revision)
    known = next((former.classes for former in resource.status.history if former.revision == revision), {})
    passed, behind = {}, {}
    for pool in pools:
        serve = {node.hardware for node in pool.nodes if servers.serves(pool.name, revision, node.name)}
        whole = resource.spec.strategy.promotion_scope == "Pool" and pool.name in failed
        found = (
            frozenset() if whole else frozenset({*known.get(pool.name, ()), *serve} - set(failed.get(pool.name, {})))
        )
        if len(found) > MAX_CLASSES:
            continue  # too many to be remembered: every node counts as any other
        passed[pool.name] = found
        rest = {n.hardware: before.expected(pool.name, n) for n in pool.nodes if n.hardware not in found}
        behind[pool.name] = {
            hardware: name
            for hardware, name in sorted(rest.items())
            if name and daemon_set_of(resource, observed, pool.name, name)
        }
    return Standing(revision, passed, {pool: found for pool, found in behind.items() if found}, failed)


def given_up(resource: EdgeDeployment, failed: ByClass, pool: str, node: Node) -> bool:
    """Whether a revision that has failed on these classes is not tried on a node."""
    found = failed.get(pool, {})
    return bool(found) if resource.spec.strategy.promotion_scope == "Pool" else node.hardware in found


def group(resource: EdgeDeployment, pool: str, node: Node) -> tuple[str, ...]:
    """Who fails together with a node."""
    scope = resource.spec.strategy.promotion_scope
    return {"All": (), "Pool": (pool,)}.get(scope, (pool, node.hardware))
