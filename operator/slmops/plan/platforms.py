"""Variants for several platforms -> a last Job that publishes an index of them."""

from collections.abc import Mapping

from slmops import contract
from slmops.api.quantizedmodel import QuantizedModel, Variant
from slmops.api.run import RunSpec
from slmops.figures import evaluation, quality_gates
from slmops.plan.job import Work, work
from slmops.plan.sources import Sources
from slmops.settings import Settings
from slmops.state import JobState, Observed

INDEX = "index"
"""Role of the Job."""


def index_work(
    resource: QuantizedModel, images: Mapping[str, contract.Artifact], observed: Observed, settings: Settings
) -> Work | None:
    """The Job, once all variants are there, by name, that are good enough. None as long as they are not, and where one
    platform is all there is: nobody could tell its variants apart by it. It moves no weights, so it gets no GPU."""
    spec = resource.spec
    if len({variant.target.architecture for variant in spec.variants}) < 2 or len(images) < len(spec.variants):
        return None
    sources = Sources(observed)
    run = contract.IndexRun(
        run="", variants=tuple(_built(variant, images, resource, sources) for variant in spec.variants),
        output=sources.sink(spec.output),
    )  # fmt: skip
    place = RunSpec.model_validate(spec.run.model_dump(exclude={"resources", "runtime_class_name"}))
    return work(resource, INDEX, run, image=settings.images.quantizer, run_spec=place, sources=sources,
                settings=settings)  # fmt: skip


def good_image(resource: QuantizedModel, state: JobState) -> contract.Artifact | None:
    """The image of a variant, once its Job has made it and all gates have passed."""
    if state.phase != "Succeeded" or state.report is None:
        return None
    gates = quality_gates(resource.spec.gates, evaluation(state.report.evaluation, ("reference",)))
    return state.report.artifacts.get("image") if all(gate.outcome == "Passed" for gate in gates) else None


def _built(
    variant: Variant, images: Mapping[str, contract.Artifact], resource: QuantizedModel, sources: Sources
) -> contract.Built:
    image = sources.own(images[variant.name], resource.spec.output)
    return contract.Built(name=variant.name, image=image, architecture=variant.target.architecture)
