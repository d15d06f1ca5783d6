"""The work queue: coalescing, one pass at a time, deadlines, fairness, stopping."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmops.cluster.errors import Unavailable
from slmops.cluster.objects import Key
from slmops.loop import Loop
from tests.unit.looping import A, B, Recorder, play
from tests.unit.virtualtime import run


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
    assert reconcile.times() == [0, 6], "after a rest"


@pytest.mark.parametrize(("took", "rest"), [(0.05, 0.0), (0.4, 0.4), (3.0, 1.0)])
def test_a_key_whose_pass_took_long_rests_as_long_and_no_other_does(took: float, rest: float) -> None:
    reconcile = Recorder(seconds=took)

    async def scenario(loop: Loop) -> None:
        loop.wake(A)
        await asyncio.sleep(took + 0.01)
        loop.wake(A)
        loop.wake(B)
        await asyncio.sleep(60)

    play(reconcile, scenario)
    first, second = reconcile.times(A)
    assert second - first == pytest.approx(max(took + 0.01, took + rest))
    assert reconcile.times(B) == pytest.approx([took + 0.01])


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
    assert reconcile.times() == [0, 6], "after a rest"


def test_a_pass_that_asks_for_another_at_once_does_not_spin() -> None:
    reconcile = Recorder()
    reconcile.answers[A] = [0.0] * 1000

    async def scenario(loop: Loop) -> None:
        loop.wake(A)
        await asyncio.sleep(10)

    play(reconcile, scenario)
    assert len(reconcile.passes) <= 101


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


@settings(max_examples=120)
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
