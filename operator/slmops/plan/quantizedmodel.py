"""QuantizedModel -> one Job for each variant, all at once: a variant that fails does not take the others with it. Where
they are for several platforms, one more Job publishes an index of them."""

from slmops import contract
from slmops.api.conditions import ConditionType
from slmops.api.quantizedmodel import QuantizedModel, Variant
from slmops.plan.batch import batch_plan
from slmops.plan.evaluation import evaluation, task_of
from slmops.plan.job import Work, work
from slmops.plan.platforms import good_image, index_work
from slmops.plan.sources import Sources, Unresolved
from slmops.settings import Settings
from slmops.state import Observed, Plan, Problem


def role(variant: str) -> str:
    """Role of a variant's Job; long names are told apart by the Job name's hash."""
    return f"q-{variant[:8].rstrip('-')}"


def plan_quantizedmodel(resource: QuantizedModel, observed: Observed, settings: Settings) -> Plan:
    """The Jobs that the QuantizedModel needs."""
    names = [variant.name for variant in resource.spec.variants]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        message = f"spec.variants: the name {doubled[0]} is used twice; names tell variants apart"
        return Plan(problem=Problem(ConditionType.ACCEPTED, "DuplicateName", message))
    try:
        works = [_variant(resource, variant, observed, settings) for variant in resource.spec.variants]
        states = {name: observed.job(item.step.name) for name, item in zip(names, works, strict=True)}
        images = {name: image for name, state in states.items() if (image := good_image(resource, state))}
        if (index := index_work(resource, images, observed, settings)) is not None:
            works.append(index)
    except Unresolved as unresolved:
        return batch_plan(resource, observed, [], unresolved.problem)
    return batch_plan(resource, observed, works)


def _variant(resource: QuantizedModel, variant: Variant, observed: Observed, settings: Settings) -> Work:
    spec = resource.spec
    sources = Sources(observed)
    measured = None
    if spec.evaluation is not None and spec.evaluation.data is not None:
        measured = evaluation(spec.evaluation, spec.gates, task_of(spec.evaluation.data), sources)
    run = contract.QuantizeRun(
        run="",
        model=sources.model(spec.model, "spec.model"),
        name=resource.metadata.name,
        variant=variant.name,
        precision=variant.precision,
        algorithm=variant.algorithm,
        block_size=variant.block_size,
        symmetric=variant.symmetric,
        architecture=variant.target.architecture,
        generation=contract.Generation.model_validate(spec.generation.model_dump()),
        evaluation=measured,
        compression=spec.image.compression,
        output=sources.sink(spec.output),
    )
    return work(resource, role(variant.name), run, image=settings.images.quantizer, run_spec=spec.run, sources=sources,
                settings=settings)  # fmt: skip
