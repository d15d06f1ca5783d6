"""The work queue: which resource to reconcile next, how many at once, and how long to leave a failing one alone.

Watches only ``wake`` a key. Wakes of one key coalesce, a key is never reconciled twice at a time, and a wake during
its pass means one more pass afterwards, so the last pass always starts after the last event. Namespaces take turns,
so that ten thousand resources in one of them do not keep another waiting.

    idle --wake--> ready --worker--> running --> idle, with a timer when there is a next deadline
      ^              ^                  |
      '--- timer ----+---- woken while running, or failed (after a back-off)

A key whose pass took long rests as long before the next one: a fleet of thousands makes events all the time, and the next
pass sees all that came meanwhile.

A key that failed waits longer each time, however often it is woken: its own writes make events too. What a person changed
ends the wait, at most once a second.
"""

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from slmops.cluster.errors import ClusterError, NotLeading, Unavailable
from slmops.cluster.objects import Key
from slmops.logs import reconcile_context

Outcome = Literal["success", "error", "unavailable"]
BACKOFF_FIRST = 1.0
BACKOFF_LAST = 60.0
OUTAGE_LAST = 15.0
"""Longest pause of all passes while the API server does not answer."""
OUTAGE_AFTER = 3
"""So many passes in a row without an answer make an outage; fewer may be one object's bad luck."""
DEADLINE_FLOOR = 0.1
"""A pass that asks for another at once would spin."""
REST_FROM, REST_LAST = 0.1, 1.0
"""Passes shorter than this are no burden; nobody rests longer than that."""
PASS_TIMEOUT = 300.0
"""No pass takes this long; one that does hangs and is counted as failed."""
log = logging.getLogger(__name__)


@dataclass(slots=True)
class _State:
    """What is known of one key. ``ready`` and ``running`` may both be true: woken during its pass."""

    ready: bool = False
    running: bool = False
    ready_since: float = 0.0
    timer: asyncio.TimerHandle | None = None
    due: float = 0.0
    failures: int = 0
    outages: int = 0
    failed_at: float = 0.0
    blocked_until: float = 0.0
    asked: object = None
    """What was asked of the resource when its last pass began."""
    error: str = ""


class Loop:
    """A queue of keys and the workers that reconcile them."""

    def __init__(
        self,
        reconcile: Callable[[Key], Awaitable[float | None]],
        workers: int = 8,
        *,
        clock: Callable[[], float] | None = None,
        jitter: Callable[[], float] = random.random,
        observe: Callable[[Key, Outcome, float], None] = lambda key, outcome, seconds: None,
        asked: Callable[[Key], object] = lambda key: None,
    ) -> None:
        """``reconcile`` returns the seconds until the key's next deadline, or None. ``jitter`` returns 0 to 1. ``asked``
        returns what people ask of a resource, in any form that can be compared."""
        self._reconcile = reconcile
        self._workers = workers
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._jitter = jitter
        self._observe = observe
        self._asked = asked
        self._states: dict[Key, _State] = {}
        self._queues: OrderedDict[str, OrderedDict[Key, None]] = OrderedDict()
        """Ready keys per namespace. The order of the namespaces is their turn: the first one is next."""
        self._available = asyncio.Event()
        self._idle: set[asyncio.Task[None]] = set()
        self._busy: dict[asyncio.Task[None], float] = {}
        """Workers in a pass, with the time that it began."""
        self._resting: dict[Key, float] = {}
        """Until when a key rests."""
        self._held_until = 0.0
        self._outage = 0
        self._stopping = False
        self._last_start = 0.0

    # --- asking for work

    def wake(self, key: Key, after: float = 0.0) -> None:
        """Reconcile ``key`` as soon as it is its turn, or after some seconds."""
        state = self._states.setdefault(key, _State())
        now = self._clock()
        if now < state.blocked_until and self._asked(key) != state.asked:
            state.blocked_until = min(state.blocked_until, state.failed_at + BACKOFF_FIRST)
        due = max(now + after, state.blocked_until, self._resting.get(key, 0.0))
        if due <= now:
            self._make_ready(key, state)
        elif not state.ready and (state.timer is None or due < state.due):
            self._schedule(key, state, due)

    def _make_ready(self, key: Key, state: _State) -> None:
        self._unschedule(state)
        if state.ready:
            return
        state.ready, state.ready_since = True, self._clock()
        if not state.running:  # a running one is queued when its pass is over
            self._enqueue(key)

    def _enqueue(self, key: Key) -> None:
        self._queues.setdefault(key.namespace, OrderedDict())[key] = None
        self._available.set()

    def _schedule(self, key: Key, state: _State, due: float) -> None:
        self._unschedule(state)
        state.due = due
        delay = max(0.0, due - self._clock())
        state.timer = asyncio.get_running_loop().call_later(delay, self._make_ready, key, state)

    @staticmethod
    def _unschedule(state: _State) -> None:
        if state.timer is not None:
            state.timer.cancel()
            state.timer = None

    # --- doing it

    async def run(self) -> None:
        """Reconcile until cancelled or stopped."""
        async with asyncio.TaskGroup() as group:
            self._idle = {group.create_task(self._work(), name=f"worker-{number}") for number in range(self._workers)}

    async def stop(self, timeout: float) -> None:  # noqa: ASYNC109  (returns in time instead of raising)
        """Start no more passes; give the running ones this long, then cancel them."""
        self._stopping = True
        for worker in self._idle:
            worker.cancel()
        if self._busy:
            _, late = await asyncio.wait(self._busy, timeout=timeout)
            for worker in late:
                worker.cancel()

    async def _work(self) -> None:
        me = asyncio.current_task()
        assert me is not None
        while not self._stopping:
            hold = self._held_until - self._clock()
            if hold > 0:
                await asyncio.sleep(hold)
            elif not self._queues:
                self._available.clear()
                await self._available.wait()
            else:
                key = self._next()
                self._idle.discard(me)
                self._busy[me] = self._clock()
                try:
                    await self._pass(key)
                finally:
                    del self._busy[me]
                self._idle.add(me)
                await asyncio.sleep(0)  # passes that never wait must not keep the Lease from being renewed

    def _next(self) -> Key:
        """The next namespace's oldest ready key; the namespace goes to the end of the line."""
        namespace, queue = self._queues.popitem(last=False)
        key, _ = queue.popitem(last=False)
        if queue:
            self._queues[namespace] = queue
        state = self._states[key]
        state.ready, state.running = False, True
        if state.failures or state.outages:  # to look costs as much as a small pass, so it is done where it matters
            state.asked = self._asked(key)
        self._last_start = self._clock()
        return key

    async def _pass(self, key: Key) -> None:
        state, started = self._states[key], self._clock()
        deadline: float | None = None
        outcome: Outcome = "success"
        with reconcile_context(key.kind, key.namespace, key.name):
            try:
                async with asyncio.timeout(PASS_TIMEOUT):
                    deadline = await self._reconcile(key)
                self._succeeded(state)
                self._rest(key, self._clock() - started)
            except (Unavailable, NotLeading) as error:
                outcome, deadline = "unavailable", self._unavailable(key, state, error)
            except Exception as error:
                outcome, deadline = "error", self._failed(key, state, error)
            finally:
                self._finish(key, state, deadline)
        self._observe(key, outcome, self._clock() - started)

    def _finish(self, key: Key, state: _State, deadline: float | None) -> None:
        state.running = False
        wait = max(state.blocked_until, self._resting.get(key, 0.0)) - self._clock()
        if state.ready and wait <= 0:
            self._enqueue(key)
            return
        if state.ready:  # woken during a pass that failed, or took long
            state.ready, deadline = False, wait
        if wait > 0 and state.timer is not None and state.due < self._clock() + wait:
            self._unschedule(state)  # an event during the pass that would be looked at too soon
            deadline = wait if deadline is None else min(deadline, wait)
        if deadline is not None:
            due = self._clock() + max(deadline, DEADLINE_FLOOR)
            if state.timer is None or due < state.due:
                self._schedule(key, state, due)
        if state.timer is None:
            del self._states[key]

    def _rest(self, key: Key, took: float) -> None:
        if took >= REST_FROM:
            now = self._clock()
            self._resting = {other: until for other, until in self._resting.items() if until > now}
            self._resting[key] = now + min(took, REST_LAST)

    def _succeeded(self, state: _State) -> None:
        if state.error:
            log.info("recovered after %d failed passes", state.failures)
        if self._outage >= OUTAGE_AFTER:
            log.warning("API server is usable again")
        state.failures = state.outages = self._outage = 0
        state.error, state.blocked_until, self._held_until = "", 0.0, 0.0

    def _failed(self, key: Key, state: _State, error: Exception) -> float:
        state.failures += 1
        self._outage = 0
        delay = self._block(key, state, self._backoff(state.failures, BACKOFF_LAST))
        text = f"{type(error).__name__}: {error}"
        if text != state.error:
            state.error = text
            trace = None if isinstance(error, ClusterError) else error
            log.error("pass failed, next try in %.1f s and then less often: %s", delay, text, exc_info=trace)
        return delay

    def _unavailable(self, key: Key, state: _State, error: Unavailable | NotLeading) -> float:
        """The API server's fault, not the key's: all passes pause, for longer the longer nothing succeeds."""
        state.outages += 1
        self._outage += 1
        if self._outage >= OUTAGE_AFTER:
            pause = self._backoff(self._outage - OUTAGE_AFTER, OUTAGE_LAST)
            self._held_until = max(self._held_until, self._clock() + pause)
        if self._outage == OUTAGE_AFTER:
            log.warning("API server is not usable, passes pause: %s", error)
        wait = getattr(error, "retry_after", None) or self._backoff(state.outages, BACKOFF_LAST)
        return self._block(key, state, wait)

    def _block(self, key: Key, state: _State, delay: float) -> float:
        """Let the key wait so long, or a second where its pass did not see what is asked by now."""
        asked = self._asked(key)
        if state.failures + state.outages > 1 and asked != state.asked:
            delay = min(delay, BACKOFF_FIRST)
        state.asked, state.failed_at = asked, self._clock()
        state.blocked_until = state.failed_at + delay
        return delay

    def _backoff(self, failures: int, last: float) -> float:
        """Doubling seconds, each with a fifth of jitter so that keys that failed together do not return together."""
        base = min(last, BACKOFF_FIRST * 2.0 ** max(0, min(failures - 1, 16)))
        return base * (0.8 + 0.2 * self._jitter())

    # --- telling how it goes

    @property
    def pending(self) -> int:
        """Keys that wait for a worker."""
        return sum(len(queue) for queue in self._queues.values())

    def oldest_pending(self) -> float:
        """Seconds that the longest waiting key waits; 0 when none does."""
        oldest = min((self._states[next(iter(queue))].ready_since for queue in self._queues.values()), default=None)
        return 0.0 if oldest is None else self._clock() - oldest

    def longest_pass(self) -> float:
        """Seconds that the longest running pass runs; 0 when none does."""
        return max((self._clock() - started for started in self._busy.values()), default=0.0)

    def stalled(self) -> float:
        """Seconds that keys are waiting although workers are idle and nothing holds them: a fault of this class."""
        if not self._queues or not self._idle or self._stopping or self._held_until > self._clock():
            return 0.0
        return self._clock() - max(self._last_start, self._held_until, self._clock() - self.oldest_pending())
