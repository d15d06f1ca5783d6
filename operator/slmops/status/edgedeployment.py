"""The status of an EdgeDeployment: what runs, what is on trial, what was measured, how the last rollout ended."""

from dataclasses import replace
from datetime import datetime
from typing import Literal

from slmops.api.conditions import ConditionType, Fact, false, merge, timestamp, true, unknown
from slmops.api.edgedeployment import EdgeDeployment, EdgeDeploymentStatus
from slmops.api.fleet import OutcomeStatus, PoolStatus, RevisionStatus
from slmops.figures import size
from slmops.rollout.children import daemon_set_of
from slmops.rollout.evidence import evidence_job
from slmops.rollout.people import ABORT, APPROVE, PROMOTE, RETRY_FAILED, retries
from slmops.rollout.rollout import Rollout
from slmops.rollout.standing import ByClass
from slmops.rollout.trust import verification
from slmops.state import ANNOTATION_RETRY, JobState, Observed, Plan
from slmops.status.batch import intake, stage
from slmops.status.monitoring import monitoring_facts, monitoring_status
from slmops.status.pools import coarse, pool_status
from slmops.status.signing import told
from slmops.status.waves import wave_status

C = ConditionType
SHOWN = 5
"""Nodes of a pool whose steps are told one by one."""
RETRY_WORD = f"Set the annotation {RETRY_FAILED} to another word to try there again."
WAITING = ("ApprovalRequired", "OutsideWindow")
"""What the spec itself has asked to wait for."""


def edgedeployment_status(
    resource: EdgeDeployment, observed: Observed, plan: Plan, now: datetime
) -> EdgeDeploymentStatus:
    """The state of the fleet."""
    rollout = plan.detail
    assert isinstance(rollout, Rollout)
    if rollout.decision == "Promote" and plan.problem is not None:  # it was decided and could not be carried out
        rollout = replace(rollout, decision="Wait", reason=plan.problem.reason, message=plan.problem.message)
    before, said = resource.status, resource.metadata.annotations
    stable, candidate = rollout.stays, rollout.on_trial
    failed = list(before.failed)
    if rollout.decision == "RollBack" and candidate:
        failed = [*(name for name in failed if name != candidate), candidate][-10:]
        candidate = None
    shown = _revision(before.candidate, candidate, rollout, _images(resource, observed, rollout, candidate), now)
    if shown is not None:
        sizes = {pool: size(count) for pool, count in rollout.sizes.items()}
        shown = shown.model_copy(update={"failed": _left_failing(resource, rollout), "sizes": sizes})
    if rollout.problem is not None:
        shown = before.candidate  # it is where it was; what the spec asks for cannot be told now
    current = shown.revision if shown else stable
    pools = [pool_status(state, current, rollout) for state in rollout.pools]
    if shown is not None and before.candidate is not None and shown.revision == before.candidate.revision:
        known = {pool.name: pool for pool in before.pools}
        pools = [coarse(known.get(pool.name), pool, rollout) for pool in pools]
    outcome = _published(resource, observed, _outcome(before, rollout, now))
    monitoring = monitoring_status(resource, observed, plan, now)
    facts = [
        *intake(plan),
        *_signed(resource, observed, rollout),
        *_evidenced(resource, observed, outcome),
        *monitoring_facts(resource, monitoring),
        *_facts(rollout, pools, outcome),
    ]
    return EdgeDeploymentStatus(
        phase=_phase(rollout, facts),
        observed_generation=resource.metadata.generation,
        stable=_stable(resource, rollout, _images(resource, observed, rollout, stable), now),
        candidate=shown,
        history=_history(resource, stable),
        failed=failed,
        retry=before.retry if rollout.problem else said.get(ANNOTATION_RETRY, before.retry),
        retried=before.retried if rollout.problem else said.get(RETRY_FAILED),
        last_outcome=outcome,
        wave=wave_status(resource, rollout, now),
        choices=list(rollout.choices),
        activity=_activity(rollout),
        pools=pools,
        monitoring=monitoring,
        conditions=merge(before.conditions, facts, resource.metadata.generation, now),
    )


def _signed(resource: EdgeDeployment, observed: Observed, rollout: Rollout) -> list[Fact]:
    """Whether the wanted images are signed, where they have to be."""
    if resource.spec.model.verify is None:
        return []
    state = verification(resource, observed, rollout.wanted) if rollout.wanted is not None else None
    return [told(state or JobState("Absent"), "Verified", "the images are signed")]


def _published(resource: EdgeDeployment, observed: Observed, outcome: OutcomeStatus | None) -> OutcomeStatus | None:
    """The outcome with its evidence, once that is published."""
    name = evidence_job(resource)
    state = observed.job(name) if name is not None else JobState("Absent")
    if outcome is None or outcome != resource.status.last_outcome or state.phase != "Succeeded" or state.report is None:
        return outcome
    found = {pool: artifact.reference for pool, artifact in state.report.artifacts.items()}
    return outcome.model_copy(update={"evidence": found})


def _evidenced(resource: EdgeDeployment, observed: Observed, outcome: OutcomeStatus | None) -> list[Fact]:
    """Whether what the last verdict rests on is published, where that is asked for."""
    if resource.spec.evidence is None or outcome is None:
        return []
    if outcome.evidence:
        return [true(C.EVIDENCED, "Published", "; ".join(sorted(set(outcome.evidence.values()))))]
    name = evidence_job(resource)
    return [stage(C.EVIDENCED, "Published", observed.job(name))] if name is not None else []


def _facts(rollout: Rollout, pools: list[PoolStatus], outcome: OutcomeStatus | None) -> list[Fact]:
    facts: list[Fact] = []
    reason, text = rollout.reason, rollout.message
    bad_candidate = rollout.decision == "RollBack" or reason == "CandidateFailed"
    if reason == "CandidateFailed" and rollout.wanted and outcome and outcome.revision == rollout.wanted.name:
        reason, text = outcome.reason, outcome.message
    if rollout.problem is not None:
        facts.append(unknown(C.PROGRESSING, "Waiting", rollout.problem.message))
    elif bad_candidate:
        facts.append(false(C.PROGRESSING, reason, text))
    elif rollout.candidate is None or rollout.decision == "Promote":
        late = sum(bool(state.active) for state in rollout.pools)
        facts.append(true(C.PROGRESSING, "CatchingUp" if late else "Done"))
    elif rollout.decision == "Pause":
        way_on = f"{text}. {_way_on(rollout)}".strip()
        facts.append(
            unknown(C.PROGRESSING, reason, way_on) if reason in WAITING else false(C.PROGRESSING, reason, way_on)
        )
    else:
        facts.append(unknown(C.PROGRESSING, reason, text) if rollout.decision == "Wait"
                     else true(C.PROGRESSING, reason, text))  # fmt: skip
    verdicts = {c.verdict for pool in pools for c in pool.classes if c.verdict != "Pending"}
    facts.append(
        false(C.BENCHMARKED, "Failed", text) if "Failed" in verdicts
        else false(C.BENCHMARKED, "Inconclusive", text) if "Inconclusive" in verdicts
        else true(C.BENCHMARKED, "Passed") if "Passed" in verdicts
        else unknown(C.BENCHMARKED, "NotMeasured")
    )  # fmt: skip
    if bad_candidate:
        text = f"{text.rstrip('.')}. " if text else ""
        serves = "The stable revision serves. " if rollout.stays else ""
        way_on = "Change the spec, or set the annotation slmops.dev/retry to try again."
        facts.append(false(C.PROMOTED, reason, f"{text}{serves}{way_on}"))
    elif (rollout.candidate is None and rollout.problem is None) or rollout.decision == "Promote":
        facts.append(
            true(C.PROMOTED, "PromotedPartly", f"{text}. {RETRY_WORD}") if rollout.failing
            else true(C.PROMOTED, "Promoted")
        )  # fmt: skip
    else:
        facts.append(unknown(C.PROMOTED, reason or "Waiting", text))
    serving = sum(pool.nodes.ready for pool in pools)
    online = sum(pool.nodes.total - pool.nodes.offline for pool in pools)
    facts.append(
        unknown(C.READY, "NothingPromoted", "no revision has been promoted yet") if rollout.stays is None
        else unknown(C.READY, "NoNodes", "no node of the pools is Ready") if online == 0
        else true(C.READY, "Serving", f"{serving} of {online} nodes serve") if serving >= online
        else false(C.READY, "NodesNotServing", f"{serving} of {online} nodes serve")
    )  # fmt: skip
    return facts


def _way_on(rollout: Rollout) -> str:
    if rollout.reason == "Paused":
        return "Unset it to go on."
    if rollout.reason == "OutsideWindow":
        return "What has begun goes on."
    if rollout.approval is not None:
        return (f"To allow it, set the annotation {APPROVE}={rollout.approval}; to give the candidate up, "
                f"{ABORT}={rollout.candidate}.")  # fmt: skip
    return (f"Set the annotation {RETRY_FAILED} to another word to give the nodes another turn, {PROMOTE} or {ABORT} to "
            f"{rollout.candidate} to decide, or change the spec.")  # fmt: skip


def _phase(rollout: Rollout, facts: list[Fact]) -> str:
    if rollout.problem is not None:
        return "Pending"
    if rollout.decision == "RollBack" or rollout.reason == "CandidateFailed":
        return "Degraded"
    if rollout.decision == "Pause":
        return "Waiting" if rollout.reason in WAITING else "Paused"
    if rollout.candidate is not None and rollout.decision != "Promote":
        return "Progressing"
    if rollout.failing:
        return "Degraded"
    return "Ready" if facts[-1].status == "True" else "Degraded" if facts[-1].status == "False" else "Pending"


def _revision(before: RevisionStatus | None, name: str | None, rollout: Rollout, images: dict[str, str],
              now: datetime) -> RevisionStatus | None:  # fmt: skip
    if name is None or (before is not None and before.revision == name):
        return before if name is not None else None
    wanted = rollout.wanted if rollout.wanted is not None and rollout.wanted.name == name else None
    retry, choices = (wanted.retry, wanted.choices) if wanted is not None else (None, {})
    return RevisionStatus(revision=name, images=images, since=timestamp(now), retry=retry, choices=choices)


def _stable(resource: EdgeDeployment, rollout: Rollout, images: dict[str, str], now: datetime) -> RevisionStatus | None:
    """What nodes go back to, and where it has passed and failed."""
    found, standing = _revision(resource.status.stable, rollout.stays, rollout, images, now), rollout.standing
    if found is None:
        return None
    classes = {pool: sorted(passed) for pool, passed in sorted(standing.passed.items())}
    failed = standing.failed if rollout.candidate is not None else _left_failing(resource, rollout)
    return found.model_copy(update={"classes": classes, "behind": standing.behind, "failed": failed})


def _left_failing(resource: EdgeDeployment, rollout: Rollout) -> ByClass:
    """Where the revision that is tried has failed; nowhere any more where somebody wants it to be tried again."""
    return {} if retries(resource) and rollout.problem is None else rollout.failing


def _history(resource: EdgeDeployment, stable: str | None) -> list[RevisionStatus]:
    """What was stable before, the latest first."""
    before = resource.status
    left = [before.stable] if before.stable is not None and before.stable.revision != stable else []
    found = [known for known in [*left, *before.history] if known.revision != stable]
    return found[: resource.spec.rollback.keep]


def _images(resource: EdgeDeployment, observed: Observed, rollout: Rollout, name: str | None) -> dict[str, str]:
    """Model image by pool of a revision, by the DaemonSets where the spec does not ask for it (any more)."""
    if rollout.wanted is not None and rollout.wanted.name == name:
        return rollout.wanted.images
    return {
        pool.name: str(volume["image"].get("reference") or "")
        for pool in rollout.pools
        if (daemon_set := daemon_set_of(resource, observed, pool.name, name)) is not None
        for volume in daemon_set["spec"]["template"]["spec"].get("volumes") or []
        if volume.get("image")
    }


def _outcome(before: EdgeDeploymentStatus, rollout: Rollout, now: datetime) -> OutcomeStatus | None:
    outcome: Literal["Promoted", "FastPromoted", "RolledBack", "Aborted", "Superseded"] | None = None
    name, reason, message = rollout.candidate, rollout.reason, rollout.message
    former = before.candidate.revision if before.candidate is not None and rollout.problem is None else None
    if rollout.decision == "Promote":
        outcome = "FastPromoted" if rollout.known_good else "Promoted"
    elif rollout.decision == "RollBack":
        outcome = "Aborted" if reason == "Aborted" else "RolledBack"
    elif former is not None and former == rollout.stable:  # promoted by a pass that was cut off before it said so
        outcome, name, reason, message = "Promoted", former, "AllNodesPassed", ""
    elif former not in (None, rollout.candidate, *before.failed):
        outcome, name, reason, message = "Superseded", former, "SpecChanged", ""
    if outcome is None or name is None:
        return before.last_outcome
    same = before.last_outcome
    if same is not None and (same.outcome, same.revision) == (outcome, name):
        return same
    images = before.candidate.images if before.candidate is not None and before.candidate.revision == name else {}
    if rollout.wanted is not None and rollout.wanted.name == name:
        images = rollout.wanted.images
    return OutcomeStatus(
        outcome=outcome, revision=name, images=images, reason=reason, message=message[:2048], at=timestamp(now)
    )


def _activity(rollout: Rollout) -> str | None:
    if rollout.decision in ("RollBack", "Promote"):
        return None
    parts = []
    for pool in rollout.pools:
        turns = [pool.turns[node.name] for node in pool.active]
        if len(turns) > SHOWN:
            parts.append(f"{pool.name}: {', '.join(sorted({turn.step for turn in turns}))}")
            continue
        parts += [
            f"{turn.node.name}: {turn.step}" + (f" ({turn.message})" if turn.message and turn.step != "Failed" else "")
            for turn in turns
        ]
    return "; ".join(parts)[:512] or None
