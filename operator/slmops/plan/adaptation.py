"""One training of a FineTune: what is asked for, with all choices made -> the run and its Job; with engine Olive two Jobs:
Olive learns the adapter, then it is measured and published.

Several adapters and the trials of a search are each one such training, with a spec of their own.
"""

from collections.abc import Iterator, Sequence

from slmops import contract
from slmops.api.conditions import ConditionType
from slmops.api.finetune import FineTune, FineTuneSpec, Loss
from slmops.figures import passed
from slmops.plan.data import filters
from slmops.plan.evaluation import evaluation
from slmops.plan.job import Work, work
from slmops.plan.signing import published, signing
from slmops.plan.sources import Sources, Unresolved
from slmops.plan.training import adapter, hyperparameters, split
from slmops.settings import Settings
from slmops.state import Observed, Problem

TRAIN, OLIVE = "train", "olive"


def training_run(spec: FineTuneSpec, sources: Sources) -> contract.TrainRun:
    """What the training is told, its name still empty. Raises Unresolved where a source leads nowhere yet."""
    data = spec.data
    if data is None:
        text = "spec.data: set exactly one of data, adapters. Mend the field and apply again."
        raise Unresolved(Problem(ConditionType.ACCEPTED, "InvalidSpec", text))
    return contract.TrainRun(
        run="",
        nodes=spec.run.nodes,
        base=sources.model(spec.base, "spec.base"),
        method=spec.method,
        lora=adapter(spec.lora),
        qlora=contract.Qlora.model_validate(spec.qlora.model_dump()) if spec.qlora else contract.Qlora(),
        merge=spec.merge is not False,
        task=spec.task,
        contrast=_contrast(spec.loss),
        template=data.template,
        train=sources.data(data.train),
        validation=sources.data(data.validation) if data.validation else None,
        validation_split=split(data),
        filters=filters(data.filters) if data.filters else None,
        hyperparameters=hyperparameters(spec.training, spec.run),
        evaluation=evaluation(spec.evaluation, spec.gates, spec.task, sources),
        base_task=sources.data(spec.base_task) if spec.base_task else None,
        output=sources.sink(spec.output),
    )


def _contrast(loss: Loss) -> contract.Contrast | None:
    if loss.type == "CrossEntropy":
        return None
    return contract.Contrast() if loss.margin is None else contract.Contrast(margin=loss.margin)


def one_training(
    resource: FineTune, spec: FineTuneSpec, observed: Observed, settings: Settings, roles: tuple[str, str],
    layer: str = "",
) -> Iterator[Work]:  # fmt: skip
    """The Jobs of one training that are wanted now, in the roles of training and of Olive's learning. ``layer``: name of
    one of several adapters."""
    train, olive = roles
    if spec.engine == "PyTorch":
        yield training(resource, train, spec, observed, settings, layer=layer)
        return
    learner = learning(resource, olive, spec, observed, settings, layer)
    yield learner
    made = _learned(observed, learner.step.name)
    if made is not None:
        yield training(resource, train, spec, observed, settings, made, layer)


def learning(
    resource: FineTune, role: str, spec: FineTuneSpec, observed: Observed, settings: Settings, layer: str = ""
) -> Work:
    """The Job in which Olive learns the adapter."""
    sources = Sources(observed, spec.license_policy)
    run = training_run(spec, sources).model_copy(update={"engine": "Olive", "layer": layer})
    return work(resource, role, run, image=settings.images.quantizer, run_spec=spec.run, sources=sources,
                settings=settings)  # fmt: skip


def training(
    resource: FineTune, role: str, spec: FineTuneSpec, observed: Observed, settings: Settings,
    made: contract.Artifact | None = None, layer: str = "", trial: contract.Trial | None = None,
    searched: contract.Search | None = None,
) -> Work:  # fmt: skip
    """The Job that trains what ``spec`` says, measures and publishes it; ``made``: an adapter that was learned before;
    ``trial``: it is one of a search, ``searched``: it comes after one."""
    sources = Sources(observed, spec.license_policy)
    run = training_run(spec, sources)
    told: dict[str, object] = {"layer": layer, "trial": trial, "searched": searched}
    if trial is not None:  # compared by its loss or by exact match, which is measured in any case
        told["evaluation"] = run.evaluation.model_copy(update={"metrics": ()})
    run = run.model_copy(update=told)
    if made is not None:
        run = run.model_copy(update={"adapter": sources.own(made, spec.output)})
    return work(resource, role, run, image=settings.images.trainer, run_spec=spec.run, sources=sources,
                settings=settings)  # fmt: skip


def signed_training(resource: FineTune, works: Sequence[Work], observed: Observed, settings: Settings) -> list[Work]:
    """The Job that signs what the one training, or the last one of a search, has published, if its gates let it pass."""
    states = (observed.job(item.step.name) for item in works if item.step.role == TRAIN)
    report = next((state.report for state in states if state.phase == "Succeeded"), None)
    if report is None or not passed(resource.spec.gates, report.evaluation, ("baseline",)):
        return []
    return signing(resource, published(report), resource.spec.output, resource.spec.run, settings)


def _learned(observed: Observed, job: str) -> contract.Artifact | None:
    """The adapter, once it is there. Raises Unresolved where an image of another version reports none."""
    state = observed.job(job)
    if state.phase != "Succeeded" or state.report is None:
        return None
    made = state.report.artifacts.get("adapter")
    if made is None:
        text = f"the Job {job} reports success and no adapter; install images of the operator's version, then delete it"
        raise Unresolved(Problem(ConditionType.INPUTS_RESOLVED, "AdapterMissing", text))
    return made
