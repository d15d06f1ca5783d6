"""The Job that signs what a resource has published, once all of it has passed its gates.

It is a Job of its own, so that the private key, or the token of an identity, is where no model and no data is read, a wrong
password costs no training, and a signature says that the gates let something pass.
"""

from collections.abc import Mapping
from typing import Any

from slmops import contract
from slmops.api.resource import Resource
from slmops.api.run import Resources, RunSpec
from slmops.api.sources import Output
from slmops.plan.job import Work, work
from slmops.plan.sources import Sources
from slmops.settings import Settings
from slmops.state import SIGN, Observed

RESOURCES = Resources(requests={"cpu": "100m", "memory": "128Mi"}, limits={"memory": "512Mi"})
"""To open a key as cosign encrypts it takes up to 128 MiB; without a key some 75 MB."""
OWN = {"resources", "runtime_class_name", "image"}
"""What of a run's settings is meant for the work itself."""


DESCRIBED = ("dataset", "adapter", "model", "image")
"""Names in a report of what has documents. What is published beside it (logs, pages, layers) is not signed."""


def published(*reports: contract.Report) -> dict[str, contract.Artifact]:
    """What is to be signed of what the runs made."""
    return {name: report.artifacts[name] for report in reports for name in DESCRIBED if name in report.artifacts}


def signing(
    resource: Resource[Any, Any], artifacts: Mapping[str, contract.Artifact], output: Output, run_spec: RunSpec,
    settings: Settings,
) -> list[Work]:  # fmt: skip
    """The Job, where signatures are asked for and there is something to sign."""
    if output.sign is None or not artifacts:
        return []
    sources = Sources(Observed())
    run = contract.SignRun(
        run="", artifacts=dict(artifacts), output=sources.sink(output), **sources.signing(output.sign)
    )
    place = RunSpec.model_validate(run_spec.model_dump(exclude=OWN)).model_copy(update={"resources": RESOURCES})
    return [work(resource, SIGN, run, image=settings.images.bench, run_spec=place, sources=sources, settings=settings)]
