"""Virtual time for code that talks to a server in the same process: the clock jumps once the network is quiet.

Both ends of every connection live in one event loop, so what one end has sent the other can read at once. Before the
clock jumps the loop looks again for a moment, for kernels that hand a packet over a little later. While a thread works
for the loop, time is real.
"""

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from tests.unit.virtualtime import VirtualLoop

T = TypeVar("T")
MOMENT = 0.0002
"""Real seconds; a packet takes a tenth of it on the loopback."""
LONGEST = 5.0
"""Real seconds to wait for a thread, or for a signal where no timer is set; then the test hangs."""


BUSY = 20_000
"""Turns of the loop without the clock moving. Whoever needs more repeats something without a pause: from there on a
turn takes a second, so that the test comes to its end and can count the repetitions."""


class _Selector(selectors.DefaultSelector):
    loop: "NetworkLoop"
    turns = 0

    def select(self, timeout: float | None = None) -> Any:
        self.turns += 1
        if self.turns > BUSY:
            self.loop.now += 1.0
        if timeout is not None and timeout <= 0:
            return super().select(0)
        if timeout is None or self.loop.threads:
            events = super().select(LONGEST)
            if not events:
                raise RuntimeError("deadlock: every task waits, no timer is set and nothing comes from outside")
            return events
        events = super().select(0)
        if not events:
            time.sleep(MOMENT)  # not in the selector, which knows whole milliseconds only
            events = super().select(0)
        if not events:
            self.loop.now += timeout
            self.turns = 0
        return events


class NetworkLoop(VirtualLoop):
    """Like VirtualLoop, with sockets."""

    def __init__(self) -> None:
        self.now = 1000.0
        selector = _Selector()
        selector.loop = self
        asyncio.SelectorEventLoop.__init__(self, selector)
        self._clock_resolution = 1e-9
        self.threads = 0

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        future = super().run_in_executor(executor, func, *args)
        self.threads += 1
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _: object) -> None:
        self.threads -= 1


def run(main: Coroutine[Any, Any, T]) -> T:
    """Like asyncio.run, in virtual time."""

    async def to_the_end() -> T:
        try:
            return await main
        finally:
            await _end_the_rest()

    with asyncio.Runner(loop_factory=NetworkLoop) as runner:
        return runner.run(to_the_end())


async def _end_the_rest() -> None:
    """Cancel what a test that failed left behind, again and again: kopf swallows a cancellation here and there."""
    for _ in range(20):
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        if not rest:
            return
        for task in rest:
            task.cancel()
        await asyncio.wait(rest, timeout=10)


def now() -> float:
    """The virtual time; for code that takes its clock as an argument."""
    return asyncio.get_running_loop().time()
