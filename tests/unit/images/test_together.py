"""Several answers in the time of one: what shares a batch, and that each of them is as if it were alone."""

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("jinja2")

from slm_edge.backend import Piece
from slm_edge.channel import pieces
from slm_edge.engine import Engine
from slm_edge.openai import ApiError
from slm_edge.together import Asked, fitting
from tests.unit.images.adapterbytes import adapter, beside
from tests.unit.images.fakebatch import FakeEngine
from tests.unit.images.fakeedge import PATIENCE, FakeGenAI, ask, make_engine, model_folder, request

Answer = tuple[str, Piece]
LIMIT = 20
"""Tokens of answers, so that three requests fit into the context of 100 together."""


@pytest.fixture
def batches(library: FakeGenAI) -> FakeEngine:
    return FakeEngine(library)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, library: FakeGenAI, batches: FakeEngine, tmp_path: Path) -> Engine:
    beside(model_folder(tmp_path), {"irrigation": adapter()})
    engine = make_engine(monkeypatch, library, tmp_path, max_queue=8)
    engine.start()
    assert engine.ready.wait(PATIENCE), engine.failure
    return engine


class Desk:
    """Asks for several answers at once."""

    def __init__(self, engine: Engine, library: FakeGenAI, batches: FakeEngine) -> None:
        self.engine, self.library, self.batches = engine, library, batches
        self.tasks: list[asyncio.Task[Answer]] = []

    async def busy(self) -> None:
        """Let somebody be answered, so that all others wait."""
        self.library.hold()
        self.first = asyncio.create_task(ask(self.engine, request("first")[0]))
        await self.library.held()

    async def go(self, after: int = 0) -> None:
        """Let it go. ``after``: tokens that the others then make before they are held again."""
        await asyncio.sleep(0)
        self.library.hold(4 + after) if after else self.library.free()
        await self.first
        if after:
            await self.library.held()

    async def put(self, *asked: dict[str, Any], after: int = 0) -> None:
        """Queue requests behind one that is under way, and let it go."""
        await self.busy()
        self.tasks = [asyncio.create_task(ask(self.engine, request(**fields)[0])) for fields in asked]
        await self.go(after)

    async def answers(self, *asked: dict[str, Any]) -> list[Answer]:
        """All of them."""
        if asked:
            await self.put(*asked)
        self.library.free()
        async with asyncio.timeout(PATIENCE):
            return await asyncio.gather(*self.tasks)


@pytest.fixture
def desk(engine: Engine, library: FakeGenAI, batches: FakeEngine) -> Desk:
    return Desk(engine, library, batches)


def asked(prompt: str, **fields: Any) -> dict[str, Any]:
    return {"prompt": prompt, "limit": LIMIT} | fields


async def test_what_waits_is_answered_together_each_with_its_own(desk: Desk) -> None:
    desk.library.answer = lambda prompt: f"to {prompt}"
    found = await desk.answers(asked("a"), asked("bb"), asked("ccc", limit=2), asked("d"), asked("e"))
    assert desk.batches.batches == [["a", "bb", "ccc"], ["d", "e"]]
    assert [text for text, _ in found] == ["to a", "to bb", "to", "to d", "to e"]
    ends = [(last.finish, last.prompt_tokens, last.completion_tokens) for _, last in found]
    assert ends == [("stop", 1, 5), ("stop", 2, 6), ("length", 3, 2), ("stop", 1, 5), ("stop", 1, 5)]


async def test_a_batch_takes_no_more_memory_than_one_that_fills_the_context(desk: Desk) -> None:
    """Of 100 tokens; each has as many in the cache as the longest."""
    found = await desk.answers(asked("a", limit=49), asked("b", limit=49), asked("c", limit=32), asked("d", limit=None),
                               asked("e"))  # fmt: skip
    assert desk.batches.batches == [["a", "b"]]
    assert desk.library.prompts[-5:] == ["a", "b", "c", "d", "e"]
    assert [text for text, _ in found] == ["yes"] * 5


@given(st.lists(st.integers(1, 100), max_size=12))
def test_every_batch_fits_and_all_are_in_one(ends: list[int]) -> None:
    all_asked = [Asked(number, request()[0], [], end) for number, end in enumerate(ends)]
    batches = fitting(all_asked, 100)
    assert [one for batch in batches for one in batch] == all_asked
    assert all(len(batch) * max(one.end for one in batch) <= 100 for batch in batches)
    joined = [[*former, latter[0]] for former, latter in pairwise(batches)]
    assert all(len(batch) * max(one.end for one in batch) > 100 for batch in joined), "none is begun too early"


async def test_who_comes_alone_has_the_machine_alone(desk: Desk) -> None:
    assert [text for text, _ in await desk.answers(asked("a"))] == ["yes"]
    assert desk.batches.batches == []


async def test_an_adapter_and_embeddings_wait_for_their_turn(desk: Desk) -> None:
    await desk.answers(asked("a"), asked("b"), asked("c", adapter="irrigation"), asked("d"), asked("e"))
    assert desk.library.prompts[-5:] == ["a", "b", "c", "d", "e"], "in the order in which they came"
    assert desk.batches.batches == [["a", "b"], ["d", "e"]]
    assert desk.library.active[-1] == "irrigation"


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, {}), ({"temperature": 0.0, "top_p": 0.5}, {"do_sample": False}), ({"seed": 2**31 + 5}, {"seed": 5}),
        ({"temperature": 0.5}, {"do_sample": True, "top_k": 0, "temperature": 0.5, "top_p": 1.0}),
        ({"top_p": 0.5}, {"do_sample": True, "top_k": 0, "temperature": 1.0, "top_p": 0.5}),
    ],
)  # fmt: skip
async def test_options_of_each_reach_the_model(desk: Desk, fields: dict[str, Any], options: dict[str, Any]) -> None:
    await desk.answers(asked("a", **fields), asked("b", limit=3))
    assert desk.library.options[-2:] == [{"max_generated_tokens": LIMIT} | options, {"max_generated_tokens": 3}]


async def test_a_stop_text_ends_its_own_answer(desk: Desk) -> None:
    desk.library.answer = lambda prompt: "one END two"
    before = desk.library.tokens
    (stopped, last), (whole, _) = await desk.answers(asked("a", stops=["END"]), asked("b"))
    assert (stopped, last.finish, last.completion_tokens) == ("one ", "stop", len("one END"))
    assert whole == "one END two"
    assert desk.library.tokens - before == len("one END two") + 1 + len("one END") + len("one END two") + 1


async def test_pieces_of_all_come_as_they_are_made(desk: Desk) -> None:
    desk.library.answer = lambda prompt: prompt * 5 if prompt != "first" else "yes"
    await desk.busy()
    waiting = [pieces(desk.engine, request(prompt, limit=LIMIT)[0], PATIENCE) for prompt in "ab"]
    begun = [asyncio.ensure_future(anext(answer)) for answer in waiting]
    await desk.go(after=4)
    assert [(await one).text for one in begun] == ["a", "b"]
    assert [(await anext(answer)).text for answer in waiting] == ["a", "b"]
    desk.library.free()
    assert ["".join([piece.text async for piece in answer]) for answer in waiting] == ["aaa", "bbb"]


async def test_who_goes_takes_nobody_with_him(desk: Desk) -> None:
    desk.library.answer = lambda prompt: "x" * 15 if prompt != "first" else "yes"
    before = desk.library.tokens
    await desk.put(asked("gone"), asked("stays"), after=4)
    desk.tasks.pop(0).cancel()
    await asyncio.sleep(0)
    assert [text for text, _ in await desk.answers()] == ["x" * 15]
    assert desk.library.tokens - before == 4 + 16 + 2 + 1, "one more was being made for whoever has gone"


async def test_who_has_gone_before_his_turn_is_in_no_batch(desk: Desk) -> None:
    await desk.busy()
    tasks = [asyncio.create_task(ask(desk.engine, request(prompt)[0])) for prompt in "abc"]
    await asyncio.sleep(0)
    for task in tasks[1:]:
        task.cancel()
    await asyncio.wait(tasks[1:])
    await desk.go()
    assert (await tasks[0])[0] == "yes"
    assert desk.batches.batches == []


async def test_what_is_refused_or_fails_costs_nobody_elses_answer(desk: Desk) -> None:
    desk.batches.fails["bad"] = "EXECUTION_CAPACITY_EXCEEDED"
    await desk.put(asked("x" * 100), asked("bad"), asked("good"), after=1)
    desk.library.free()
    refused, failed, good = await asyncio.gather(*desk.tasks, return_exceptions=True)
    assert isinstance(refused, ApiError)
    assert (refused.status, refused.code) == (400, "context_length_exceeded")
    assert isinstance(failed, ApiError)
    assert (failed.status, failed.message) == (500, "generation failed: EXECUTION_CAPACITY_EXCEEDED")
    assert not isinstance(good, BaseException)
    assert good[0] == "yes"


async def test_an_engine_that_breaks_is_made_anew(desk: Desk) -> None:
    desk.batches.fails["*"] = "canary: no longer healthy"
    await desk.put(asked("a"), asked("b"))
    for broken in await asyncio.gather(*desk.tasks, return_exceptions=True):
        assert isinstance(broken, ApiError)
        assert broken.status == 500
        assert "canary" not in broken.message
    desk.batches.fails.clear()
    assert [text for text, _ in await desk.answers(asked("c"), asked("d"))] == ["yes", "yes"]
    assert (desk.batches.made, desk.batches.batches) == (2, [["c", "d"]])


async def test_a_model_that_the_engine_cannot_take_answers_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, library: FakeGenAI, tmp_path: Path
) -> None:
    model_folder(tmp_path)
    engine = make_engine(monkeypatch, library, tmp_path)
    engine.start()
    assert engine.ready.wait(PATIENCE), engine.failure
    desk = Desk(engine, library, FakeEngine(library))
    assert [text for text, _ in await desk.answers(asked("a"), asked("b"))] == ["yes", "yes"]
    assert desk.batches.batches == []


async def test_the_metrics_count_each_of_a_batch(desk: Desk) -> None:
    await desk.put(asked("a"), asked("bb"), after=2)
    metrics = desk.engine._metrics
    assert (metrics.running._value.get(), metrics.queued._value.get()) == (2, 0)
    before = metrics.tokens._value.get()
    await desk.answers()
    desk.engine.stop()
    await asyncio.to_thread(desk.engine._thread.join, PATIENCE)
    assert metrics.tokens._value.get() - before == 8
    assert metrics.running._value.get() == 0
