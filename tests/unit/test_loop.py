"""The work queue: coalescing, one pass at a time, back-off, fairness, outages, stopping."""

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmops.cluster.errors import Invalid, Unavailable
from slmops.cluster.objects import Key
from slmops.loop import BACKOFF_LAST, OUTAGE_LAST, PASS_TIMEOUT, Loop
from tests.unit.virtualtime import run

A = Key("FineTune", "farm", "a")
B = Key("FineTune", "farm", "b")
Scenario = Callable[[Loop], Awaitable[None]]


class Recorder:
    """A reconcile that takes some time, notes when it ran, and fails or asks for deadlines as told."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.passes: list[tuple[float, Key]] = []
        self.answers: dict[Key, list[float | Exception | None]] = defaultdict(list)
        self.running: Counter[Key] = Counter()
        self.together = 0

    async def __call__(self, key: Key) -> float | None:
        self.passes.append((asyncio.get_running_loop().time() - 1000, key))
        self.running[key] += 1
        assert self.running[key] == 1, "two passes of one key at a time"
        self.together = max(self.together, self.running.total())
        try:
            if self.seconds:
                await asyncio.sleep(self.seconds)
        finally:
            self.running[key] -= 1
        answer = self.answers[key].pop(0) if self.answers[key] else None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def times(self, key: Key = A) -> list[float]:
        return [round(time, 3) for time, passed in self.passes if passed == key]


def play(
    reconcile: Recorder, scenario: Scenario, workers: int = 8, asked: Callable[[Key], object] = lambda key: None
) -> Loop:
    """Run the loop beside a scenario, in virtual time and without jitter."""

    async def main() -> Loop:
        loop = Loop(reconcile, workers, jitter=lambda: 1.0, asked=asked)
        running = asyncio.create_task(loop.run())
        await asyncio.sleep(0)
        await scenario(loop)
        await loop.stop(1000)
        await running
        return loop

    return run(main())


def test_wakes_before_a_pass_coalesce() -> None:
    reconcile = Recorder()

    async def scenario(loop: Loop) -> None:
        for _ in range(200):
            loop.wake(A)
        await asyncio.sleep(10)

    play(reconcile, scenario)
    assert reconcile.times() == [0]


def test_wakes_during_a_pass_mean_one_more_after_it() -> None:
    reconcile = Recorder(seconds=5)

    async def scenario(loop: Loop) -> None:
        loop.wake(A)
        await asyncio.sleep(1)
        for _ in range(200):
            loop.wake(A)
        await asyncio.sleep(60)

    play(reconcile, scenario)
    assert reconcile.times() == [0, 5]


def test_a_deadline_is_kept() -> None:
    reconcile = Recorder()
    reconcile.answers[A] = [30.0, 10.0]

    async def scenario(loop: Loop) -> None:
        loop.wake(A)
        await asyncio.sleep(1000)

    play(reconcile, scenario)
    assert reconcile.times() == [0, 30, 40]


def test_an_event_replaces_the_deadline() -> None:
    reconcile = Recorder()
    reconcile.answers[A] = [30.0]

    async def scenario(loop: Loop) -> None:
        loop.wake(A)
        await asyncio.sleep(20)
        loop.wake(A)
        await asyncio.sleep(1000)

    play(reconcile, scenario)
    assert reconcile.times() == [0, 20]


def test_the_earlier_of_two_delayed_wakes_counts() -> None:
    reconcile = Recorder()

    async def scenario(loop: Loop) -> None:
        loop.wake(A, after=20)
        loop.wake(A, after=10)
        loop.wake(A, after=15)
        await asyncio.sleep(1000)

    play(reconcile, scenario)
    assert reconcile.times() == [10]


def test_a_delayed_wake_during_a_pass_is_not_lost() -> None:
    reconcile = Recorder(seconds=5)

    async def scenario(loop: Loop) -> None:
        loop.wake(A)
        await asyncio.sleep(1)
        loop.wake(A, after=2)
        loop.wake(A, after=60)
        await asyncio.sleep(1000)

    play(reconcile, scenario)
    assert reconcile.times() == [0, 5]


def test_a_pass_that_asks_for_another_at_once_does_not_spin() -> None:
    reconcile = Recorder()
    reconcile.answers[A] = [0.0] * 1000

    async def scenario(loop: Loop) -> None:
        loop.wake(A)
        await asyncio.sleep(10)

    play(reconcile, scenario)
    assert len(reconcile.passes) <= 101


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


def test_an_event_during_a_failing_pass_does_not_defeat_it_either() -> None:
    reconcile = Recorder(seconds=0.5)
    reconcile.answers[A] = [ValueError()] * 100

    async def scenario(loop: Loop) -> None:
        for _ in range(299):
            loop.wake(A)
            await asyncio.sleep(0.1)

    play(reconcile, scenario)
    assert reconcile.times() == [0, 1.5, 4, 8.5, 17]


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


def test_namespaces_take_turns() -> None:
    reconcile = Recorder(seconds=1)
    late = Key("FineTune", "small", "x")

    async def scenario(loop: Loop) -> None:
        for number in range(10_000):
            loop.wake(Key("FineTune", "big", str(number)))
        await asyncio.sleep(10.5)
        loop.wake(late)
        await asyncio.sleep(2)
        assert reconcile.times(late) == [12]  # after the running pass and the big namespace's next turn

    play(reconcile, scenario, workers=1)


def test_keys_of_a_namespace_keep_their_order() -> None:
    reconcile = Recorder()
    keys = [Key("FineTune", "farm", str(number)) for number in range(100)]

    async def scenario(loop: Loop) -> None:
        for key in keys:
            loop.wake(key)
        await asyncio.sleep(1)

    play(reconcile, scenario, workers=1)
    assert [key for _, key in reconcile.passes] == keys


def test_no_more_passes_at_a_time_than_workers() -> None:
    reconcile = Recorder(seconds=1)

    async def scenario(loop: Loop) -> None:
        for number in range(50):
            loop.wake(Key("FineTune", f"ns{number % 7}", str(number)))
        await asyncio.sleep(100)

    play(reconcile, scenario, workers=4)
    assert reconcile.together == 4
    assert len(reconcile.passes) == 50


def test_wakes_without_workers_wait() -> None:
    """A new leader wakes everything and then begins."""
    reconcile = Recorder()

    async def main() -> None:
        loop = Loop(reconcile)
        for _ in range(100):
            loop.wake(A)
            loop.wake(B, after=1)
        await asyncio.sleep(50)
        assert reconcile.passes == []
        assert loop.pending == 2
        assert loop.oldest_pending() == 50
        running = asyncio.create_task(loop.run())
        await asyncio.sleep(1)
        await loop.stop(1)
        await running

    run(main())
    assert reconcile.times(A) == [50]
    assert reconcile.times(B) == [50]


def test_stopping_finishes_the_running_pass_and_starts_no_other() -> None:
    reconcile = Recorder(seconds=3)

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        loop = Loop(reconcile, workers=2)
        running = asyncio.create_task(loop.run())
        for number in range(10):
            loop.wake(Key("FineTune", "farm", str(number)))
        await asyncio.sleep(1)
        before = clock()
        await loop.stop(5)
        await running
        assert clock() - before == pytest.approx(2)

    run(main())
    assert len(reconcile.passes) == 2


def test_stopping_cancels_a_pass_that_takes_too_long() -> None:
    reconcile = Recorder(seconds=100)

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        loop = Loop(reconcile)
        running = asyncio.create_task(loop.run())
        loop.wake(A)
        await asyncio.sleep(1)
        before = clock()
        await loop.stop(5)
        await running
        assert clock() - before == pytest.approx(5)

    run(main())
    assert reconcile.running.total() == 0


def test_idle_keys_take_no_memory() -> None:
    async def scenario(loop: Loop) -> None:
        for number in range(100):
            loop.wake(Key("FineTune", f"ns{number}", "x"))
        await asyncio.sleep(10)

    loop = play(Recorder(), scenario)
    assert loop._states == {}
    assert loop._queues == {}


def test_passes_that_never_wait_let_others_run() -> None:
    async def reconcile(key: Key) -> float | None:
        return None

    async def main() -> None:
        loop = Loop(reconcile, workers=1)
        for number in range(1000):
            loop.wake(Key("FineTune", "farm", str(number)))
        running = asyncio.create_task(loop.run())
        for _ in range(20):
            await asyncio.sleep(0)
        assert 0 < loop.pending < 1000
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run(main())


WAKES = st.lists(
    st.tuples(
        st.sampled_from([Key("FineTune", namespace, name) for namespace in "xy" for name in "abc"]),
        st.floats(0, 5).map(lambda value: round(value, 1)),  # when
        st.sampled_from([0.0, 0.0, 0.5, 3.0]),  # after
        st.sampled_from(["ok", "ok", "fail", "away", "deadline"]),  # what the next pass of the key does
        st.booleans(),  # somebody changed it
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(WAKES, st.integers(1, 4), st.sampled_from([0.0, 0.3, 1.7]))
def test_whatever_the_order_of_events_the_last_pass_starts_after_the_last_of_them(
    wakes: list[tuple[Key, float, float, str, bool]], workers: int, seconds: float
) -> None:
    """The one promise that level-triggered code needs: no event is lost, and every key comes to rest."""
    reconcile = Recorder(seconds)
    due: dict[Key, float] = {}
    wishes: Counter[Key] = Counter()

    async def scenario(loop: Loop) -> None:
        now = asyncio.get_running_loop().time
        for key, when, after, action, changes in sorted(wakes, key=lambda wake: wake[1]):
            await asyncio.sleep(max(0.0, 1000 + when - now()))
            if action != "ok":
                answers: dict[str, float | Exception] = {
                    "fail": ValueError(), "away": Unavailable("x"), "deadline": 2.0
                }  # fmt: skip
                reconcile.answers[key].append(answers[action])
            wishes[key] += changes
            loop.wake(key, after)
            due[key] = now() - 1000
        await asyncio.sleep(3600)
        assert loop.pending == 0
        assert loop._states == {}
        assert loop._busy == {}

    play(reconcile, scenario, workers, lambda key: wishes[key])
    for key, last in due.items():
        assert max(time for time, passed in reconcile.passes if passed == key) >= last - 1e-6
