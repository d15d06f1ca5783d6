"""A teacher behind an address: requests in flight, retries, and when to give up."""

import asyncio
import logging
import random
from collections.abc import Iterator

import httpx

from slm_trainer.label.answers import Question, Trouble
from slm_trainer.label.client import Door, Failed, ask
from slm_trainer.label.journal import Journal
from slm_trainer.label.questions import Questions
from slmkit.run import Context, RunFailed
from slmops.contract import Endpoint, Reason, Sampling

NOT_YET = {502, 503, 504}
LONGEST_BACKOFF = 60.0
LONGEST_PAUSE = 600.0
"""Seconds that a server may ask for at most; who means "tomorrow" is asked again in ten minutes."""
SPREAD = 0.05
"""Seconds for each request in flight over which they begin again once a pause is over: all at a time would be the next
burst that meets the limit."""
DRAIN = 20.0
"""Seconds for the requests in flight once the pod is told to stop: they are paid for. The kubelet waits for 30."""
FAILURES = 3
"""Failures in a row, for each request in flight, after which a teacher that never answered is given up."""
FAILURES_LATER = 10
"""And one that did answer."""
log = logging.getLogger("slm_trainer.label")


class EndpointTeacher:
    """Answers over HTTP."""

    def __init__(self, endpoint: Endpoint, sampling: Sampling) -> None:
        self._endpoint, self._sampling = endpoint, sampling
        self.name = f"{endpoint.url} {endpoint.model}"

    def ask(self, questions: Questions, journal: Journal, context: Context) -> dict[str, Trouble]:
        """Answers go to the journal. Returns the keys of questions without one, and why."""
        return asyncio.run(ask_all(self._endpoint, self._sampling, questions, journal, context))


async def ask_all(
    endpoint: Endpoint, sampling: Sampling, questions: Questions, journal: Journal, context: Context
) -> dict[str, Trouble]:
    """Ask what the journal does not know. Returns the keys of questions without an answer, and why."""
    door = Door(endpoint)
    asking = _Asking(endpoint, sampling, door, journal, context)
    try:
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(asking.watch())
            context.stage("WaitingForTeacher")
            await _until_it_answers(door, endpoint)
            asking.found = sum(question.key in journal for question in questions)
            context.stage("Labelling", of=len(questions), done=asking.found)
            todo = (question for question in questions if question.key not in journal)
            asking.workers = min(endpoint.concurrency, len(questions) - asking.found)
            workers = [group.create_task(asking.work(todo)) for _ in range(asking.workers)]
            if workers:
                await asyncio.wait(workers)
            watcher.cancel()
    except ExceptionGroup as failures:
        known = failures.subgroup(RunFailed)
        raise (known.exceptions[0] if known else failures) from None
    context.check()
    if len(questions) and not asking.answered and not asking.found:
        raise RunFailed(Reason.TEACHER_UNREACHABLE, f"{endpoint.url}: {asking.last}")
    return asking.troubles


class _Asking:
    """What the requests in flight share."""

    def __init__(self, endpoint: Endpoint, sampling: Sampling, door: Door, journal: Journal, context: Context) -> None:
        self._endpoint, self._sampling, self._door = endpoint, sampling, door
        self._journal, self._context = journal, context
        self.troubles: dict[str, Trouble] = {}
        self.found = self.answered = 0
        """Answers of earlier attempts, and of this one."""
        self.last = "no answer"
        self.workers = 1
        self._tokens = 0
        self._row = 0
        self._stop = asyncio.Event()
        self._clock = asyncio.get_running_loop().time
        self._begun = self._clock()
        self._not_before = 0.0

    async def watch(self) -> None:
        """Bring answers to the disk; and when the pod is told to stop, let what is in flight come in."""
        while not self._context.stopping.is_set():
            if self._journal.dirty:
                await asyncio.to_thread(self._journal.sync)
            await asyncio.sleep(1)
        self._stop.set()
        if self._context.progress.stage == "Labelling":
            await asyncio.sleep(DRAIN)
        self._context.check()

    async def work(self, todo: Iterator[Question]) -> None:
        """One request at a time."""
        async with self._door.open() as client:
            for question in todo:
                if self._stop.is_set():
                    return
                failed = await self._persist(client, question)
                if failed is None:
                    self.answered += 1
                else:
                    self.troubles[question.key] = failed.trouble
                elapsed = self._clock() - self._begun
                done = self.found + self.answered + len(self.troubles)
                self._context.step(done, tokens_per_second=self._tokens / elapsed if elapsed > 0 else None)

    async def _persist(self, client: httpx.AsyncClient, question: Question) -> Failed | None:
        """Ask until there is an answer, or no hope of one. Returns how the last attempt failed."""
        for attempt in range(self._endpoint.retries + 1):
            await self._pause()
            if self._stop.is_set():
                return Failed(Trouble.RATE_LIMITED, "told to stop while waiting")
            try:
                answer = await ask(client, self._endpoint, self._sampling, question)
            except Failed as failed:
                self._count(failed)
                self._journal.spend(question.key, *failed.spent)
                if not failed.again or attempt == self._endpoint.retries or self._stop.is_set():
                    return failed
                pause = min(failed.pause, LONGEST_PAUSE)
                if pause:  # a limit is the account's, not the request's: nobody asks before it is over
                    self._not_before = max(self._not_before, self._clock() + pause)
                await self._rest((pause + self._spread() if pause else 0.0) + backoff(attempt))
            else:
                self._row = 0
                self._journal.add(question.key, answer)
                self._tokens += answer.completion_tokens
                return None
        raise AssertionError("unreachable: the last attempt returns")

    def _count(self, failed: Failed) -> None:
        self.last = failed.words
        # Who finds a prompt too long or improper has looked at it; and a no to some prompts says nothing of the others.
        there = failed.trouble in (Trouble.CONTEXT_TOO_LONG, Trouble.FILTERED)
        self._row += not there and (failed.again or not self.answered)
        log.info("no answer", extra={"trouble": failed.trouble, "text": failed.words, "again": failed.again})
        most = (FAILURES_LATER if self.answered else FAILURES) * self._endpoint.concurrency
        if self._row >= most:
            raise RunFailed(
                Reason.TEACHER_UNREACHABLE, f"{self._endpoint.url}: {self._row} requests in a row failed: {self.last}"
            )

    async def _pause(self) -> None:
        """Wait until nobody is asked to. Another request may be told of a longer pause meanwhile."""
        while (left := self._not_before - self._clock()) > 0 and not self._stop.is_set():
            await self._rest(left + self._spread())

    def _spread(self) -> float:
        """Seconds by which a request begins later than others that waited for the same. Who is alone has none to avoid."""
        return random.uniform(0, SPREAD * (self.workers - 1))  # noqa: S311  (jitter)

    async def _rest(self, seconds: float) -> None:
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._stop.wait()
            except TimeoutError:
                pass


def backoff(attempt: int) -> float:
    """Seconds before another attempt: twice as long each time, and never the same for two requests."""
    return min(2.0**attempt, LONGEST_BACKOFF) * random.uniform(0.25, 0.5)  # noqa: S311  (jitter)


async def _until_it_answers(door: Door, endpoint: Endpoint) -> None:
    """A teacher that is rolled out at the same time as this run is waited for. Any answer but "not yet" will do."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + endpoint.startup_seconds
    async with door.open() as client:
        while True:
            try:
                async with client.stream("GET", "/models") as answer:  # its status: what else it says may have no end
                    if answer.status_code not in NOT_YET:
                        return
                    trouble = f"answered {answer.status_code}"
            except httpx.HTTPError as error:
                trouble = f"{type(error).__name__}: {error}"[:200]
            if clock() > deadline:
                raise RunFailed(Reason.TEACHER_UNREACHABLE, f"{endpoint.url}: {trouble}")
            await asyncio.sleep(2)
