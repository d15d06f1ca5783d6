"""The work queue when passes fail: back-off, who may shorten it, errors that are told once, outages."""

import asyncio
import logging

import pytest

from slmops.cluster.errors import Invalid, Unavailable
from slmops.cluster.objects import Key
from slmops.loop import BACKOFF_LAST, OUTAGE_LAST, PASS_TIMEOUT, Loop
from tests.unit.looping import A, B, Recorder, play
from tests.unit.virtualtime import run


def test_a_failing_key_is_left_alone_for_longer_and_longer() -> None:
    reconcile = Recorder()
    reconcile.answers[A] = [ValueError("broken")] * 9

    async def scenario(loop: Loop) -> None:
        loop.wake(A)
        await asyncio.sleep(1000)

    play(reconcile, scenario)
    pauses = [after - before for before, after in zip(reconcile.times(), reconcile.times()[1:], strict=False)]
    assert pauses == [1, 2, 4, 8, 16, 32, BACKOFF_LAST, BACKOFF_LAST, BACKOFF_LAST]


def test_success_ends_the_back_off() -> None:
    reconcile = Recorder()
    reconcile.answers[A] = [ValueError(), ValueError(), None, ValueError(), None]

    async def scenario(loop: Loop) -> None:
        loop.wake(A)
        await asyncio.sleep(100)
        loop.wake(A)
        await asyncio.sleep(100)

    play(reconcile, scenario)
    assert reconcile.times() == [0, 1, 3, 100, 101]


def test_no_event_defeats_the_back_off() -> None:
    """A pass that makes something and then fails wakes itself, over and over."""
    reconcile = Recorder()
    reconcile.answers[A] = [ValueError()] * 100

    async def scenario(loop: Loop) -> None:
        for _ in range(300):
            loop.wake(A)
            await asyncio.sleep(0.1)

    play(reconcile, scenario)
    assert reconcile.times() == [0, 1, 3, 7, 15]


@pytest.mark.parametrize("after", [0, 0.25])
def test_an_event_during_a_failing_pass_does_not_defeat_it_either(after: float) -> None:
    reconcile = Recorder(seconds=0.5)
    reconcile.answers[A] = [ValueError()] * 100

    async def scenario(loop: Loop) -> None:
        for _ in range(299):
            loop.wake(A, after)
            await asyncio.sleep(0.1)

    play(reconcile, scenario)
    assert [time - after for time in reconcile.times()] == [0, 1.5, 4, 8.5, 17]


@pytest.mark.parametrize(("error", "least"), [(ValueError(), 9), (Unavailable("slow down", retry_after=300), 3)])
def test_what_a_person_changes_is_looked_at_soon_and_once_a_second_at_most(error: Exception, least: int) -> None:
    reconcile = Recorder()
    reconcile.answers[A] = [*[ValueError()] * 6, *[error] * 100]  # the next try would be after 32 s
    wish = 0

    async def scenario(loop: Loop) -> None:
        nonlocal wish
        loop.wake(A)
        await asyncio.sleep(40)
        before = len(reconcile.passes)
        wish += 1
        loop.wake(A)
        await asyncio.sleep(0.01)
        assert reconcile.times()[before:] == [40]
        loop.wake(A)
        await asyncio.sleep(4)
        assert len(reconcile.passes) == before + 1, "it has been looked at"
        before = len(reconcile.passes)
        for _ in range(100):  # somebody who changes it all the time
            wish += 1
            loop.wake(A)
            await asyncio.sleep(0.1)
        assert least <= len(reconcile.passes) - before <= 11

    play(reconcile, scenario, asked=lambda key: wish)


def test_what_a_person_changes_during_a_failing_pass_is_not_left_to_the_back_off() -> None:
    reconcile = Recorder(seconds=2)
    reconcile.answers[A] = [ValueError()] * 6
    wish = 0

    async def scenario(loop: Loop) -> None:
        nonlocal wish
        loop.wake(A)
        while len(reconcile.passes) < 6:  # noqa: ASYNC110  (virtual time)
            await asyncio.sleep(1)
        wish += 1
        loop.wake(A)
        await asyncio.sleep(100)

    play(reconcile, scenario, asked=lambda key: wish)
    assert reconcile.times()[6] - reconcile.times()[5] == 3  # its two seconds, and one


def test_the_same_error_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    reconcile = Recorder()
    reconcile.answers[A] = [ValueError("one")] * 3 + [ValueError("two")] * 2

    async def scenario(loop: Loop) -> None:
        loop.wake(A)
        await asyncio.sleep(1000)

    with caplog.at_level(logging.INFO):
        play(reconcile, scenario)
    errors = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 2
    assert "one" in errors[0]
    assert "two" in errors[1]
    assert [record.message for record in caplog.records if "recovered" in record.message]


def test_one_failing_key_does_not_hold_up_others() -> None:
    reconcile = Recorder()
    reconcile.answers[A] = [Invalid("no")] * 100

    async def scenario(loop: Loop) -> None:
        loop.wake(A)
        await asyncio.sleep(20)
        loop.wake(B)
        await asyncio.sleep(0.01)
        assert reconcile.times(B) == [20]

    play(reconcile, scenario)


def test_a_hanging_pass_is_ended_and_counted_as_failed() -> None:
    reconcile = Recorder(seconds=10 * PASS_TIMEOUT)

    async def scenario(loop: Loop) -> None:
        loop.wake(A)
        await asyncio.sleep(PASS_TIMEOUT / 2)
        assert loop.longest_pass() == PASS_TIMEOUT / 2
        reconcile.seconds = 0
        await asyncio.sleep(PASS_TIMEOUT)

    play(reconcile, scenario)
    assert reconcile.times() == [0, PASS_TIMEOUT + 1]


def test_an_outage_pauses_all_keys_and_ends_for_all_at_once() -> None:
    """Ten thousand keys must not each ask a server that is down, nor wait a minute once it is back."""
    keys = [Key("FineTune", "farm", f"k{number}") for number in range(10_000)]
    down = True
    asked = 0
    done: list[float] = []

    async def reconcile(key: Key) -> float | None:
        nonlocal asked
        await asyncio.sleep(0)
        if down:
            asked += 1
            raise Unavailable("connection refused")
        done.append(asyncio.get_running_loop().time() - 1000)
        return None

    async def main() -> None:
        nonlocal down
        loop = Loop(reconcile, jitter=lambda: 1.0)
        running = asyncio.create_task(loop.run())
        for key in keys:
            loop.wake(key)
        await asyncio.sleep(600)
        down = False
        await asyncio.sleep(BACKOFF_LAST + OUTAGE_LAST)
        assert loop.pending == 0
        await loop.stop(1)
        await running

    run(main())
    assert asked < 600
    assert len(done) == len(keys)
    assert sorted(done)[9_000] <= 600 + OUTAGE_LAST
    assert max(done) <= 600 + BACKOFF_LAST + OUTAGE_LAST


def test_one_unlucky_key_is_no_outage() -> None:
    reconcile = Recorder()
    reconcile.answers[A] = [Unavailable("webhook failed"), Unavailable("webhook failed")]

    async def scenario(loop: Loop) -> None:
        loop.wake(A)
        await asyncio.sleep(0.5)
        loop.wake(B)
        await asyncio.sleep(100)

    play(reconcile, scenario)
    assert reconcile.times(B) == [0.5]
    assert reconcile.times(A) == [0, 1, 3]


def test_retry_after_is_kept() -> None:
    reconcile = Recorder()
    reconcile.answers[A] = [Unavailable("slow down", retry_after=42)]

    async def scenario(loop: Loop) -> None:
        loop.wake(A)
        await asyncio.sleep(100)

    play(reconcile, scenario)
    assert reconcile.times() == [0, 42]
