"""Signs of life of the watches, and repair of what would end them: an aiohttp middleware for kopf's HTTP session.

kopf hands neither bookmarks nor lists nor reconnects to handlers, so this looks at the requests themselves. A watch
is alive when it did anything: a request, an event, a bookmark. A frozen stream is reopened by kopf after its
inactivity timeout, which is a request, so a watch that is silent for longer than that has no task behind it.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import Any

import aiohttp

from slmops.cluster.objects import GVK

log = logging.getLogger(__name__)
ERROR = b'{"type":"ERROR"'
PAUSE = 1.0
LONGEST_PAUSE = 10.0
"""Less than half of kopf's time for a request, within which it falls."""
SHORT = 5.0
"""Seconds that a watch lasts at least where nothing is wrong; the API server ends them after minutes."""
Watch = tuple[GVK, str | None]
"""A kind, and the namespace or None for all."""


class Pulse:
    """Follows the watches of these kinds and namespaces."""

    def __init__(
        self,
        watches: Iterable[Watch],
        relisted: Callable[[GVK, str | None], None] = lambda gvk, namespace: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``relisted`` is told when a watch had to start over: events, deletions above all, may have been missed."""
        self._paths = {gvk.path(namespace): (gvk, namespace) for gvk, namespace in watches}
        self._relisted = relisted
        self._clock = clock
        self._beats: dict[Watch, float] = {}
        self._heard: dict[Watch, float] = {}
        self._listed: set[Watch] = set()
        self._lists: dict[Watch, int] = {}
        self._streaming: set[Watch] = set()
        self._problems: dict[Watch, str] = {}

    def begin(self) -> None:
        """From now on there are watches, and they have to show life."""
        self._beats = dict.fromkeys(self._paths.values(), self._clock())
        self._heard = dict(self._beats)

    def silence(self) -> dict[Watch, float]:
        """Seconds since the last sign of life of each watch's task."""
        return {watch: self._clock() - beat for watch, beat in self._beats.items()}

    def ages(self) -> dict[str, float]:
        """Seconds since the API server last told something, bookmarks included, by watch."""
        return {
            f"{gvk.plural}@{namespace}" if namespace else gvk.plural: self._clock() - heard
            for (gvk, namespace), heard in self._heard.items()
        }

    def not_started(self) -> list[Watch]:
        """The watches that have never streamed."""
        return [watch for watch in self._paths.values() if watch not in self._streaming]

    async def middleware(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Wraps every request of kopf."""
        watch = self._paths.get(request.url.path)
        if watch is None or request.method != "GET":
            return _not_fatal(await handler(request))
        self._beats[watch] = self._clock()
        try:
            if "watch" not in request.url.query and "continue" not in request.url.query:
                await self._before_list(watch)
            response = await handler(request)
            if response.status == 410 and "continue" in request.url.query:
                # A list whose next page is too old. kopf would ask for that page for ever; this makes it begin anew.
                response.close()
                raise aiohttp.ClientPayloadError("HTTP 410")
            response = _not_fatal(response)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._tell(watch, f"{type(error).__name__}: {error}")
            raise
        finally:
            self._beats[watch] = self._clock()
        self._tell(watch, f"HTTP {response.status}" if response.status >= 400 else "")
        if response.status < 400:
            self._heard[watch] = self._clock()
            if "watch" not in request.url.query:
                self._listed.add(watch)
            else:
                self._stream_begins(watch)
                response.content = _Stream(response.content, lambda: self._beat(watch))  # type: ignore[assignment]
        return response

    async def _before_list(self, watch: Watch) -> None:
        """Hold back a list when those before it led to no watch: kopf begins anew at once, and lists are dear."""
        tries = self._lists[watch] = self._lists.get(watch, -1) + 1
        if tries:
            await asyncio.sleep(min(PAUSE * 2.0 ** min(tries - 1, 8), LONGEST_PAUSE) * (1 + random.random()))  # noqa: S311

    def _tell(self, watch: Watch, problem: str) -> None:
        """Say once what keeps a watch from working, and once that it works again."""
        before = self._problems.pop(watch, "")
        if problem:
            self._problems[watch] = problem
        if problem and not before:
            log.warning("watch of %s does not work, tried again until it does: %s", watch[0].plural, problem)
        elif before and not problem:
            log.info("watch of %s works again", watch[0].plural)

    def _beat(self, watch: Watch) -> None:
        self._beats[watch] = self._heard[watch] = self._clock()

    def _stream_begins(self, watch: Watch) -> None:
        if watch in self._listed and watch in self._streaming:
            self._relisted(*watch)
        self._listed.discard(watch)
        self._lists.pop(watch, None)
        self._streaming.add(watch)


def _not_fatal(response: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
    """What ends kopf looks like a lost connection, which it tries again.

    That is any refusal but 403 and 429, above all 401 (credentials being renewed) and 404 (CRD being replaced), and a
    page that a proxy sends in place of the API server's answer.
    """
    refused = 300 <= response.status < 500 and response.status not in (403, 429)
    if refused or (response.status < 300 and response.content_type != "application/json"):
        response.close()
        raise aiohttp.ClientConnectionError(f"HTTP {response.status}, {response.content_type}")
    return response


class _Stream:
    """A response's content that notes every chunk, and ends at an error event instead of handing it to kopf.

    kopf gives up the whole process for any error event but "too old" (410) and for half an event; ending the stream
    makes it reconnect. It does so at once, hence the pause when a stream broke or was over as soon as it began.
    """

    def __init__(self, content: aiohttp.StreamReader, beat: Callable[[], None]) -> None:
        self._content, self._beat = content, beat

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncGenerator[bytes, None]:
        clock = asyncio.get_running_loop().time
        began, error = clock(), None
        try:
            async with aclosing(self._whole_events(size)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except aiohttp.ClientError as caught:
            error = caught
        if error or clock() - began < SHORT:
            await asyncio.sleep(PAUSE * (1 + random.random()))  # noqa: S311
        if error:
            raise error

    async def _whole_events(self, size: int) -> AsyncGenerator[bytes, None]:
        line_start, whole = b"", True
        async for chunk in self._content.iter_chunked(size):
            self._beat()
            text = line_start + chunk
            begin = 0 if text.startswith(ERROR) else text.find(b"\n" + ERROR)
            if begin >= 0 and b'"code":410' not in text[begin:]:
                raise aiohttp.ClientPayloadError("the watch ended with an error event")
            yield chunk
            whole = chunk.endswith(b"\n")
            line_start = text[text.rfind(b"\n") :][: len(ERROR) + 1] if b"\n" in text else text[: len(ERROR)]
        if not whole:
            raise aiohttp.ClientPayloadError("the watch ended in the middle of an event")
