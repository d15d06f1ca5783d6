"""Questions to a teacher behind an address, in virtual time, whose answers go to a journal."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slm_trainer.label.answers import Question, question
from slm_trainer.label.endpoint import ask_all
from slm_trainer.label.journal import Journal
from slmkit.run import Context, RunFailed
from slmops.contract import Endpoint, Sampling
from tests.unit import virtualnet
from tests.unit.images.fakellm import FakeLLM, Reply, play


def questions(*texts: str, sampling: Sampling | None = None) -> list[Question]:
    """One for each text."""
    return [question("t", ({"role": "user", "content": text},), sampling or Sampling(), 7) for text in texts]


class Asker:
    """Asks teachers; each call is an attempt of its own, with the journal of those before."""

    def __init__(self, journal: Path) -> None:
        self.journal = journal

    def __call__(
        self, llm: FakeLLM, *texts: str, context: Context | None = None, sampling: Sampling | None = None, **fields: Any
    ) -> list[str]:
        """The answers; in their place the reason why there is none."""
        endpoint = Endpoint.model_validate({"url": f"{llm.url}/v1/", "model": "teacher"} | fields)
        sampling, context = sampling or Sampling(), context or Context()
        asked = questions(*texts, sampling=sampling)
        with Journal(self.journal) as journal:
            troubles = play(lambda: ask_all(endpoint, sampling, asked, journal, context), llm)
            found = [journal.get(q.key) for q in asked]
        return [troubles[q.key] if answer is None else answer.text for q, answer in zip(asked, found, strict=True)]

    def answer(self, llm: FakeLLM, text: str) -> dict[str, Any]:
        """What the journal has of one answer."""
        self(llm, text)
        return dict(json.loads(self.journal.read_text()))

    def stopped_after(self, seconds: float, llm: FakeLLM, *texts: str, **fields: Any) -> tuple[RunFailed, float]:
        """How a run ends that is told to stop, and when."""
        context, ended = Context(), []

        async def main() -> None:
            asyncio.get_running_loop().call_later(seconds, context.stopping.set)
            endpoint = Endpoint.model_validate({"url": f"{llm.url}/v1", "model": "m"} | fields)
            try:
                with Journal(self.journal) as journal:
                    await ask_all(endpoint, Sampling(), questions(*texts), journal, context)
            finally:
                ended.append(virtualnet.now() - 1000)

        return refused(lambda: play(main, llm)), ended[0]


def refused(act: Callable[[], object]) -> RunFailed:
    """How it fails."""
    with pytest.raises(RunFailed) as failed:
        act()
    return failed.value


def one_by_one(*replies: Reply) -> Callable[[str, int], Reply]:
    """The first time the first reply, and so on; the last one from then on."""
    return lambda text, time: replies[min(time, len(replies)) - 1]
