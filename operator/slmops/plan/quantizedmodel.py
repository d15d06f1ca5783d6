"""QuantizedModel -> one Job for each variant, all at once: a variant that fails does not take the others with it. One that
is not good enough gets another Job in the next precision. Once all are built, one more Job lays them side by side, one
publishes an index where they are for several platforms, and one signs.
"""

from collections.abc import Sequence
from dataclasses import replace

from slmops import contract
from slmops.api.conditions import ConditionType
from slmops.api.quantizedmodel import QuantizedModel
from slmops.api.run import RunSpec
from slmops.api.variant import CALIBRATED, Variant
from slmops.ladder import COMPARE, Climb, comparison, forms, rung, wanting
from slmops.plan.backends import unavailable
from slmops.plan.batch import batch_plan
from slmops.plan.evaluation import evaluation, task_of
from slmops.plan.job import Work, work
from slmops.plan.platforms import index_work
from slmops.plan.signing import signing
from slmops.plan.sources import Sources, Unresolved
from slmops.settings import Settings
from slmops.state import Observed, Plan, Problem


def role(variant: str) -> str:
    """Role of a variant's Job; long names are told apart by the Job name's hash."""
    return f"q-{variant[:8].rstrip('-')}"


def plan_quantizedmodel(resource: QuantizedModel, observed: Observed, settings: Settings) -> Plan:
    """The Jobs that the QuantizedModel needs."""
    for what, named in (("variants", resource.spec.variants), ("adapters", resource.spec.adapters)):
        names = [each.name for each in named]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            message = f"spec.{what}: the name {doubled[0]} is used twice; names tell {what} apart"
            return Plan(problem=Problem(ConditionType.ACCEPTED, "DuplicateName", message))
    works: list[Work] = []
    climbs: list[Climb] = []
    try:
        for variant in resource.spec.variants:
            own, climb = _climb(resource, variant, observed, settings)
            works += own
            climbs.append(climb)
        if (side_by_side := _compare(resource, climbs, observed, settings)) is not None:
            works.append(side_by_side)
        if (index := index_work(resource, climbs, observed, settings)) is not None:
            works.append(index)
        works += _signing(resource, climbs, index, observed, settings)
    except Unresolved as unresolved:
        return batch_plan(resource, observed, [], unavailable(resource.spec.variants, settings) or unresolved.problem)
    # What has been begun, or is done, needs no tool chain any more.
    new = [climb.now.variant for climb in climbs if not observed.child("Job", climb.now.job)]
    if problem := unavailable(new, settings):
        return batch_plan(resource, observed, [], problem)
    past = {rung.job for climb in climbs for rung in climb.rungs[:-1]}
    return replace(batch_plan(resource, observed, works, settled=past), detail=tuple(climbs))


def _climb(
    resource: QuantizedModel, variant: Variant, observed: Observed, settings: Settings
) -> tuple[list[Work], Climb]:
    """The Jobs of the precisions so far: the next one is tried when the one before is done and not good enough."""
    works, rungs, gates = [], [], resource.spec.gates
    for form in forms(resource.spec, variant):
        item = _variant(resource, form, observed, settings)
        works.append(item)
        rungs.append(rung(form, item.step.name, observed.job(item.step.name), gates))
        if not wanting(rungs[-1], gates):
            break
    return works, Climb(tuple(rungs))


def _compare(resource: QuantizedModel, climbs: Sequence[Climb], observed: Observed, settings: Settings) -> Work | None:
    """The Job that lays them side by side, once all are built and there is something to compare. It computes nothing, so it
    gets no GPU."""
    measure, rows = comparison(climbs)
    if len(rows) < 2 or not all(climb.now.state.finished for climb in climbs):
        return None
    spec, sources = resource.spec, Sources(observed)
    run = contract.CompareRun(run="", measure=measure, rows=rows, output=sources.sink(spec.output))
    place = RunSpec.model_validate(spec.run.model_dump(exclude={"resources", "runtime_class_name"}))
    return work(resource, COMPARE, run, image=settings.images.trainer, run_spec=place, sources=sources,
                settings=settings)  # fmt: skip


def _signing(
    resource: QuantizedModel, climbs: Sequence[Climb], index: Work | None, observed: Observed, settings: Settings
) -> list[Work]:
    """The Job that signs the images which passed their gates, and their index, once no variant is to come any more. One
    that failed does not keep the others from being signed, nor from being rolled out."""
    last = [observed.job(index.step.name)] if index is not None else []
    if not all(state.finished for state in [*last, *(climb.now.state for climb in climbs)]):
        return []
    made = {f"image.{c.now.variant.name}": image for c in climbs if c.now.passed and (image := c.now.image) is not None}
    made |= {name: found for state in last if state.report for name, found in state.report.artifacts.items()}
    return signing(resource, made, resource.spec.output, resource.spec.run, settings)


def _variant(resource: QuantizedModel, variant: Variant, observed: Observed, settings: Settings) -> Work:
    spec = resource.spec
    sources = Sources(observed)
    measured = None
    if spec.evaluation is not None and spec.evaluation.data is not None:
        measured = evaluation(spec.evaluation, spec.gates, task_of(spec.evaluation.data), sources)
    calibration = None
    prune = spec.compress.prune if spec.compress else None
    watched = variant.algorithm in CALIBRATED or (prune is not None and prune.method == "Wanda")
    if spec.calibration is not None and watched:
        calibration = contract.Calibration(
            data=sources.data(spec.calibration.data),
            samples=spec.calibration.samples,
            max_sequence_length=spec.calibration.max_sequence_length,
        )
    run = contract.QuantizeRun(
        run="",
        model=sources.model(spec.model, "spec.model"),
        adapters={
            each.name: sources.adapter(each, f"spec.adapters[{each.name}]")
            for each in sorted(spec.adapters, key=lambda each: each.name)
        },
        name=resource.metadata.name,
        variant=variant.name,
        format=variant.format,
        precision=variant.precision,
        algorithm=variant.algorithm,
        block_size=variant.block_size,
        symmetric=variant.symmetric,
        embeddings=variant.embeddings,
        calibration=calibration,
        prune=contract.Prune.model_validate(prune.model_dump()) if prune else None,
        architecture=variant.target.architecture,
        device=variant.target.device,
        generation=contract.Generation.model_validate(spec.generation.model_dump()),
        evaluation=measured,
        compression=spec.image.compression,
        output=sources.sink(spec.output),
    )
    return work(resource, role(variant.name), run, image=settings.images.quantizer, run_spec=spec.run, sources=sources,
                settings=settings)  # fmt: skip
