"""A rollout's Jobs that are about no node: they run wherever there is room, with what the pools' nodes may need."""

from slmops import contract
from slmops.api.edgedeployment import EdgeDeployment
from slmops.api.run import RunSpec
from slmops.api.sources import SecretKey
from slmops.plan.job import work
from slmops.plan.signing import RESOURCES
from slmops.plan.sources import Sources
from slmops.settings import Settings
from slmops.state import Manifest, Observed

DEADLINE = "10m"


def central_job(resource: EdgeDeployment, role: str, name: str, run: contract.Run, sources: Sources, observed: Observed,
                settings: Settings) -> list[Manifest]:  # fmt: skip
    """What is missing of it."""
    tolerations = list({t.model_dump_json(): t for pool in resource.spec.pools for t in pool.tolerations}.values())
    place = RunSpec(deadline=DEADLINE, resources=RESOURCES).model_copy(update={"tolerations": tolerations})
    made = work(resource, role, run, image=settings.images.bench, run_spec=place, sources=sources, settings=settings,
                name=name)  # fmt: skip
    return made.missing(observed)


def credentials_of(resource: EdgeDeployment, observed: Observed) -> SecretKey | None:
    """Of the registry: the spec's own, or those that the QuantizedModel has published with."""
    source = resource.spec.model
    if source.quantized_model is None:
        return source.credentials
    manifest = observed.references.get(("QuantizedModel", source.quantized_model.name)) or {}
    found = ((manifest.get("spec") or {}).get("output") or {}).get("credentials")
    return SecretKey.model_validate(found) if found else None
