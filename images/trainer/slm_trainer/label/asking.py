"""Every prompt's answers: each question is asked once, however often it stands in the data and the run begins."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from slm_trainer.label.answers import PASSING, Answer, Question, Trouble, estimated, question
from slm_trainer.label.journal import Journal
from slm_trainer.label.prompts import asked, result
from slmkit.data import Example
from slmkit.run import Context, RunFailed
from slmops.contract import DatasetCounts, LabelRun, Reason

MIN_SUCCESS = 0.7
"""Share of the prompts that weights have to answer; an endpoint has a field for it."""


class Teacher(Protocol):
    """Who answers."""

    name: str
    """Who it is, so exactly that its answers can be used again."""

    def ask(self, questions: Sequence[Question], journal: Journal, context: Context) -> dict[str, Trouble]:
        """Answers go to the journal. Returns the keys of questions without one, and why."""


class Asking:
    """The questions of a run, and what has come of them."""

    def __init__(self, run: LabelRun, teacher: Teacher, journal: Journal) -> None:
        self._run, self._teacher, self._journal = run, teacher, journal
        self._keys: dict[str, None] = {}
        """Of all that is asked, each once, in the order of the data."""
        self._troubles: dict[str, Trouble] = {}
        self._labelled = self._reused = 0

    def ask(
        self,
        training: Sequence[Example],
        held_out: Sequence[Example],
        context: Context,
        measured: Sequence[Example] = (),
    ) -> None:
        """Have everything answered. Held-out prompts are asked once, whatever ``samples`` says: they are what the student
        is measured by, not what it learns from. ``measured``: those that are no part of the data set. Raises RunFailed
        where too few get an answer."""
        wanted = [(e, self._run.sampling.samples) for e in training] + [(e, 1) for e in (*held_out, *measured)]
        questions = {q.key: q for example, samples in wanted for q in self._questions(example, samples)}
        self._keys = dict.fromkeys(questions)
        self._reused = sum(key in self._journal for key in questions)
        self._troubles = self._teacher.ask(list(questions.values()), self._journal, context)
        answered = [any(q.key in self._journal for q in self._questions(*pair)) for pair in wanted]
        self._labelled = sum(answered[: len(training) + len(held_out)])
        least = self._run.endpoint.min_success_ratio if self._run.endpoint else MIN_SUCCESS
        if sum(answered) / len(wanted) < least:
            raise RunFailed(Reason.TOO_FEW_ANSWERS, f"the teacher answered {sum(answered)} of {len(wanted)} prompts, "
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
        for key in self._keys:
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

    def _questions(self, example: Example, samples: int) -> Iterable[Question]:
        messages = asked(self._run, example.prompt)
        for number in range(samples):
            yield question(self._teacher.name, messages, self._run.sampling, self._run.seed + number)

    def _why(self) -> str:
        most = Counter(self._troubles.values()).most_common(3)
        return f"; most often: {', '.join(f'{number} {why}' for why, number in most)}" if most else ""
