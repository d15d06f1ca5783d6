"""From the worker thread to whoever waits for an answer in the event loop."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator

from slm_edge.backend import Embedding, Piece, Request
from slm_edge.engine import Engine
from slm_edge.openai import ApiError


class Channel:
    """Pieces of one answer, in order. To wake a loop costs as much as to make a token of a small model, so it is woken once
    for all that has come meanwhile."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pieces: deque[Piece | ApiError] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._called = False

    def put(self, piece: Piece | ApiError) -> None:
        """Of any thread."""
        self._pieces.append(piece)
        if not self._called:  # else it is about to look, and finds this one, too
            self._called = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends, and nobody listens any more
                self._loop.call_soon_threadsafe(self._wake)

    async def get(self) -> Piece | ApiError:
        """The next one."""
        while not self._pieces:
            self._waiting = self._loop.create_future()
            await self._waiting
        return self._pieces.popleft()

    def _wake(self) -> None:
        self._called = False
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


async def pieces(engine: Engine, request: Request | Embedding, limit: float) -> AsyncGenerator[Piece, None]:
    """The pieces of a request as they come, the last one within ``limit`` seconds; closing the iterator cancels the
    generation. What is put into ``request.send`` besides ends it, too."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit
    late = ApiError(504, f"not done within {limit:.0f} s", code="timeout")
    channel = Channel(loop)
    request.send = channel.put
    engine.submit(request)
    alarm = loop.call_at(deadline, channel.put, late)
    try:
        while True:
            piece = await channel.get()
            if isinstance(piece, ApiError):
                raise piece
            if loop.time() > deadline:  # it was there already, so there was nothing to wait for
                raise late
            yield piece
            if piece.finish:
                return
    finally:
        alarm.cancel()
        request.cancelled.set()
