"""A work queue in virtual time, whose passes are noted and do what a test tells them."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable

from slmops.cluster.objects import Key
from slmops.loop import Loop
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
        """When the passes of a key began, in seconds from the start."""
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
