"""Which prompts are worth asking, and which of the teacher's answers become records."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from slm_trainer.dataset.agreement import agreed
from slm_trainer.dataset.choose import answer_filters, prompt_filters
from slm_trainer.dataset.filters import Filter
from slm_trainer.dataset.seen import Seen, key
from slm_trainer.dataset.spool import Spool
from slm_trainer.dataset.tally import Tally, reason, sift
from slm_trainer.label.answers import Answer, Trouble
from slmkit.data import Example
from slmkit.run import RunFailed
from slmops.contract import Filters, Reason


def worth_asking(
    training: Iterable[Example], held_out: Iterable[Example], wanted: Filters, tally: Tally, folder: Path
) -> Spool:
    """The prompts to learn from without those that are held out or doubled: no answer is paid for twice."""
    seen = Seen(folder / "seen")
    for example in held_out:
        seen.add(key(example))
    with prompt_filters(wanted, seen, folder) as filters:
        left = Spool(folder / "asked")
        left.write(sift(training, filters, tally))
    seen.close()
    if not left and tally.dropped:
        raise RunFailed(Reason.INVALID_DATA, "every prompt to learn from is held out for the evaluation, too")
    return left


class Sieve:
    """Decides over answers, one prompt after the other, and counts what becomes of them."""

    def __init__(self, wanted: Filters, tally: Tally) -> None:
        self.tokens = 0
        """Of the answers that became records to learn from."""
        self._agreement, self._tally = wanted.agreement, tally
        self._training, self._held_out = answer_filters(wanted), answer_filters(wanted, held_out=True)

    def records(self, example: Example, answers: list[Answer] | Trouble) -> list[Example]:
        """The records that are made of a prompt: of each text that the teacher gave one, or where samples are to agree
        one of all. A prompt of which nothing is left is counted by the reason of its first answer."""
        if isinstance(answers, Trouble):
            self._tally.drop(answers, example)
            return []
        if self._agreement:
            index = agreed([answer.text for answer in answers], self._agreement)
            if index is None:
                self._tally.drop("Disagreement", example, answers[0].text)
                return []
            answers = [answers[index]]
        made = [(replace(example, completion=answer.text), answer) for answer in answers]
        kept = list(self._kept(made, self._training))
        self.tokens += sum(answer.completion_tokens for _, answer in kept)
        return [record for record, _ in kept]

    def measures(self, example: Example, answers: list[Answer] | Trouble) -> list[tuple[Example, Answer]]:
        """A held-out prompt and the teacher's answer to it, or nothing. Its record has its own answer where it has one."""
        if isinstance(answers, Trouble):
            self._tally.drop(answers, example)
            return []
        return [
            (example, answer)
            for _, answer in self._kept([(golden(example, a), a) for a in answers[:1]], self._held_out)
        ]

    def _kept(
        self, made: Sequence[tuple[Example, Answer]], filters: Sequence[Filter]
    ) -> Iterator[tuple[Example, Answer]]:
        found: dict[str, str | None] = {}
        for record, answer in made:
            if answer.text in found:
                continue
            found[answer.text] = reason(record, filters)
            if found[answer.text] is None:
                self._tally.keep(record)
                yield record, answer
        reasons = list(found.values())
        if None not in reasons:
            self._tally.drop(str(reasons[0]), made[0][0], made[0][1].text)


def golden(example: Example, answer: Answer) -> Example:
    """A held-out record: its own answer where it has one, else the teacher's."""
    return replace(example, completion=answer.text) if example.completion is None else example
