"""kopf's processing of events is replaced by one call. Where it is not, or where the call fails, events still arrive."""

import asyncio
import logging

import pytest
from kopf._core.reactor import queueing

from slmops import handlers
from slmops.cluster.objects import FINE_TUNE, GVK, Manifest
from tests.unit.fakeapi import FakeApi
from tests.unit.watching import Watching, play


def test_a_kopf_that_processes_events_in_its_own_way_tells_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queueing, "watcher", handlers._kopfs_own)

    async def scenario(api: FakeApi, watching: Watching) -> None:
        api.put(FINE_TUNE, "a")
        api.drop(FINE_TUNE, "a")
        await asyncio.sleep(1)
        assert watching.events == [(FINE_TUNE, "ADDED", "a"), (FINE_TUNE, "DELETED", "a")]

    play(scenario)


def test_an_event_that_cannot_be_taken_in_is_told_and_no_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Watching._take

    def picky(self: Watching, gvk: GVK, type: str | None, body: Manifest) -> None:
        if body["metadata"]["name"] == "bad":
            raise KeyError("spec")
        take(self, gvk, type, body)

    monkeypatch.setattr(Watching, "_take", picky)

    async def scenario(api: FakeApi, watching: Watching) -> None:
        api.put(FINE_TUNE, "bad")
        api.put(FINE_TUNE, "good")
        await watching.hears("good", 5)

    with caplog.at_level(logging.ERROR):
        play(scenario)
    assert [record.message for record in caplog.records] == ["an event of finetunes could not be taken in"]
