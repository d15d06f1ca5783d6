"""Kubernetes Events: what ``kubectl describe`` shows. Each is posted once, in the background, and may be lost.

Once for each time that it came about: a failure that passes and comes again a day later is news again.

An Event is a courtesy to people; no pass waits for one or fails because of one.
"""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Literal

from slmops.cluster.errors import ClusterError, Conflict, InternalError, Unavailable
from slmops.cluster.objects import EVENT, GROUP, Manifest

EventType = Literal["Normal", "Warning"]
QUEUE = 1000
REMEMBERED = 20_000
TRIES = 3
log = logging.getLogger(__name__)


class EventRecorder:
    """Posts events through ``create`` one by one."""

    def __init__(self, create: Callable[[Manifest], Awaitable[None]], instance: str) -> None:
        self._create = create
        self._instance = instance
        self._queue: asyncio.Queue[Manifest] = asyncio.Queue(QUEUE)
        self._known: OrderedDict[str, None] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
        self.dropped = 0
        """Events given up: the queue was full or the API server did not take them."""

    def start(self) -> None:
        """Begin to post."""
        self._task = asyncio.create_task(self._post_all(), name="events")

    async def stop(self) -> None:
        """Stop posting; what is queued is lost."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def record(self, regarding: Manifest, type: EventType, reason: str, message: str, since: str = "") -> None:
        """Queue an event unless the same was recorded before. ``since``: when what it tells of came about."""
        metadata = regarding["metadata"]
        parts = (metadata.get("uid", ""), reason, message, since)
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]
        if digest in self._known:
            self._known.move_to_end(digest)
            return
        event = _event(regarding, type, reason, message, digest, self._instance)
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self.dropped += 1
            return
        self._known[digest] = None
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    async def _post_all(self) -> None:
        while True:
            event = await self._queue.get()
            for attempt in range(1, TRIES + 1):
                try:
                    await self._create(event)
                except Conflict:
                    pass  # the name is made of the content, so it was posted before a restart
                except (Unavailable, InternalError) as error:
                    if attempt < TRIES:
                        await asyncio.sleep(getattr(error, "retry_after", None) or attempt)
                        continue
                    self.dropped += 1
                except ClusterError as error:
                    self.dropped += 1
                    log.debug("event %s not posted: %s", event["reason"], error.message)
                break


def _event(regarding: Manifest, type: EventType, reason: str, message: str, digest: str, instance: str) -> Manifest:
    metadata = regarding["metadata"]
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        # The name is the content's digest: another replica, or we after a restart, cannot post it again.
        "metadata": {"name": f"{metadata['name'][:200]}.{digest}", "namespace": metadata.get("namespace") or "default"},
        "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": f"{GROUP}/operator",
        "reportingInstance": instance[:128],
        "action": "Reconcile",
        "reason": reason[:128],
        "type": type,
        "note": message.encode()[:1024].decode(errors="ignore"),
        "regarding": {
            "apiVersion": regarding["apiVersion"],
            "kind": regarding["kind"],
            "name": metadata["name"],
            "namespace": metadata.get("namespace"),
            "uid": metadata.get("uid"),
            "resourceVersion": metadata.get("resourceVersion"),
        },
    }
