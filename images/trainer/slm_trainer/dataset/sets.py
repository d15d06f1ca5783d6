"""The records of a training run: read, divided, sifted, and kept on disk until the training is over."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slm_trainer.dataset.choose import answer_filters, prompt_filters
from slm_trainer.dataset.filters import Filter
from slm_trainer.dataset.seen import Seen, key
from slm_trainer.dataset.spool import Spool
from slm_trainer.dataset.tally import Tally, counted
from slm_trainer.split import is_held_out
from slmkit.data import Example, read_examples
from slmkit.registry import Registry
from slmkit.run import Context, RunFailed
from slmkit.sources import fetch
from slmops.contract import Data, DatasetCounts, Reason, TrainRun

HELD_OUT = ("validation", "evaluation")
"""Roles of what is held out. One source is the validation; of two the second is kept for the evaluation at the end."""


@dataclass(frozen=True)
class Sets:
    """What is trained on, and what is measured by."""

    training: Spool
    """Records with an answer, none of them held out."""
    held_out: Spool
    watched: Spool
    """What the training is followed by, and trials are compared by: the held-out records, or others where those are kept
    for the end."""
    tally: Tally

    @property
    def apart(self) -> tuple[Spool, ...]:
        """All that is held out."""
        return (self.held_out,) if self.watched is self.held_out else (self.held_out, self.watched)

    def counts(self, tokens: int) -> DatasetCounts:
        """For the run's report. ``tokens``: those that are learned."""
        tally = self.tally
        without = tally.dropped["NoAnswer"]
        return DatasetCounts(prompts=tally.read, labelled=tally.read - without, kept=tally.kept,
                             dropped=dict(+tally.dropped), tokens=tokens)  # fmt: skip

    def report(self, run: TrainRun, context: Context) -> dict[str, Path]:
        """The files of a report on the data."""
        from slm_trainer.dataset.report import Subject, write_report  # draws, which the quantizer's image cannot

        parts = {"training": len(self.training), "evaluation": len(self.held_out)}
        if self.watched is not self.held_out:
            parts["validation"] = len(self.watched)
        sources = {role: context.inputs[role] for role in ("train", *HELD_OUT) if role in context.inputs}
        return write_report(self.tally, Subject(run.run, sources, parts, run.filters), context.work / "data-report")


def prepare(run: TrainRun, context: Context, registry: Registry) -> Sets:
    """Fetch the run's data and make its sets. Raises RunFailed where nothing is left to train on."""
    work = context.work / "sets"
    train = _folder(run.train, "train", context, registry)
    seen, tally = Seen(work / "seen"), Tally()
    apart = [data for data in (run.validation, run.evaluation.data) if data is not None]
    if apart:
        named = zip(apart, HELD_OUT, strict=False)
        parts = [_asked(run, read_examples(data, _folder(data, role, context, registry))) for data, role in named]
    else:
        parts = [(e for e in read_examples(run.train, train) if is_held_out(e, run.validation_split))]
    kept = [Spool(work / role) for role in HELD_OUT[: len(parts)]]
    for spool, examples in zip(kept, parts, strict=True):
        spool.write(counted(_remembered(context.going(examples), seen), (), tally))
    watched = kept[0] if len(kept[0]) else kept[-1]  # a Distillation may have held nothing out
    sets = Sets(Spool(work / "training"), kept[-1], watched, tally)
    rest = read_examples(run.train, train)
    training = rest if apart else (e for e in rest if not is_held_out(e, run.validation_split))
    with prompt_filters(run.filters, seen, work) as filters:
        chosen: list[Filter] = [unanswered, *filters, *answer_filters(run.filters)]
        sets.training.write(counted(context.going(training), chosen, sets.tally))
    seen.close()
    if not sets.training:
        left = ", ".join(f"{count} {reason}" for reason, count in sorted(sets.tally.dropped.items()))
        raise RunFailed(Reason.INVALID_DATA, f"{run.train.source.uri}: no record is left to train on: "
                        f"{left or 'all are held out'}")  # fmt: skip
    return sets


def unanswered(example: Example) -> str | None:
    """A filter: nothing can be learned from a prompt alone."""
    return "NoAnswer" if example.completion is None else None


def _asked(run: TrainRun, examples: Iterator[Example]) -> Iterator[Example]:
    """The examples as those are asked that are learned from: each under the run's system message, where it has one."""
    return examples if run.system_prompt is None else (example.told(run.system_prompt) for example in examples)


def _folder(data: Data, role: str, context: Context, registry: Registry) -> Path:
    folder = context.work / f"data-{role}"
    context.inputs[role] = fetch(data.source, folder, registry, "dataset", data.path)
    return folder


def _remembered(examples: Iterator[Example], seen: Seen) -> Iterator[Example]:
    for example in examples:
        seen.add(key(example))
        yield example
