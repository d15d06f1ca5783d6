"""Variants for several platforms -> a last Job that publishes an index of them."""

from collections.abc import Mapping, Sequence

from slmops import contract
from slmops.api.quantizedmodel import QuantizedModel
from slmops.api.run import RunSpec
from slmops.api.variant import Variant
from slmops.ladder import INDEX, Climb
from slmops.plan.job import Work, work
from slmops.plan.sources import Sources
from slmops.settings import Settings
from slmops.state import Observed


def index_work(
    resource: QuantizedModel, climbs: Sequence[Climb], observed: Observed, settings: Settings
) -> Work | None:
    """The Job, once all variants are there that are good enough. None as long as they are not, and where one platform is
    all there is: nobody could tell its variants apart by it. It moves no weights, so it gets no GPU."""
    spec = resource.spec
    images = {c.now.variant.name: image for c in climbs if c.now.passed and (image := c.now.image) is not None}
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


def _built(
    variant: Variant, images: Mapping[str, contract.Artifact], resource: QuantizedModel, sources: Sources
) -> contract.Built:
    image = sources.own(images[variant.name], resource.spec.output)
    return contract.Built(name=variant.name, image=image, architecture=variant.target.architecture)
