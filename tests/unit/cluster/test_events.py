"""Kubernetes Events: each posted once, never in anybody's way, and always of a form that the API server takes."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from slmops.cluster.errors import ClusterError, Conflict, Forbidden, InternalError, Invalid, Unavailable
from slmops.cluster.events import QUEUE, TRIES, EventRecorder
from slmops.cluster.objects import Manifest
from tests.unit.virtualtime import run


class Server:
    """Takes events, or refuses them as told."""

    def __init__(self, *answers: ClusterError | None) -> None:
        self.answers = list(answers)
        self.tried: list[tuple[float, str]] = []
        self.posted: list[Manifest] = []
        self.hangs = False

    async def create(self, event: Manifest) -> None:
        self.tried.append((asyncio.get_running_loop().time() - 1000, event["reason"]))
        if self.hangs:
            await asyncio.sleep(10**6)
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        if any(known["metadata"]["name"] == event["metadata"]["name"] for known in self.posted):
            raise Conflict("exists already")
        self.posted.append(event)


def resource(name: str = "a", uid: str = "u1") -> Manifest:
    metadata = {"name": name, "namespace": "farm", "uid": uid, "resourceVersion": "7"}
    return {"apiVersion": "slmops.dev/v1alpha1", "kind": "FineTune", "metadata": metadata}


def play(server: Server, scenario: Callable[[EventRecorder], Awaitable[Any]], wait: float = 3600) -> EventRecorder:
    async def main() -> EventRecorder:
        recorder = EventRecorder(server.create, "operator_1234")
        recorder.start()
        await scenario(recorder)
        await asyncio.sleep(wait)
        await recorder.stop()
        return recorder

    return run(main())


def saying(*reasons: str) -> Callable[[EventRecorder], Awaitable[None]]:
    async def scenario(recorder: EventRecorder) -> None:
        for reason in reasons:
            recorder.record(resource(), "Warning", reason, "text")

    return scenario


def test_an_event_tells_of_its_object() -> None:
    server = Server()
    play(server, saying("Trained"))
    (event,) = server.posted
    assert (event["apiVersion"], event["kind"]) == ("events.k8s.io/v1", "Event")
    assert event["metadata"]["namespace"] == "farm"
    assert (event["type"], event["reason"], event["note"]) == ("Warning", "Trained", "text")
    assert event["regarding"] == {
        "apiVersion": "slmops.dev/v1alpha1",
        "kind": "FineTune",
        "name": "a",
        "namespace": "farm",
        "uid": "u1",
        "resourceVersion": "7",
    }
    assert (event["reportingController"], event["reportingInstance"]) == ("slmops.dev/operator", "operator_1234")


def test_an_event_is_posted_once_however_often_it_is_recorded() -> None:
    server = Server()
    play(server, saying("Trained", "Trained", "Failed", "Trained", "Failed"))
    assert [event["reason"] for event in server.posted] == ["Trained", "Failed"]
    assert len(server.tried) == 2


def test_another_message_and_another_object_are_another_event() -> None:
    server = Server()

    async def scenario(recorder: EventRecorder) -> None:
        for body, message in ((resource(), "x"), (resource(), "y"), (resource(uid="u2"), "x"), (resource(), "x")):
            recorder.record(body, "Normal", "Trained", message)

    play(server, scenario)
    assert len({event["metadata"]["name"] for event in server.posted}) == 3


def test_what_passes_and_comes_again_is_told_again_and_each_time_once() -> None:
    server = Server()

    async def scenario(recorder: EventRecorder) -> None:
        for since in ("2026-03-01T12:00:00Z", "2026-03-01T12:00:00Z", "2026-03-02T12:00:00Z", "2026-03-02T12:00:00Z"):
            recorder.record(resource(), "Warning", "NodesNotServing", "Ready: 1 of 2 nodes serve", since)

    play(server, scenario)
    assert len(server.tried) == len(server.posted) == 2


def test_after_a_restart_the_same_event_has_the_same_name_and_counts_as_posted() -> None:
    server = Server()
    play(server, saying("Trained"))
    again = play(server, saying("Trained"))
    assert len(server.tried) == 2
    assert len(server.posted) == 1
    assert again.dropped == 0


HUGE = "ж" * 5000


def test_the_api_servers_limits_are_kept() -> None:
    server = Server()

    async def scenario(recorder: EventRecorder) -> None:
        recorder.record(resource("n" * 253), "Normal", "R" * 500, HUGE)

    play(server, scenario)
    (event,) = server.posted
    assert len(event["metadata"]["name"]) <= 253
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", event["metadata"]["name"])
    assert len(event["note"].encode()) <= 1024
    assert event["note"] == HUGE[: len(event["note"])], "cut between characters"
    assert len(event["reason"]) <= 128
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", event["eventTime"])


def test_an_event_about_a_cluster_scoped_object_goes_to_the_default_namespace() -> None:
    server = Server()

    async def scenario(recorder: EventRecorder) -> None:
        recorder.record({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}, "Normal", "R", "m")

    play(server, scenario)
    assert server.posted[0]["metadata"]["namespace"] == "default"


@pytest.mark.parametrize("error", [Unavailable("away"), InternalError("failed calling webhook")])
def test_an_event_waits_for_an_api_server_that_is_away_and_is_given_up_in_the_end(error: ClusterError) -> None:
    server = Server(*[error] * TRIES)
    recorder = play(server, saying("Lost", "Next"))
    assert [reason for _, reason in server.tried] == ["Lost"] * TRIES + ["Next"]
    assert [round(time) for time, _ in server.tried] == [0, 1, 3, 3]
    assert recorder.dropped == 1


def test_the_server_may_say_how_long_to_wait() -> None:
    server = Server(Unavailable("busy", retry_after=20.0))
    recorder = play(server, saying("Late"))
    assert [round(time) for time, _ in server.tried] == [0, 20]
    assert recorder.dropped == 0


@pytest.mark.parametrize("refusal", [Forbidden("namespace is being terminated"), Invalid("no")])
def test_a_refused_event_is_given_up_at_once_and_keeps_nobody_waiting(refusal: ClusterError) -> None:
    server = Server(refusal)
    recorder = play(server, saying("Refused", "Next"))
    assert server.tried == [(0, "Refused"), (0, "Next")]
    assert recorder.dropped == 1
    assert [event["reason"] for event in server.posted] == ["Next"]


def test_recording_never_waits_and_what_is_too_much_is_counted() -> None:
    server = Server()
    server.hangs = True

    async def scenario(recorder: EventRecorder) -> None:
        await asyncio.sleep(0)
        recorder.record(resource(), "Normal", "Hangs", "m")
        await asyncio.sleep(1)
        for number in range(QUEUE + 5):
            recorder.record(resource(), "Normal", f"R{number}", "m")
        assert recorder.dropped == 5
        assert len(recorder._known) == QUEUE + 1, "what was given up may be recorded again"

    assert play(server, scenario, wait=1).dropped == 5
    assert [reason for _, reason in server.tried] == ["Hangs"]


def test_memory_of_posted_events_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slmops.cluster.events.REMEMBERED", 20)
    server = Server()

    async def scenario(recorder: EventRecorder) -> None:
        for number in (*range(25), 24, 0):
            recorder.record(resource(), "Normal", "R", str(number))
        assert len(recorder._known) == 20

    play(server, scenario)
    assert len(server.posted) == 25
    assert len(server.tried) == 26, "the first is forgotten, and tried again; the last is not"
