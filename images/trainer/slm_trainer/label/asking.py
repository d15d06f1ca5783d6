"""Every prompt's answers: each question is asked once, however often it stands in the data and the run begins."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from slm_trainer.dataset.spool import Spool
from slm_trainer.label.answers import PASSING, Answer, Question, Trouble, estimated, question
from slm_trainer.label.journal import Journal
from slm_trainer.label.prompts import asked, result
from slm_trainer.label.questions import Asked, Questions
from slmkit.data import Example
from slmkit.run import Context, RunFailed
from slmops.contract import DatasetCounts, LabelRun, Reason

Examples = Spool | Sequence[Example]
MIN_SUCCESS = 0.7
"""Share of the prompts that weights have to answer; an endpoint has a field for it."""


class Teacher(Protocol):
    """Who answers."""

    name: str
    """Who it is, so exactly that its answers can be used again."""

    def ask(self, questions: Questions, journal: Journal, context: Context) -> dict[str, Trouble]:
        """Answers go to the journal. Returns the keys of questions without one, and why."""


class Asking:
    """The questions of a run, and what has come of them."""

    def __init__(self, run: LabelRun, teacher: Teacher, journal: Journal) -> None:
        self._run, self._teacher, self._journal = run, teacher, journal
        self._asked: Questions = ()
        self._troubles: dict[str, Trouble] = {}
        self._labelled = self._reused = 0

    def ask(self, training: Examples, held_out: Examples, context: Context, measured: Examples = ()) -> None:
        """Have everything answered. Held-out prompts are asked once, whatever ``samples`` says: they are what the student
        is measured by, not what it learns from. ``measured``: those that are no part of the data set. Raises RunFailed
        where too few get an answer."""
        wanted = [(training, self._run.sampling.samples), (held_out, 1), (measured, 1)]
        whole = (q for part, samples in wanted for example in part for q in self._questions(example, samples))
        self._asked = Asked(whole, context.work)
        self._reused = sum(each.key in self._journal for each in self._asked)
        self._troubles = self._teacher.ask(self._asked, self._journal, context)
        *labelled, others = (self._answered(part, samples) for part, samples in wanted)
        self._labelled = sum(labelled)
        least = self._run.endpoint.min_success_ratio if self._run.endpoint else MIN_SUCCESS
        prompts = sum(len(part) for part, _ in wanted)
        if (self._labelled + others) / prompts < least:
            raise RunFailed(Reason.TOO_FEW_ANSWERS, f"the teacher answered {self._labelled + others} of {prompts} prompts, "
                            f"{least:.0%} are wanted{self._why()}")  # fmt: skip

    def answers(self, example: Example, samples: int = 1) -> list[Answer] | Trouble:
        """What can be learned from the answers to a prompt, in the order of their seeds; or why there is nothing. The
        text is the teacher's result alone, without its reasoning."""
        found, trouble = [], Trouble.BAD_ANSWER
        for asked_one in self._questions(example, samples):
            answer = self._journal.get(asked_one.key)
            why = self._troubles.get(asked_one.key, trouble) if answer is None else answer.trouble
            text = None if answer is None or why else result(self._run, answer.text)
            if answer is None or text is None:
                trouble = why or Trouble.NO_FINAL_ANSWER
            elif text == answer.text:
                found.append(answer)
            else:
                found.append(replace(answer, text=text, completion_tokens=estimated(text)))
        return found or trouble

    def said(self, examples: Sequence[Example]) -> list[tuple[Example, str]]:
        """The teacher's answers, to be compared with others' on the same records. Where it has none to give, no words: they
        are wrong, as the student's would be. What failed for a reason that passes is left out, and is nobody's fault."""
        found = []
        for example in examples:
            answers = self.answers(example)
            if not isinstance(answers, Trouble):
                found.append((example, answers[0].text))
            elif answers not in PASSING:
                found.append((example, ""))
        return found

    def counts(self, **others: Any) -> DatasetCounts:
        """The data set's counts, with what it has cost so far."""
        read = written = guessed = 0
        for key in (each.key for each in self._asked):
            for_nothing = self._journal.spent(key)
            read += for_nothing[0]
            written += for_nothing[1]
            if (answer := self._journal.get(key)) is not None:
                read += answer.prompt_tokens
                written += answer.completion_tokens
                guessed += answer.estimated
        return DatasetCounts(
            labelled=self._labelled, reused=self._reused, prompt_tokens=read, completion_tokens=written,
            estimated=guessed, **others,
        )  # fmt: skip

    def _answered(self, examples: Examples, samples: int) -> int:
        """How many of the prompts have an answer."""
        return sum(any(q.key in self._journal for q in self._questions(e, samples)) for e in examples)

    def _questions(self, example: Example, samples: int) -> Iterable[Question]:
        messages = asked(self._run, example.prompt)
        for number in range(samples):
            yield question(self._teacher.name, messages, self._run.sampling, self._run.seed + number)

    def _why(self) -> str:
        most = Counter(self._troubles.values()).most_common(3)
        return f"; most often: {', '.join(f'{number} {why}' for why, number in most)}" if most else ""
