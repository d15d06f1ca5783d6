"""The wave that a rollout is in, as status tells it."""

from datetime import datetime

from slmops.api.conditions import moment, timestamp
from slmops.api.edgedeployment import EdgeDeployment
from slmops.api.fleet import WaveStatus
from slmops.figures import size
from slmops.rollout.rollout import Rollout
from slmops.rollout.waves import due_by, wave_seen


def wave_status(resource: EdgeDeployment, rollout: Rollout, now: datetime) -> WaveStatus | None:
    """Where it is; None where there is no rollout."""
    before = resource.status.wave
    if rollout.problem is not None or rollout.reason == "CandidateFailed":
        return before
    if rollout.candidate is None or rollout.decision == "Promote":
        return None
    waves = resource.spec.strategy.steps
    at, seen = None, wave_seen(resource, rollout.candidate)
    seen = seen if seen is not None and seen.index == rollout.wave + 1 else None
    if rollout.reason != "NoNodes" and all(pool.wave_done for pool in rollout.pools):
        before_at = seen.completed_at if seen else None
        at = before_at if moment(before_at) else timestamp(now)
    return WaveStatus(name=waves[rollout.wave].name, index=rollout.wave + 1, of=len(waves),
                      pulls=_pulls(resource, rollout), completed_at=at, approval=rollout.approval)  # fmt: skip


def _pulls(resource: EdgeDeployment, rollout: Rollout) -> str | None:
    """What the nodes that the wave adds pull at most; None where the size of an image is not known."""
    total, images = 0, rollout.wanted.images if rollout.wanted is not None else {}
    before = resource.status.stable.images if resource.status.stable is not None else {}
    for pool in rollout.pools:
        if images.get(pool.name) == before.get(pool.name):
            continue  # the server is another one, the model is there
        already = due_by(resource, pool, rollout.wave - 1) if rollout.wave else 0
        new = due_by(resource, pool, rollout.wave) - already
        if new and pool.name not in rollout.sizes:
            return None
        total += new * rollout.sizes.get(pool.name, 0)
    return size(total)
