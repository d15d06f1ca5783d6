"""The Job that publishes what a verdict rests on, beside the model image. It holds nothing up: the verdict stands."""

from slmops import contract
from slmops.api.edgedeployment import EdgeDeployment
from slmops.plan.central import central_job, credentials_of
from slmops.plan.sources import REGISTRY_KEY, Sources
from slmops.rollout.evidence import EVIDENCE, document, evidence_job
from slmops.rollout.rollout import Rollout
from slmops.settings import Settings
from slmops.state import Manifest, Observed


def evidence(resource: EdgeDeployment, rollout: Rollout, observed: Observed, settings: Settings) -> list[Manifest]:
    """What is missing of it. Made once: its document is of the moment of the verdict."""
    name, wanted, outcome = evidence_job(resource), resource.spec.evidence, resource.status.last_outcome
    if name is None or wanted is None or outcome is None or observed.child("Job", name) is not None:
        return []
    sources = Sources(observed)
    credentials = wanted.credentials or credentials_of(resource, observed)
    access = sources.credentials(credentials, REGISTRY_KEY)
    run = contract.EvidenceRun(
        run="", images=outcome.images, document=document(resource, observed, rollout), credentials=access,
        **(sources.signing(wanted.sign) if wanted.sign is not None else {}),
    )  # fmt: skip
    return central_job(resource, EVIDENCE, name, run, sources, observed, settings)
