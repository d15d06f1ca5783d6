"""Signs of life of the watches: what counts as one, what is told, and what kopf gets to see of a stream."""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from slmops.cluster.objects import FINE_TUNE, JOB, NODE
from slmops.cluster.pulse import Pulse
from tests.unit.fakeobjects import line
from tests.unit.virtualtime import run

HOST = "http://server"
LIST, WATCH = FINE_TUNE.path(), FINE_TUNE.path() + "?watch=true"


class Clock:
    """A clock that tests move."""

    now = 500.0

    def __call__(self) -> float:
        return self.now


class Content:
    """A body that comes in these chunks, and breaks where there is an error among them."""

    def __init__(self, *chunks: bytes | Exception) -> None:
        self.chunks = chunks

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk


def answer(status: int = 200, *chunks: bytes | Exception, content_type: str = "application/json") -> Any:
    return SimpleNamespace(status=status, content_type=content_type, content=Content(*chunks), close=lambda: None)


async def ask(pulse: Pulse, path: str, response: Any = None, method: str = "GET") -> Any:
    """One request of kopf through the middleware."""

    async def handler(request: Any) -> Any:
        if isinstance(response, Exception):
            raise response
        return response if response is not None else answer()

    request = SimpleNamespace(url=URL(HOST + path), method=method)
    return await pulse.middleware(cast(Any, request), cast(Any, handler))


async def read(response: Any) -> list[bytes]:
    return [chunk async for chunk in response.content.iter_chunked(1024)]


# --- signs of life


def test_a_watch_is_silent_from_the_beginning_on() -> None:
    clock = Clock()
    pulse = Pulse([(FINE_TUNE, None), (JOB, None)], clock=clock)
    clock.now += 50
    assert pulse.silence() == {}, "nobody watches yet: a standby that waits for its CRDs is healthy"
    pulse.begin()
    clock.now += 7
    assert pulse.silence() == {(FINE_TUNE, None): 7, (JOB, None): 7}


@pytest.mark.parametrize(
    "response", [answer(), answer(503), answer(401), aiohttp.ClientConnectionError("x"), TimeoutError()]
)
def test_a_task_that_asks_is_alive_whatever_the_answer(response: Any) -> None:
    clock = Clock()
    pulse = Pulse([(FINE_TUNE, None), (JOB, None)], clock=clock)
    pulse.begin()
    clock.now += 100

    async def main() -> None:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            await ask(pulse, WATCH, response)

    run(main())
    clock.now += 3
    assert pulse.silence() == {(FINE_TUNE, None): 3, (JOB, None): 103}


@pytest.mark.parametrize(
    ("path", "method"), [("/apis", "GET"), ("/apis/slmops.dev/v1alpha1", "GET"), (LIST, "POST"), (LIST + "/a", "GET")]
)
def test_other_requests_are_no_sign_of_life(path: str, method: str) -> None:
    clock = Clock()
    pulse = Pulse([(FINE_TUNE, None)], clock=clock)
    pulse.begin()
    clock.now += 100
    run(ask(pulse, path, method=method))
    assert pulse.silence() == {(FINE_TUNE, None): 100}


def test_bookmarks_and_events_are_signs_of_life_and_of_the_servers_too() -> None:
    clock = Clock()
    pulse = Pulse([(FINE_TUNE, None)], clock=clock)
    pulse.begin()

    async def main() -> None:
        response = await ask(pulse, WATCH, answer(200, line({"type": "BOOKMARK"}), line({"type": "ADDED"})))
        async for _ in response.content.iter_chunked(1024):
            clock.now += 40
            assert pulse.silence()[FINE_TUNE, None] == 40
            assert pulse.ages() == {"finetunes": 40}

    run(main())


def test_only_what_the_server_says_makes_a_watch_young() -> None:
    clock = Clock()
    pulse = Pulse([(FINE_TUNE, "farm"), (NODE, None)], clock=clock)
    pulse.begin()
    clock.now += 60

    async def main() -> None:
        await ask(pulse, FINE_TUNE.path("farm"), answer(503))
        await ask(pulse, "/api/v1/nodes", answer(200))

    run(main())
    assert pulse.ages() == {"finetunes@farm": 60, "nodes": 0}
    assert pulse.silence() == {(FINE_TUNE, "farm"): 0, (NODE, None): 0}


def test_a_watch_has_started_when_it_streams() -> None:
    pulse = Pulse([(FINE_TUNE, "farm"), (FINE_TUNE, "mill")])

    async def main() -> None:
        await ask(pulse, FINE_TUNE.path("farm"))
        assert len(pulse.not_started()) == 2
        await ask(pulse, FINE_TUNE.path("farm") + "?watch=true", answer(503))
        assert len(pulse.not_started()) == 2
        await ask(pulse, FINE_TUNE.path("farm") + "?watch=true")
        assert pulse.not_started() == [(FINE_TUNE, "mill")]

    run(main())


# --- starting over


def relists(*paths: str) -> int:
    """How often a resync is asked for when kopf makes these requests."""
    told: list[Any] = []
    pulse = Pulse([(FINE_TUNE, None)], lambda *watch: told.append(watch))

    async def main() -> None:
        for path in paths:
            await ask(pulse, path)

    run(main())
    assert set(told) <= {(FINE_TUNE, None)}
    return len(told)


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ((LIST, WATCH), 0),
        ((LIST, WATCH, WATCH, WATCH), 0),
        ((LIST, WATCH, LIST, WATCH), 1),
        ((LIST, WATCH, LIST, LIST + "?continue=1", WATCH, WATCH), 1),
        ((LIST, WATCH, LIST, WATCH, LIST, WATCH), 2),
        ((LIST, WATCH, LIST), 0),
    ],
)
def test_a_resync_is_asked_for_when_a_watch_had_to_list_again_and_streams(
    paths: tuple[str, ...], expected: int
) -> None:
    assert relists(*paths) == expected


def test_lists_that_lead_nowhere_are_held_back_and_a_stream_ends_that() -> None:
    async def main() -> None:
        clock = asyncio.get_running_loop().time
        pulse = Pulse([(FINE_TUNE, None), (JOB, None)])

        async def seconds(path: str) -> float:
            began = clock()
            await ask(pulse, path)
            return clock() - began

        waits = [await seconds(LIST) for _ in range(8)]
        assert waits[0] == 0
        assert 1 <= waits[1] <= 2
        assert 2 <= waits[2] <= 4
        assert all(10 <= wait <= 20 for wait in waits[5:]), "less than the minute that kopf gives a request"
        assert await seconds(LIST + "?continue=1") == 0, "the next page"
        assert await seconds(JOB.path()) == 0, "another watch"
        assert await seconds(WATCH) == 0
        assert await seconds(LIST) == 0

    run(main())


# --- what kopf must not see


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 405, 409, 410, 422])
@pytest.mark.parametrize("path", [LIST, WATCH, "/apis"])
def test_a_refusal_that_would_end_kopf_looks_like_a_lost_connection(status: int, path: str) -> None:
    with pytest.raises(aiohttp.ClientConnectionError, match=str(status)):
        run(ask(Pulse([(FINE_TUNE, None)]), path, answer(status)))


@pytest.mark.parametrize("status", [200, 403, 429, 500, 503])
@pytest.mark.parametrize("path", [LIST, WATCH, "/apis"])
def test_what_kopf_can_take_is_handed_on(status: int, path: str) -> None:
    response = answer(status)
    assert run(ask(Pulse([(FINE_TUNE, None)]), path, response)) is response


@pytest.mark.parametrize("path", [LIST, WATCH, "/apis"])
def test_a_proxys_page_is_not_handed_on(path: str) -> None:
    with pytest.raises(aiohttp.ClientConnectionError, match="text/html"):
        run(ask(Pulse([(FINE_TUNE, None)]), path, answer(200, content_type="text/html")))


def test_a_page_of_a_list_that_expired_ends_the_list() -> None:
    """As a lost connection kopf would ask for that very page again, for ever."""
    with pytest.raises(aiohttp.ClientPayloadError):
        run(ask(Pulse([(FINE_TUNE, None)]), LIST + "?continue=x", answer(410)))


def stream(*chunks: bytes | Exception) -> tuple[bytes, Exception | None, float]:
    """What comes through of a watch's body, how it ends, and how long that took."""

    async def main() -> tuple[bytes, Exception | None, float]:
        clock = asyncio.get_running_loop().time
        response = await ask(Pulse([(FINE_TUNE, None)]), WATCH, answer(200, *chunks))
        came, error, began = b"", None, clock()
        try:
            async for chunk in response.content.iter_chunked(1024):
                came += chunk
        except aiohttp.ClientError as caught:
            error = caught
        return came, error, clock() - began

    return run(main())


EVENTS = st.sampled_from(
    [
        line({"type": "ADDED", "object": {"metadata": {"name": "a"}}}),
        line({"type": "BOOKMARK", "object": {"code": 500}}),
        line({"type": "MODIFIED", "object": {"text": '{"type":"ERROR"', "more": '\n{"type":"ERROR","code":500}'}}),
        line({"type": "DELETED", "object": {"text": "ж" * 40}}),
        b"\n",
    ]
)


def cut(text: bytes, at: list[int]) -> list[bytes]:
    places = sorted({0, len(text), *(place % (len(text) + 1) for place in at)})
    return [text[a:b] for a, b in itertools.pairwise(places)]


@given(st.lists(EVENTS, max_size=4), st.lists(st.integers(0, 10_000), max_size=8))
def test_events_come_through_unchanged_however_the_stream_is_cut(events: list[bytes], at: list[int]) -> None:
    text = b"".join(events)
    came, error, _ = stream(*cut(text, at))
    assert came == text
    assert error is None


@given(
    st.lists(EVENTS, max_size=3), st.sampled_from([403, 429, 500, 504]), st.lists(st.integers(0, 10_000), max_size=8)
)
def test_no_error_event_comes_through_however_the_stream_is_cut(events: list[bytes], code: int, at: list[int]) -> None:
    text = b"".join(events)
    bad = line({"type": "ERROR", "object": {"kind": "Status", "code": code, "message": '"code":410 was before'}})
    came, error, _ = stream(*cut(text + bad, at))
    assert isinstance(error, aiohttp.ClientPayloadError)
    whole = came[: came.rfind(b"\n") + 1]
    assert (text + bad).startswith(came)
    assert len(whole) <= len(text), "kopf must not see the error's whole line"


@given(st.lists(EVENTS, max_size=3))
def test_too_old_comes_through_for_kopf_lists_again_then(events: list[bytes]) -> None:
    text = b"".join(events) + line({"type": "ERROR", "object": {"kind": "Status", "code": 410}})
    assert stream(text)[:2] == (text, None)


@pytest.mark.parametrize("half", [b'{"type":"ADDED","obj', b'{"type":"ERR'])
def test_half_an_event_at_the_end_is_an_error_and_no_event(half: bytes) -> None:
    whole = line({"type": "ADDED", "object": {}})
    for chunks in ([whole, half], [whole + half], [half]):
        _, error, _ = stream(*chunks)
        assert isinstance(error, aiohttp.ClientPayloadError)


@pytest.mark.parametrize(
    "chunks",
    [
        (),
        (b"",),
        (line({"type": "BOOKMARK"}),),
        (line({"type": "ERROR", "object": {"code": 500}}),),
        (line({"type": "BOOKMARK"}), aiohttp.ClientPayloadError("cut")),
    ],
)
def test_a_stream_that_is_over_as_soon_as_it_began_is_followed_by_a_pause(chunks: tuple[bytes | Exception]) -> None:
    """kopf opens it again at once, without end."""
    assert 1 <= stream(*chunks)[2] <= 2


def test_a_stream_that_ends_after_minutes_is_followed_by_none() -> None:
    async def main() -> None:
        clock = asyncio.get_running_loop().time

        class Slow(Content):
            async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
                await asyncio.sleep(300)
                yield line({"type": "BOOKMARK"})

        slow = answer()
        slow.content = Slow()
        began = clock()
        await read(await ask(Pulse([(FINE_TUNE, None)]), WATCH, slow))
        assert clock() - began == 300

    run(main())


# --- what is said


def test_what_keeps_a_watch_from_working_is_said_once_until_it_works(caplog: pytest.LogCaptureFixture) -> None:
    pulse = Pulse([(FINE_TUNE, None)])
    answers: list[Callable[[], Any]] = [
        lambda: answer(503),
        lambda: answer(401),
        lambda: aiohttp.ClientConnectionError("cannot connect"),
        lambda: answer(200),
        lambda: answer(200),
        lambda: TimeoutError(),
    ]

    async def main() -> None:
        for make in answers:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                await ask(pulse, WATCH, make())

    with caplog.at_level(logging.INFO):
        run(main())
    assert [record.getMessage() for record in caplog.records] == [
        "watch of finetunes does not work, tried again until it does: HTTP 503",
        "watch of finetunes works again",
        "watch of finetunes does not work, tried again until it does: TimeoutError: ",
    ]
