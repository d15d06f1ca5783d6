"""What people say of a rollout, by annotations: each names the candidate that it is about, so that none holds for another.

- ``slmops.dev/approve: REVISION/WAVE`` allows a wave, and those before it.
- ``slmops.dev/promote: REVISION`` takes on oneself what waits for a person or the clock: approvals, soaks, the window, and
  doubts of the benchmark. What failed has failed.
- ``slmops.dev/abort: REVISION`` gives the nodes back.
- ``slmops.dev/rollback: REVISION/FORMER`` has the former revision stand for the one that the spec asks for.
- ``slmops.dev/retry-failed: WORD`` gives nodes that failed or are in doubt another turn, once for each word.

Who may write the first two is for the verb ``approve`` to say: the chart has a policy.
"""

from slmops.api.edgedeployment import EdgeDeployment

APPROVE = "slmops.dev/approve"
PROMOTE = "slmops.dev/promote"
ABORT = "slmops.dev/abort"
ROLLBACK = "slmops.dev/rollback"
RETRY_FAILED = "slmops.dev/retry-failed"


def aborted(resource: EdgeDeployment, revision: str) -> bool:
    """Whether somebody wants the candidate to go."""
    return resource.metadata.annotations.get(ABORT) == revision


def rolled_back(resource: EdgeDeployment, revision: str) -> str | None:
    """The former revision that somebody wants instead of what the spec asks for."""
    asked, _, former = resource.metadata.annotations.get(ROLLBACK, "").partition("/")
    return former if asked == revision and former != revision else None


def in_full(resource: EdgeDeployment, revision: str) -> bool:
    """Whether somebody wants the candidate everywhere without more ado."""
    return resource.metadata.annotations.get(PROMOTE) == revision


def approval(resource: EdgeDeployment, revision: str, wave: int) -> str | None:
    """What the annotation has to say before a wave may begin; None where it may."""
    waves = resource.spec.strategy.steps
    if waves[wave].approval is None:
        return None
    said = resource.metadata.annotations.get(APPROVE, "")
    allowed = [f"{revision}/{later.name}" for later in waves[wave:]]
    return None if said in allowed else allowed[0]


def retries(resource: EdgeDeployment) -> bool:
    """Whether the nodes that failed are to have another turn."""
    asked = resource.metadata.annotations.get(RETRY_FAILED)
    return asked is not None and asked != resource.status.retried
