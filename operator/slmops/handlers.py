"""kopf, used for what it is good at here: keeping watches open. Each event goes to one function and nothing else.

No create, update or timer handlers, so kopf writes no finalizer and no annotation, and keeps no state. What it does by
default and an operator that shall survive its API server cannot have is switched off here, once:

    gives up after a minute without the API server      endless back-offs
    ends at a refused token or an error event            the session's middlewares (cluster/connection.py, pulse.py)
    stops seeing events of a frozen connection           server, connect and inactivity timeouts
    keeps a queue and a task for every object seen,      its watcher is replaced by a loop of a few lines, which costs
      and copies and compares it for handlers              a tenth of it
    watches CRDs and namespaces cluster-wide             scanning off: the kinds are known
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import kopf
from kopf._cogs.clients import watching
from kopf._core.engines.peering import Identity
from kopf._core.reactor import queueing

from slmops.cluster.client import PAGE
from slmops.cluster.connection import Connection
from slmops.cluster.objects import CHILDREN, GVK, MANAGED_BY, MANAGER, Manifest
from slmops.cluster.pulse import Pulse

Take = Callable[[GVK, str | None, Manifest], None]
"""Takes one event: kind, type (None where it comes from a list), body."""
INACTIVITY_TIMEOUT = 70.0
"""The API server sends a bookmark every minute, so a stream that is silent for longer is dead."""
LONGEST_BACKOFF = 30.0
log = logging.getLogger(__name__)


async def watch(
    connection: Connection,
    pulse: Pulse,
    gvks: Sequence[GVK],
    namespaces: Sequence[str],
    take: Take,
    started: asyncio.Event,
) -> None:
    """Watch these kinds for ever, in these namespaces or in all. Sets ``started`` once kopf has begun."""
    await kopf.operator(
        registry=_registry(connection, pulse, gvks, take),
        settings=_settings(gvks),
        standalone=True,
        identity=Identity("slmops"),  # kopf would ask for the user's name, and a container's user has none
        clusterwide=not namespaces,
        namespaces=list(namespaces),
        ready_flag=started,
    )


class _Registry(kopf.OperatorRegistry):
    """Tells kopf what to watch and how to log in, and our processing where an event goes."""

    def __init__(self, gvks: Sequence[GVK], take: Take) -> None:
        super().__init__()
        self.take = take
        self.kinds = {(gvk.group, gvk.version, gvk.plural): gvk for gvk in gvks}
        for gvk in gvks:
            kopf.on.event(gvk.group, gvk.version, gvk.plural, id=gvk.plural, registry=self)(self._handler)

    async def _handler(self, resource: Any, event: Any, **_: Any) -> None:
        """Makes kopf watch a kind; called only by a kopf whose processing is elsewhere than we know."""
        self.taken(resource, event)

    def taken(self, resource: Any, event: Any) -> None:
        """An event goes where it shall. What cannot be taken in is in the next list again."""
        try:
            self.take(self.kinds[resource.group, resource.version, resource.plural], event["type"], event["object"])
        except Exception:
            log.exception("an event of %s could not be taken in", resource.plural)


def _registry(connection: Connection, pulse: Pulse, gvks: Sequence[GVK], take: Take) -> _Registry:
    registry = _Registry(gvks, take)

    @kopf.on.login(registry=registry, retries=None)
    async def login(**_: Any) -> kopf.AiohttpSession:
        session = connection.session(pulse.middleware)
        return kopf.AiohttpSession(
            server=connection.server, aiohttp_session=session, default_namespace=connection.namespace
        )

    return registry


_kopfs_own = queueing.watcher


async def _watcher(*, settings: Any, resource: Any, namespace: Any, processor: Any, **rest: Any) -> None:
    """The events of one kind, in the order in which the API server tells them."""
    registry = getattr(processor, "keywords", {}).get("registry")
    if not isinstance(registry, _Registry):
        await _kopfs_own(settings=settings, resource=resource, namespace=namespace, processor=processor, **rest)
        return
    paused = rest.get("operator_paused")
    stream = watching.infinite_watch(settings=settings, resource=resource, namespace=namespace, operator_paused=paused)
    async for event in stream:
        if not isinstance(event, watching.Bookmark) and event.get("type") != "BOOKMARK":
            registry.taken(resource, event)


queueing.watcher = _watcher


def _settings(gvks: Sequence[GVK]) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.process.ultimate_exiting_timeout = None
    settings.networking.error_backoffs = _Backoffs()
    settings.networking.request_timeout = 60
    settings.networking.connect_timeout = 10
    settings.watching.connect_timeout = 10
    settings.watching.server_timeout = round(300 * random.uniform(0.9, 1.1))  # noqa: S311
    settings.watching.inactivity_timeout = INACTIVITY_TIMEOUT
    settings.watching.chunk_size = PAGE
    for gvk in gvks:
        if gvk in CHILDREN:
            settings.watching.label_selectors[gvk.group, gvk.version, gvk.plural] = f"{MANAGED_BY}={MANAGER}"
    return settings


class _Backoffs:
    """Endless delays, longer and longer, each request anew. Jittered: ten watches must not return in step."""

    def __iter__(self) -> Iterator[float]:
        delay = 1.0
        while True:
            yield delay * random.uniform(0.5, 1.0)  # noqa: S311
            delay = min(delay * 2, LONGEST_BACKOFF)
