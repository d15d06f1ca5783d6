"""The Job that looks whether the images of a rollout are signed. It runs wherever there is room: no node pulls anything
before it has succeeded."""

from slmops import contract
from slmops.api.edgedeployment import EdgeDeployment
from slmops.api.run import RunSpec
from slmops.api.sources import SecretKey
from slmops.plan.job import work
from slmops.plan.signing import RESOURCES
from slmops.plan.sources import REGISTRY_KEY, Sources
from slmops.rollout.revision import Revision
from slmops.rollout.trust import VERIFY, job_name
from slmops.settings import Settings
from slmops.state import Manifest, Observed

DEADLINE = "10m"


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
    tolerations = list({t.model_dump_json(): t for pool in resource.spec.pools for t in pool.tolerations}.values())
    place = RunSpec(deadline=DEADLINE, resources=RESOURCES).model_copy(update={"tolerations": tolerations})
    made = work(resource, VERIFY, run, image=settings.images.bench, run_spec=place, sources=sources, settings=settings,
                name=name)  # fmt: skip
    return [item for item in (*made.before, made.job) if observed.child(item["kind"], name) is None]


def credentials_of(resource: EdgeDeployment, observed: Observed) -> SecretKey | None:
    """Of the registry: the spec's own, or those that the QuantizedModel has published with."""
    source = resource.spec.model
    if source.quantized_model is None:
        return source.credentials
    manifest = observed.references.get(("QuantizedModel", source.quantized_model.name)) or {}
    found = ((manifest.get("spec") or {}).get("output") or {}).get("credentials")
    return SecretKey.model_validate(found) if found else None
