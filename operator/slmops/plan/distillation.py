"""Distillation -> a labelling Job, then a training Job on what it published."""

from slmops import contract
from slmops.api.base import seconds
from slmops.api.conditions import ConditionType
from slmops.api.distillation import Distillation, DistillationSpec
from slmops.figures import passed
from slmops.plan.batch import batch_plan
from slmops.plan.data import filters
from slmops.plan.evaluation import evaluation, task_of
from slmops.plan.job import Work, work
from slmops.plan.signing import published, signing
from slmops.plan.sources import TOKEN_KEY, Sources, Unresolved
from slmops.plan.training import adapter, hyperparameters, split
from slmops.settings import Settings
from slmops.state import JobState, Observed, Plan, Problem

LABEL, TRAIN = "label", "train"
SUMMARY_WORDS = 80
"""As Azure ML's distillation, from where the setting comes."""


def plan_distillation(resource: Distillation, observed: Observed, settings: Settings) -> Plan:
    """The Jobs that the Distillation needs now."""
    works: list[Work] = []
    try:
        works.append(_label(resource, observed, settings))
        labelled = observed.job(works[0].step.name)
        if labelled.phase == "Succeeded" and labelled.report is not None:
            dataset = labelled.report.artifacts.get("dataset")
            if dataset is None:
                raise Unresolved(_no_dataset(works[0].step.name))
            train = _train(resource, observed, dataset, settings)
            works += [train, *_signing(resource, labelled.report, observed.job(train.step.name), settings)]
    except Unresolved as unresolved:
        return batch_plan(resource, observed, works, unresolved.problem)
    return batch_plan(resource, observed, works)


def _signing(resource: Distillation, labelled: contract.Report, train: JobState, settings: Settings) -> list[Work]:
    """What was published is signed once the student has passed its gates."""
    report = train.report if train.phase == "Succeeded" else None
    if report is None or not passed(resource.spec.gates, labelled.evaluation | report.evaluation, ("teacher",)):
        return []
    return signing(resource, published(labelled, report), resource.spec.output, resource.spec.run, settings)


def _no_dataset(job: str) -> Problem:
    """What an image of another version may do: a good report that does not name what the training needs."""
    return Problem(
        ConditionType.INPUTS_RESOLVED,
        "DatasetMissing",
        f"the Job {job} reports success and no data set; install images of the operator's version, then delete this Job",
    )


def _label(resource: Distillation, observed: Observed, settings: Settings) -> Work:
    spec = resource.spec
    sources = Sources(observed, spec.license_policy)
    teacher = spec.teacher
    endpoint = None
    if teacher.endpoint is not None:
        endpoint = contract.Endpoint(
            url=teacher.endpoint.url,
            model=teacher.endpoint.model,
            credentials=sources.credentials(teacher.endpoint.credentials, TOKEN_KEY),
            concurrency=teacher.endpoint.concurrency,
            startup_seconds=seconds(teacher.endpoint.startup_timeout),
            timeout_seconds=seconds(teacher.endpoint.timeout),
            retries=teacher.endpoint.retries,
            min_success_ratio=teacher.endpoint.min_success_ratio,
            azure_api_version=teacher.endpoint.azure_api_version,
        )
    # Weights are measured beside the student; others have to be asked while there is somebody who asks.
    judged = spec.evaluation.data if endpoint is not None else None
    run = contract.LabelRun(
        run="",
        endpoint=endpoint,
        model=sources.model(teacher.model, "spec.teacher.model") if teacher.model else None,
        engine=teacher.engine or "Transformers",
        sampling=contract.Sampling.model_validate(teacher.sampling.model_dump()),
        system_prompt=teacher.prompt.system,
        chain_of_thought=teacher.prompt.chain_of_thought,
        chain_of_density=teacher.prompt.chain_of_density,
        max_summary_words=teacher.prompt.max_summary_length or SUMMARY_WORDS,
        task=spec.task,
        train=sources.data(spec.data.train),
        validation=sources.data(spec.data.validation) if spec.data.validation else None,
        validation_split=split(spec.data),
        evaluation=sources.data(judged) if judged else None,
        **({"evaluation_samples": spec.evaluation.samples} if judged else {}),
        filters=filters(spec.data.filters, spec.data.train.labels),
        seed=spec.training.seed,
        output=sources.sink(spec.output),
    )
    return work(resource, LABEL, run, image=settings.images.trainer, run_spec=spec.labelling or spec.run,
                sources=sources, settings=settings)  # fmt: skip


def _train(resource: Distillation, observed: Observed, made: contract.Artifact, settings: Settings) -> Work:
    spec = resource.spec
    sources = Sources(observed, spec.license_policy)
    dataset = sources.own(made, spec.output)
    teacher = sources.model(spec.teacher.model, "spec.teacher.model") if spec.teacher.model else None
    run = contract.TrainRun(
        run="",
        nodes=spec.run.nodes,
        base=sources.model(spec.student.model, "spec.student.model") if spec.student.model else None,
        architecture=_architecture(spec, sources, teacher),
        method=spec.student.method,
        lora=adapter(spec.student.lora),
        train=_part(dataset, "train.jsonl"),
        system_prompt=spec.teacher.prompt.system if spec.evaluation.data else None,  # what is labelled has it already
        validation=_part(dataset, "validation.jsonl"),
        objective=contract.Objective(
            type=spec.objective.type,
            teacher=teacher if spec.objective.type != "Labels" else None,
            temperature=spec.objective.temperature,
            alpha=spec.objective.alpha,
            top_k=spec.objective.top_k,
            layers=tuple(contract.LayerPair(student=p.student, teacher=p.teacher) for p in spec.objective.layers),
            attention=spec.objective.attention,
        ),
        hyperparameters=hyperparameters(spec.training, spec.run),
        evaluation=evaluation(
            spec.evaluation, spec.gates, _task(spec), sources, {"teacher": teacher} if teacher else {}
        ),
        output=sources.sink(spec.output),
    )
    return work(resource, TRAIN, run, image=settings.images.trainer, run_spec=spec.run, sources=sources,
                settings=settings)  # fmt: skip


def _task(spec: DistillationSpec) -> contract.Task:
    """What an answer is, in the words of an evaluation."""
    return contract.ANSWERS.get(spec.task or "") or task_of(spec.data.train)


def _part(dataset: contract.Source, path: str) -> contract.Data:
    return contract.Data(source=dataset, format=contract.ExampleFormat.MESSAGES, path=path)


def _architecture(
    spec: DistillationSpec, sources: Sources, teacher: contract.Source | None
) -> contract.Architecture | None:
    wanted = spec.student.architecture
    if wanted is None:
        return None
    tokenizer = sources.model(wanted.tokenizer, "spec.student.architecture.tokenizer") if wanted.tokenizer else teacher
    return contract.Architecture(**wanted.model_dump(exclude={"tokenizer"}), tokenizer=tokenizer)
