"""A labelling run, from the prompts to the published data set."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain

from slm_trainer.dataset.report import Subject, write_report
from slm_trainer.dataset.spool import Spool
from slm_trainer.dataset.tally import Tally
from slm_trainer.evaluate import choose
from slm_trainer.label.answers import Answer
from slm_trainer.label.asking import Asking, Teacher
from slm_trainer.label.endpoint import EndpointTeacher
from slm_trainer.label.journal import Journal
from slm_trainer.label.judged import Judged
from slm_trainer.label.sieve import Sieve, golden, worth_asking
from slm_trainer.label.tasks import checked
from slm_trainer.label.weights import WeightsTeacher
from slm_trainer.split import is_held_out
from slmkit.data import Example, read_examples, write_messages
from slmkit.hold import hold
from slmkit.publish import publish
from slmkit.registry import Registry
from slmkit.run import Context, RunFailed
from slmkit.sources import fetch
from slmops.contract import DATASET_TYPE, Data, LabelRun, Reason, Report

JOURNAL = "answers.jsonl"


def label(run: LabelRun, context: Context) -> Report:
    """Label prompts and publish the data set."""
    registry = Registry(run.registry, meter=context)
    context.stage("Fetching")
    given = _prompts(run.train, "train", run, context, registry)
    if run.validation is not None:
        held_out, share = _prompts(run.validation, "validation", run, context, registry), 0.0
        tally = Tally(read=len(given) + len(held_out))
    else:
        # Where the student is measured by records of their own, nobody would need these, and each costs an answer.
        share = 0.0 if run.evaluation is not None else run.validation_split
        held_out = Spool(context.work / "prompts" / "held-out")
        held_out.write(e for e in given if is_held_out(e, share))
        tally = Tally(read=len(given))
    apart = _prompts(run.evaluation, "evaluation", run, context, registry) if run.evaluation is not None else ()
    measured = choose(apart, run.evaluation_samples, run.seed)  # as the student's are: those and no others
    if apart and not measured:
        raise RunFailed(Reason.INVALID_DATA, "spec.evaluation.data: no record has an answer to measure by")
    rest = (e for e in given if not is_held_out(e, share))
    training = worth_asking(rest, chain(held_out, apart), run.filters, tally, context.work / "filters")
    teacher = _teacher(run, context, registry)
    hold(context)
    folder = context.work / "dataset"
    folder.mkdir(exist_ok=True)
    judged = Judged(run)
    with Journal(context.state / JOURNAL, context.work / "answers.index") as journal:
        asking = Asking(run, teacher, journal)
        asking.ask(training, held_out, context, measured)
        sieve = Sieve(run.filters, tally)
        records = (r for e in training for r in sieve.records(e, asking.answers(e, run.sampling.samples)))
        parts = {"train.jsonl": write_messages(folder / "train.jsonl", records)}
        if not parts["train.jsonl"]:
            raise RunFailed(Reason.TOO_FEW_ANSWERS, f"no record is left to train on: {_words(tally.dropped)}")
        for pair in asking.said(measured):
            judged.add(*pair)
        measures = (pair for e in held_out for pair in sieve.measures(e, asking.answers(e)))
        records = _golden(measures, None if measured else judged)
        parts["validation.jsonl"] = write_messages(folder / "validation.jsonl", records)
        if not parts[
            "validation.jsonl"
        ]:  # there are registries that refuse a file of no bytes; a blank line is no record
            (folder / "validation.jsonl").write_text("\n")
        dropped = dict(+tally.dropped)
        counted = asking.counts(prompts=tally.read, kept=tally.kept, dropped=dropped, tokens=sieve.tokens)
    context.check()
    context.stage("Publishing")
    write_report(tally, Subject(run.run, dict(context.inputs), parts, run.filters), folder)
    files = {path.name: path for path in sorted(folder.iterdir())}
    figures = {"teacher": judged.figures()}
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


def _prompts(data: Data, role: str, run: LabelRun, context: Context, registry: Registry) -> Spool:
    folder = context.work / f"data-{role}"
    context.inputs[role] = fetch(data.source, folder, registry, "dataset", data.path)
    found = context.going(read_examples(data, folder))
    if role != "evaluation":
        found = checked(run, found, role)
    if run.system_prompt is not None:
        found = (e.told(run.system_prompt) for e in found)
    prompts = Spool(context.work / "prompts" / role)
    prompts.write(found)
    if not prompts:
        raise RunFailed(Reason.INVALID_DATA, f"{data.source.uri}: no record")
    return prompts


def _golden(measures: Iterable[tuple[Example, Answer]], judged: Judged | None) -> Iterator[Example]:
    """The held-out records. On the way the teacher's answers are judged, where no other records are named for that."""
    for example, answer in measures:
        if judged is not None:
            judged.add(example, answer.text)
        yield golden(example, answer)


def _words(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {what}" for what, number in sorted(counts.items())) or "all are held out"
