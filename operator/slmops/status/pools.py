"""The status of a pool: how many nodes have what, and what was measured on each hardware class."""

from collections.abc import Mapping

from slmops.api.fleet import MAX_CLASSES, ClassStatus, NodeCounts, PoolStatus
from slmops.contract import Statistics
from slmops.rollout.benches import Benches
from slmops.rollout.fleet import Node
from slmops.rollout.rollout import Rollout
from slmops.rollout.verdict import figures
from slmops.rollout.waves import PoolState

RANK = {"Failed": 3, "Inconclusive": 2, "Passed": 1, "Pending": 0}


def coarse(before: PoolStatus | None, now: PoolStatus, rollout: Rollout) -> PoolStatus:
    """A pool's counts in the midst of a rollout: written when a twentieth of its nodes is another, so that a fleet of
    thousands is as many writes as one of tens."""
    if before is None or rollout.decision != "Proceed":
        return now
    old, new = before.nodes, now.nodes
    apart = max(abs(getattr(new, name) - getattr(old, name)) for name in ("updated", "ready", "behind"))
    same = all(getattr(old, name) == getattr(new, name) for name in ("total", "offline", "pressed", "failed"))
    return now.model_copy(update={"nodes": old}) if same and 0 < apart < new.total / 20 else now


def pool_status(state: PoolState, current: str | None, rollout: Rollout) -> PoolStatus:
    """The status of a pool; ``current`` is the revision that is counted as updated."""
    serving = rollout.servers.ready(state.name)
    found = [serving.get(node.name, set()) if node.ready else set() for node in state.nodes]
    offline = sum(not node.ready for node in state.nodes)
    judged = rollout.wanted.name if rollout.wanted is not None else rollout.stable
    return PoolStatus(
        name=state.name,
        nodes=NodeCounts(
            total=len(state.nodes), updated=sum(current in revisions for revisions in found),
            ready=sum(bool(revisions) for revisions in found), offline=offline,
            pressed=sum(node.ready and node.pressed for node in state.nodes) or None,
            behind=sum(not rollout.servers.serves(state.name, current, node.name) for node in state.nodes),
            failed=sum(turn.own for turn in state.turns.values()) or None,
        ),
        classes=_classes(rollout.benches, state, judged, rollout.failing.get(state.name, {})),
    )  # fmt: skip


def _classes(benches: Benches, state: PoolState, revision: str | None, failed: Mapping[str, str]) -> list[ClassStatus]:
    members: dict[str, list[Node]] = {}
    for node in state.nodes:
        members.setdefault(node.hardware, []).append(node)
    found = [_class(benches, state.name, name, nodes, revision) for name, nodes in members.items()]
    found = [each.model_copy(update={"verdict": "Failed"}) if each.name in failed else each for each in found]
    worst = sorted(found, key=lambda c: (-RANK[c.verdict], c.name))[:MAX_CLASSES]
    return sorted(worst, key=lambda c: c.name)


def _class(benches: Benches, pool: str, name: str, nodes: list[Node], revision: str | None) -> ClassStatus:
    """What was measured on the class, its worst verdict first."""
    best = ClassStatus(name=name, nodes=len(nodes), verdict="Pending")
    for node in nodes:
        found = benches.of(pool, revision, node) if revision else None
        if found is None or found.verdict is None or RANK[found.verdict] <= RANK[best.verdict]:
            continue
        shown = {k: figures(v) for k, v in found.report.targets.items()} if found.report else {}
        spoiled = (found.report and found.report.statistics) or Statistics()
        best = ClassStatus(name=name, nodes=len(nodes), verdict=found.verdict, node=node.name, figures=shown,
                           noise=spoiled.noise, disturbances=list(spoiled.disturbances), gates=found.gates)  # fmt: skip
    return best
