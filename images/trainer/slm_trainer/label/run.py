"""A labelling run, from the prompts to the published data set."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from slm_trainer.dataset.report import Subject, write_report
from slm_trainer.dataset.tally import Tally
from slm_trainer.label.answers import Answer
from slm_trainer.label.asking import Asking, Teacher
from slm_trainer.label.endpoint import EndpointTeacher
from slm_trainer.label.journal import Journal
from slm_trainer.label.sieve import Sieve, golden, worth_asking
from slm_trainer.label.tasks import check_task
from slm_trainer.label.weights import WeightsTeacher
from slm_trainer.split import split
from slmkit.data import Example, read_examples, write_messages
from slmkit.hold import hold
from slmkit.metrics import scored
from slmkit.publish import publish
from slmkit.registry import Registry
from slmkit.run import Context, RunFailed
from slmkit.sources import fetch
from slmops.contract import ANSWERS, DATASET_TYPE, Data, Figures, LabelRun, Metric, Reason, Report, Task

JOURNAL = "answers.jsonl"
JUDGED: dict[Task, tuple[Metric, ...]] = {
    "Generation": (Metric.ACCURACY,),
    "Classification": (Metric.ACCURACY, Metric.F1),
    "Summarization": (Metric.F1, Metric.BLEU, Metric.ROUGE),
}
"""By what a teacher is judged. Whatever the training is measured by: another wish there asks no teacher again."""


def label(run: LabelRun, context: Context) -> Report:
    """Label prompts and publish the data set."""
    registry = Registry(run.registry, meter=context)
    context.stage("Fetching")
    training = _prompts(run.train, "train", run, context, registry)
    if run.validation is not None:
        held_out = _prompts(run.validation, "validation", run, context, registry)
    else:
        training, held_out = split(training, run.validation_split)
    tally = Tally(read=len(training) + len(held_out))
    training = worth_asking(training, held_out, run.filters, tally, context.work / "filters")
    teacher = _teacher(run, context, registry)
    hold(context)
    with Journal(context.state / JOURNAL) as journal:
        asking = Asking(run, teacher, journal)
        asking.ask(training, held_out, context)
        sieve = Sieve(run.filters, tally)
        kept = [pair for e in training for pair in sieve.records(e, asking.answers(e, run.sampling.samples))]
        if not kept:
            raise RunFailed(Reason.TOO_FEW_ANSWERS, f"no record is left to train on: {_words(tally.dropped)}")
        judged = [pair for e in held_out for pair in sieve.measures(e, asking.answers(e))]
        tokens = sum(answer.completion_tokens for _, answer in kept)
        counted = asking.counts(prompts=tally.read, kept=tally.kept, dropped=dict(+tally.dropped), tokens=tokens)
    context.check()
    context.stage("Publishing")
    folder = context.work / "dataset"
    folder.mkdir(exist_ok=True)
    parts = {
        "train.jsonl": write_messages(folder / "train.jsonl", (record for record, _ in kept)),
        "validation.jsonl": write_messages(folder / "validation.jsonl", (golden(e, answer) for e, answer in judged)),
    }
    write_report(tally, Subject(run.run, dict(context.inputs), parts, run.filters), folder)
    files = {path.name: path for path in sorted(folder.iterdir())}
    figures = {"teacher": _judge(run, judged)}
    made = publish(registry, run, context, files, DATASET_TYPE, figures)
    return Report(outcome="Succeeded", artifacts={"dataset": made}, evaluation=figures, dataset=counted)


def _teacher(run: LabelRun, context: Context, registry: Registry) -> Teacher:
    if run.endpoint is not None:
        context.inputs["teacher"] = f"{run.endpoint.url} {run.endpoint.model}"
        return EndpointTeacher(run.endpoint, run.sampling)
    if run.model is None:
        raise RunFailed(Reason.INVALID_CONFIGURATION, "one of endpoint and model is needed")
    teacher = WeightsTeacher(run, run.model, context, registry)
    context.inputs["teacher"] = teacher.address
    return teacher


def _prompts(data: Data, role: str, run: LabelRun, context: Context, registry: Registry) -> list[Example]:
    folder = context.work / f"data-{role}"
    context.inputs[role] = fetch(data.source, folder, registry, "dataset")
    found = list(context.going(read_examples(data, folder)))
    if not found:
        raise RunFailed(Reason.INVALID_DATA, f"{data.source.uri}: no record")
    check_task(run, found, role)
    if run.system_prompt is None:
        return found
    system = {"role": "system", "content": run.system_prompt}
    return [replace(e, prompt=(system, *(m for m in e.prompt if m["role"] != "system"))) for e in found]


def _words(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {what}" for what, number in sorted(counts.items())) or "all are held out"


def _judge(run: LabelRun, judged: Sequence[tuple[Example, Answer]]) -> Figures:
    """The teacher's answers to held-out records that have one. No time: what an answer takes over the network, among
    others, compares with nothing that is measured elsewhere."""
    known = [(answer.text, e.completion) for e, answer in judged if e.completion is not None]
    if not known:
        return Figures()
    task = ANSWERS.get(run.task or "", "Generation")
    return scored([said for said, _ in known], [wanted for _, wanted in known], JUDGED[task], task).figures
