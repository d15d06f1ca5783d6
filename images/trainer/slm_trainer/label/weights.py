"""A teacher whose weights are loaded in this process: batches of questions, one engine or another to answer them."""

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

from slm_trainer.label.answers import Answer, Question, Trouble
from slm_trainer.label.journal import Journal
from slm_trainer.label.questions import Questions
from slmkit.registry import Registry
from slmkit.run import Context, RunFailed
from slmkit.sources import fetch
from slmops.contract import LabelRun, Reason, Sampling, Source

SORTED = 64
"""Batches whose questions are sorted together."""
log = logging.getLogger("slm_trainer.label")


class Engine(Protocol):
    """What answers."""

    batch: int
    """Questions that are answered together."""

    def answer(self, questions: Sequence[Question]) -> list[Answer | Trouble]:
        """The answers in the order of the questions."""


Load = Callable[[Path, Sampling], Engine]


class WeightsTeacher:
    """Answers from weights."""

    def __init__(self, run: LabelRun, source: Source, context: Context, registry: Registry) -> None:
        self._run, self._folder = run, context.work / "teacher"
        self.address = fetch(source, self._folder, registry)
        self.name = f"{self.address} {run.engine}"

    def ask(self, questions: Questions, journal: Journal, context: Context) -> dict[str, Trouble]:
        """Answers go to the journal. Returns the keys of questions without one, and why."""
        done = sum(question.key in journal for question in questions)
        if done == len(questions):
            return {}
        context.stage("LoadingTeacher")
        engine = load(self._run)(self._folder, self._run.sampling)
        log.info("teacher", extra={"engine": self._run.engine, "questions": len(questions) - done})
        context.stage("Labelling", of=len(questions), done=done)
        troubles: dict[str, Trouble] = {}
        for batch in batches((q for q in questions if q.key not in journal), engine.batch):
            context.check()
            for question, answer in zip(batch, engine.answer(batch), strict=True):
                if isinstance(answer, Trouble):
                    troubles[question.key] = answer
                else:
                    journal.add(question.key, answer)
            journal.sync()
            done += len(batch)
            context.step(done)
        return troubles


def batches(questions: Iterator[Question], size: int) -> Iterator[list[Question]]:
    """Questions of like length share a batch, among so many as are sorted at a time."""
    while window := sorted(islice(questions, size * SORTED), key=lambda q: len(q.messages[-1]["content"])):
        for begin in range(0, len(window), size):
            yield window[begin : begin + size]


def load(run: LabelRun) -> Load:
    """The engine that the run names; never another in its place."""
    if run.engine == "Transformers":
        from slm_trainer.label.with_transformers import TransformersEngine

        return TransformersEngine
    try:
        from slm_trainer.label.with_vllm import VLLMEngine
    except ImportError:
        raise RunFailed(Reason.INVALID_CONFIGURATION, "spec.teacher.engine: this image has no vLLM; name one that has it "
                        "in spec.labelling.image, or use engine Transformers") from None  # fmt: skip
    return VLLMEngine
