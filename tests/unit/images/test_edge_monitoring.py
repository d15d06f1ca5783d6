"""What a server remembers of the requests that it answered: counts by the minute, and of no text a word."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("starlette")

from slm_edge.backend import Answered
from slm_edge.monitoring import HELD, MINUTE, Monitoring, buckets
from slmops.contract import BENCHMARK_HEADER, BINS, BUCKETS, SECOND_EDGES, TOKEN_EDGES, Served
from slmops.monitoring.counts import plausible
from tests.unit.images.edgeserver import CHAT, Edge, Make
from tests.unit.images.fakeedge import Exchange, FakeGenAI

PER_ANSWER = ("prompt_tokens", "answer_tokens", "finish", "request_seconds", "first_token_seconds")


class Clock:
    """A monotonic clock in the test's hand."""

    def __init__(self) -> None:
        self.now = 1000.0 * MINUTE

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def monitoring(clock: Clock, tmp_path: Path) -> Monitoring:
    return Monitoring(clock, tmp_path / "memory.max")


def answer(monitoring: Monitoring, prompt: int = 3, made: int = 2, **fields: Any) -> None:
    told = {"first_token": 0.1, "seconds": 0.4, "waited": 0.1} | fields
    answer = Answered(told.pop("finish", "stop"), prompt, made, list(range(prompt)))
    monitoring.answered(answer, list(range(made)), **told)


def place(counts: tuple[int, ...]) -> list[int]:
    """The bins that are not empty."""
    return [at for at, count in enumerate(counts) if count]


# --- what is counted


def test_an_answer_is_in_each_histogram_once(monitoring: Monitoring) -> None:
    answer(monitoring, prompt=5, made=9, finish="length", first_token=0.02, seconds=0.5, waited=0.2)
    found = monitoring.served(3600)
    assert found.answers == found.requests == 1
    assert {name: sum(getattr(found, name)) for name in PER_ANSWER} == dict.fromkeys(PER_ANSWER, 1)
    assert plausible(found)
    assert TOKEN_EDGES[place(found.prompt_tokens)[0]] == 8, "more than 4, and no more than 8"
    assert TOKEN_EDGES[place(found.answer_tokens)[0]] == 12
    assert found.finish == (0, 1)
    (at,) = place(found.request_seconds)
    assert SECOND_EDGES[at - 1] < 0.5 <= SECOND_EDGES[at]
    assert (sum(found.prompt_content), sum(found.answer_content)) == (5, 9)
    assert (found.waited_seconds, found.ran_seconds) == (0.2, 0.3)


@pytest.mark.parametrize("value", [0.0, 0.0001, 100.0, 1e6])
def test_times_beyond_the_bins_are_in_the_first_and_the_last(monitoring: Monitoring, value: float) -> None:
    answer(monitoring, first_token=value, seconds=value, waited=0.0)
    (at,) = place(monitoring.served(60).request_seconds)
    assert at == {0.0: 0, 0.0001: 0, 100.0: len(SECOND_EDGES) - 1, 1e6: len(SECOND_EDGES)}[value]


def test_every_second_text_is_in_the_half(monitoring: Monitoring) -> None:
    for _ in range(5):
        answer(monitoring, prompt=4, made=3)
    found = monitoring.served(3600)
    assert (sum(found.prompt_content), sum(found.prompt_content_half)) == (20, 12)
    assert (sum(found.answer_content), sum(found.answer_content_half)) == (15, 9)


@pytest.mark.parametrize(
    ("status", "what"),
    [(500, "errors"), (503, "errors"), (504, "errors"), (429, "refused"), (400, "invalid"), (404, "invalid"),
     (413, "invalid"), (499, None)],
)  # fmt: skip
def test_what_goes_wrong_is_told_apart(monitoring: Monitoring, status: int, what: str | None) -> None:
    monitoring.failed(status)
    found = monitoring.served(3600)
    assert {name: getattr(found, name) for name in ("answers", "errors", "refused", "invalid")} == {
        name: int(name == what) for name in ("answers", "errors", "refused", "invalid")
    }


def test_tokens_are_spread_evenly_and_always_alike() -> None:
    counts = buckets(list(range(150_000))).tolist()
    assert sum(counts) == 150_000
    assert max(counts) < 1.1 * min(counts)
    assert place(tuple(buckets([7, 7, 7]).tolist())) == [(7 * 2654435761 % 2**32) * BUCKETS // 2**32]
    assert buckets([]).sum() == 0


def test_a_vocabulary_leaves_hundreds_of_tokens_to_a_bucket() -> None:
    """So a bucket tells no word."""
    assert min(buckets(list(range(150_000)))) > 500


# --- time


def test_nothing_that_is_told_is_older_than_asked_for(monitoring: Monitoring, clock: Clock) -> None:
    for _ in range(10):
        answer(monitoring)
        clock.now += MINUTE
    assert [monitoring.served(n * MINUTE).answers for n in (1, 2, 5, 10, 99)] == [1, 2, 5, 10, 10]
    clock.now += 30
    assert monitoring.served(5 * MINUTE).answers == 4, "a minute that began before does not count"


def test_a_day_is_remembered_and_no_more(monitoring: Monitoring, clock: Clock) -> None:
    for _ in range(HELD + 50):
        answer(monitoring)
        clock.now += MINUTE
    assert len(monitoring._minutes) == HELD
    assert monitoring.served(10**9).answers == HELD


def test_how_long_the_server_was_there_is_told(monitoring: Monitoring, clock: Clock) -> None:
    clock.now += 90
    assert monitoring.served(3600).seconds == 90
    assert monitoring.served(60).seconds == 60


@pytest.mark.parametrize(("text", "limit"), [("1073741824\n", 2**30), ("max\n", 0), (None, 0)])
def test_the_limit_of_memory_is_the_containers(clock: Clock, tmp_path: Path, text: str | None, limit: int) -> None:
    if text is not None:
        (tmp_path / "memory.max").write_text(text)
    found = Monitoring(clock, tmp_path / "memory.max").served(60)
    assert found.memory_limit == limit
    assert found.peak_memory > 0


# --- over HTTP


async def told(edge: Edge, query: str = "?seconds=3600") -> Served:
    found = await edge.get(f"/monitoring{query}")
    assert found.status == 200
    return Served.model_validate_json(found.body)


def asking(edge: Edge, text: str = "q", header: str = "", **fields: Any) -> Exchange:
    body = {"model": "m", "messages": [{"role": "user", "content": text}]} | fields
    return edge.send("POST", CHAT, json.dumps(body).encode(), **({header: "yes"} if header else {}))


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_is_counted_and_nothing_of_its_text_is_told(
    edge: Edge, library: FakeGenAI, stream: bool
) -> None:
    library.answer = lambda prompt: "canary-answer"
    await asking(edge, "canary-prompt", stream=stream).done()
    page = (await edge.get("/monitoring")).body.decode()
    found = Served.model_validate_json(page)
    assert (found.answers, found.requests, found.finish) == (1, 1, (1, 0)), "the warm-up is nobody's request"
    assert sum(found.prompt_content) == len("<user>canary-prompt<a>")
    assert sum(found.answer_content) == len("canary-answer"), "the token that ends an answer has no text"
    assert "canary" not in page
    assert not any(isinstance(value, str) for value in json.loads(page).values())
    assert len(page) < 16 * 1024


async def test_a_benchmark_is_answered_and_not_counted(edge: Edge) -> None:
    found = await asking(edge, header=BENCHMARK_HEADER).done()
    assert found.status == 200
    assert (await asking(edge, header=BENCHMARK_HEADER, temperature=9).done()).status == 400
    assert (await told(edge)).requests == 0
    assert (await edge.figures())['requests_total{code="200"}'] == 1, "Prometheus sees all that the server does"


async def test_errors_are_counted_by_whose_fault_they_are(make: Make, library: FakeGenAI) -> None:
    edge = make(max_queue=1)
    assert (await asking(edge, temperature=9).done()).status == 400
    assert (await edge.get("/nowhere")).status == 404, "and this is no request of a model"

    def broken(prompt: str) -> str:
        raise RuntimeError

    library.answer = broken
    assert (await asking(edge).done()).status == 500
    library.answer = lambda prompt: "yes"
    library.hold()
    first, second = asking(edge), None
    await library.held()
    second = asking(edge, stream=True)
    while edge.engine._queue.empty():
        await Exchange(edge._app, "GET", "/health").done()
    assert (await asking(edge).done()).status == 429
    library.free()
    await first.done()
    await second.done()
    found = await told(edge)
    assert (found.answers, found.errors, found.refused, found.invalid) == (2, 1, 1, 1)
    assert found.waited_seconds > 0


async def test_a_stream_that_breaks_off_is_an_error_and_no_answer(make: Make, library: FakeGenAI) -> None:
    edge = make(seconds=0.3)
    library.hold(after=1)
    stream = asking(edge, stream=True)
    assert "timeout" in (await stream.done()).body.decode()
    library.free()
    while (await edge.figures())["requests_in_flight"]:
        pass
    found = await told(edge)
    assert (found.answers, found.errors) == (0, 1)


@pytest.mark.parametrize(
    "query", ["?seconds=0", "?seconds=86401", "?seconds=-5", "?seconds=x", "?seconds=1e3", "?seconds="]
)
async def test_what_is_no_time_is_refused(edge: Edge, query: str) -> None:
    found = await edge.get(f"/monitoring{query}")
    assert found.status == 400
    assert "a whole number from 1 to 86400" in found.json()["error"]["message"]


def test_the_bins_are_those_of_the_contract() -> None:
    empty = Served()
    assert {name: len(getattr(empty, name)) for name in BINS} == BINS
