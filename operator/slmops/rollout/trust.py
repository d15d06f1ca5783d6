"""Whether a revision's images are signed: a Job looks, once for each revision, before any node has its turn.

What runs already goes on running whatever comes of it; nothing new begins unless it is good.
"""

from slmops.api.conditions import ConditionType
from slmops.api.edgedeployment import EdgeDeployment
from slmops.rollout.revision import Revision
from slmops.state import ANNOTATION_RETRY, JobState, Observed, Problem, digest8

VERIFY = "verify"
VERIFYING = "VerifyingSignature"


def job_name(resource: EdgeDeployment, revision: Revision) -> str | None:
    """The Job that looks; None where nothing has to be signed. Asked to try again, another one does."""
    wanted = resource.spec.model
    if wanted.verify is None:
        return None
    credentials = wanted.credentials.dump() if wanted.credentials else None
    retry = resource.metadata.annotations.get(ANNOTATION_RETRY)
    asked = [sorted(set(revision.images.values())), wanted.verify.dump(), credentials, retry]
    return f"{resource.metadata.name}-{VERIFY}-{digest8(asked)}"


def verification(resource: EdgeDeployment, observed: Observed, revision: Revision) -> JobState | None:
    """What has become of it; None where nothing has to be signed."""
    name = job_name(resource, revision)
    return observed.job(name) if name else None


def untrusted(resource: EdgeDeployment, observed: Observed, revision: Revision) -> Problem | None:
    """Why the revision may not begin. A Job that names no key is one of an image that knows nothing of signatures."""
    state = verification(resource, observed, revision)
    if state is None or (state.phase == "Succeeded" and state.report is not None and state.report.signer is not None):
        return None
    if state.failing:
        return _problem(state.reason, f"spec.model.verify: {state.message}")
    if state.phase == "Succeeded":
        return _problem("NotSigned", "spec.model.verify: the Job that looks for the signature did not say whose it is")
    return _problem(VERIFYING, "spec.model.verify: looking for the signature", waiting=True)


def _problem(reason: str, message: str, waiting: bool = False) -> Problem:
    return Problem(ConditionType.INPUTS_RESOLVED, reason, message, waiting)
