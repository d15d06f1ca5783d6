"""Signed: whether what was published, or is rolled out, is signed. Stated where that is asked for, and nowhere else."""

from collections.abc import Iterable

from slmops.api.conditions import ConditionType, Fact, false, true
from slmops.api.sources import Output
from slmops.state import SIGN, JobState, Observed, Step
from slmops.status.batch import stage
from slmops.status.remedies import with_remedy

NOT_SIGNED = "NotSigned"


def sign_state(steps: Iterable[Step], observed: Observed) -> JobState:
    """What has become of the Job that signs."""
    return next((observed.job(step.name) for step in steps if step.role == SIGN), JobState("Absent"))


def at_work(state: JobState) -> bool:
    """Whether it is what the resource is at now. Once all is signed, what was made is of more interest."""
    return state.phase not in ("Absent", "Succeeded")


def signed(output: Output, state: JobState) -> list[Fact]:
    """The condition of who publishes."""
    return [] if output.sign is None else [told(state, "Signed")]


def told(state: JobState, done: str, words: str = "") -> Fact:
    """The condition that the Job brings about. An image that knows nothing of signatures may say that it succeeded, too:
    that is not enough."""
    fact = stage(ConditionType.SIGNED, done, state)
    if fact.status != "True":
        return fact
    if state.report is None or state.report.signer is None:
        return false(ConditionType.SIGNED, NOT_SIGNED, with_remedy(NOT_SIGNED, "the Job named no signer"))
    return true(ConditionType.SIGNED, done, f"{words} {by(state.report.signer)}".strip())


def by(signer: str) -> str:
    """A signer of a report in words: a key by its fingerprint, an identity by its name and issuer."""
    return f"with the key {signer}" if signer.startswith("sha256:") else f"by {signer}"
