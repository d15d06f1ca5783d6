"""One training of a FineTune: what is asked for, with all choices made -> the run and its Job.

Several adapters and the trials of a search are each one such training, with a spec of their own.
"""

from slmops import contract
from slmops.api.finetune import FineTune, FineTuneSpec, Loss
from slmops.plan.data import filters
from slmops.plan.job import Work, work
from slmops.plan.sources import Sources
from slmops.plan.training import adapter, evaluation, hyperparameters, split
from slmops.settings import Settings
from slmops.state import Observed

TRAIN, OLIVE = "train", "olive"


def training_run(spec: FineTuneSpec, sources: Sources) -> contract.TrainRun:
    """What the training is told, its name still empty. Raises Unresolved where a source leads nowhere yet."""
    return contract.TrainRun(
        run="",
        nodes=spec.run.nodes,
        base=sources.model(spec.base, "spec.base"),
        method=spec.method,
        lora=adapter(spec.lora),
        qlora=contract.Qlora.model_validate(spec.qlora.model_dump()) if spec.qlora else contract.Qlora(),
        merge=spec.merge,
        task=spec.task,
        contrast=_contrast(spec.loss),
        template=spec.data.template,
        train=sources.data(spec.data.train),
        validation=sources.data(spec.data.validation) if spec.data.validation else None,
        validation_split=split(spec.data),
        filters=filters(spec.data.filters) if spec.data.filters else None,
        hyperparameters=hyperparameters(spec.training, spec.run),
        evaluation=evaluation(spec.evaluation, sources, {}),
        output=sources.sink(spec.output),
    )


def _contrast(loss: Loss) -> contract.Contrast | None:
    if loss.type == "CrossEntropy":
        return None
    return contract.Contrast() if loss.margin is None else contract.Contrast(margin=loss.margin)


def learning(resource: FineTune, role: str, spec: FineTuneSpec, observed: Observed, settings: Settings) -> Work:
    """The Job in which Olive learns the adapter."""
    sources = Sources(observed, spec.license_policy)
    run = training_run(spec, sources).model_copy(update={"engine": "Olive"})
    return work(resource, role, run, image=settings.images.quantizer, run_spec=spec.run, sources=sources,
                settings=settings)  # fmt: skip


def training(
    resource: FineTune, role: str, spec: FineTuneSpec, observed: Observed, settings: Settings,
    made: contract.Artifact | None = None,
) -> Work:  # fmt: skip
    """The Job that trains what ``spec`` says, measures and publishes it; ``made``: an adapter that was learned before."""
    sources = Sources(observed, spec.license_policy)
    run = training_run(spec, sources)
    if made is not None:
        run = run.model_copy(update={"adapter": sources.own(made, spec.output)})
    return work(resource, role, run, image=settings.images.trainer, run_spec=spec.run, sources=sources,
                settings=settings)  # fmt: skip
