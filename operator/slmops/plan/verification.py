"""The Job that looks whether the images of a rollout are signed. It runs wherever there is room: no node pulls anything
before it has succeeded."""

from slmops import contract
from slmops.api.edgedeployment import EdgeDeployment
from slmops.plan.central import central_job, credentials_of
from slmops.plan.sources import REGISTRY_KEY, Sources
from slmops.rollout.revision import Revision
from slmops.rollout.trust import VERIFY, job_name
from slmops.settings import Settings
from slmops.state import Manifest, Observed


def verification(
    resource: EdgeDeployment, revision: Revision, observed: Observed, settings: Settings
) -> list[Manifest]:
    """What is missing of it."""
    name, wanted = job_name(resource, revision), resource.spec.model.verify
    if name is None or wanted is None or observed.job(name).finished:
        return []
    sources = Sources(observed)
    verify = sources.verification(wanted)
    credentials = sources.credentials(credentials_of(resource, observed), REGISTRY_KEY)
    pools = {image: pool for pool, image in reversed(revision.images.items())}  # an image is looked at once
    run = contract.VerifyRun(
        run="",
        images={
            pool: contract.Source(uri=f"oci://{image}", credentials=credentials, verify=verify)
            for image, pool in pools.items()
        },
    )
    return central_job(resource, VERIFY, name, run, sources, observed, settings)
