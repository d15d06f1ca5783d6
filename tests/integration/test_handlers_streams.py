"""The real kopf when a stream freezes, breaks or says nonsense, and when the credentials are late."""

import asyncio

import pytest

from slmops import handlers
from slmops.cluster.connection import Connection
from slmops.cluster.objects import FINE_TUNE, NODE, POD
from tests.unit import virtualnet
from tests.unit.fakeapi import FakeApi
from tests.unit.fakeobjects import line
from tests.unit.watching import OUTAGES, WATCHED, Watching, lists, play

# --- what happens to a stream


def test_a_frozen_stream_is_noticed_and_opened_again() -> None:
    """The connection stays, and nothing comes: kopf#585 and others. Bookmarks make silence a sign."""

    async def scenario(api: FakeApi, watching: Watching) -> None:
        api.freeze()
        api.put(FINE_TUNE, "during")
        await asyncio.sleep(1)
        assert "during" not in watching.names()
        await watching.hears("during", handlers.INACTIVITY_TIMEOUT + 1)

    play(scenario)


def test_a_quiet_stream_with_bookmarks_is_left_open() -> None:
    async def scenario(api: FakeApi, watching: Watching) -> None:
        asked = [request for request in api.requests if request.path == FINE_TUNE.path() and "watch" in request.query]
        assert len(asked) == 1
        assert asked[0].query["allowWatchBookmarks"] == "true"
        assert 270 <= int(asked[0].query["timeoutSeconds"]) <= 330
        before = len(api.requests)
        await asyncio.sleep(265)
        assert len(api.requests) == before
        await asyncio.sleep(70)
        assert len(api.requests) == before + len(WATCHED), "one new watch each, after the server's timeout"
        assert lists(api) == 1
        assert watching.relisted == []

    play(scenario)


def test_a_watch_goes_on_from_the_last_bookmark() -> None:
    """Otherwise a kind on which nothing happens would be listed again after each compaction."""

    async def scenario(api: FakeApi, watching: Watching) -> None:
        for number in range(20):
            api.put(NODE, "busy", spec={"x": number})
        await asyncio.sleep(61)
        api.oldest = api.version
        api.cut()
        await asyncio.sleep(5)
        assert lists(api) == 1

    play(scenario)


GARBAGE = {
    "half a line": [b'{"type":"ADDED","object":{"meta'],
    "half a line after a whole one": [line({"type": "BOOKMARK", "object": {"metadata": {}}}), b'{"type":"AD'],
    "empty lines": [b"\n\n\n"],
    "unknown type": [b'{"type":"SURPRISE","object":{"metadata":{"name":"x"}}}\n'],
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_in_a_stream_is_no_end(what: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(api: FakeApi, watching: Watching) -> None:
        api.send(FINE_TUNE, *GARBAGE[what])
        await asyncio.sleep(0.1)
        api.cut()
        await asyncio.sleep(5)
        watching.alive()
        api.put(FINE_TUNE, "after")
        await watching.hears("after", 5)

    play(scenario)


def test_a_large_event_in_small_pieces_is_one_event() -> None:
    async def scenario(api: FakeApi, watching: Watching) -> None:
        text = "ж" * 500_000 + '{"type":"ERROR"' + '\n{"type":"ERROR"'
        metadata = {"name": "big", "resourceVersion": "500"}
        whole = line({"type": "ADDED", "object": {"kind": "FineTune", "metadata": metadata, "spec": {"t": text}}})
        api.send(FINE_TUNE, *(whole[at : at + 70_001] for at in range(0, len(whole), 70_001)))
        await watching.hears("big", 5)
        assert watching.bodies[-1]["spec"]["t"] == text

    play(scenario)


# --- credentials and discovery


def test_a_token_that_is_renewed_late_is_waited_for() -> None:
    async def scenario(api: FakeApi, watching: Watching) -> None:
        api.token = "canary"
        api.cut()
        await asyncio.sleep(60)
        watching.alive()
        api.token = None
        api.put(FINE_TUNE, "after")
        await watching.hears("after", handlers.LONGEST_BACKOFF + 2)

    async def main() -> None:
        async with FakeApi() as api:

            async def authorization(renew: bool) -> str | None:
                return "Bearer stale"

            watching = Watching(api, Connection(api.url, False, authorization))
            await watching.up()
            await scenario(api, watching)
            await watching.stop()

    virtualnet.run(main())


def test_a_token_file_that_is_away_for_a_moment_is_no_end() -> None:
    async def main() -> None:
        away = False

        async def authorization(renew: bool) -> str | None:
            if away:
                raise FileNotFoundError("token")
            return None

        async with FakeApi() as api:
            watching = Watching(api, Connection(api.url, False, authorization))
            await watching.up()
            away = True
            api.cut()
            await asyncio.sleep(60)
            watching.alive()
            away = False
            api.put(FINE_TUNE, "after")
            await watching.hears("after", handlers.LONGEST_BACKOFF + 2)
            await watching.stop()

    virtualnet.run(main())


@pytest.mark.parametrize("what", ["503", "401", "404", "connection broken", "no answer", "a proxy's page"])
def test_an_api_server_that_comes_up_late_is_waited_for(what: str) -> None:
    async def scenario(api: FakeApi, watching: Watching) -> None:
        await asyncio.sleep(120)
        watching.alive()
        api.faults.clear()
        await watching.up(150)
        api.put(FINE_TUNE, "after")
        await watching.hears("after", 5)

    play(scenario, begin=OUTAGES[what], up=False)


def test_kinds_that_are_not_asked_for_are_not_watched() -> None:
    async def scenario(api: FakeApi, watching: Watching) -> None:
        await asyncio.sleep(60)
        assert api.streams(POD) == 0
        paths = {request.path for request in api.requests if "watch" in request.query}
        assert paths == {gvk.path() for gvk in WATCHED}

    play(scenario)
