"""kopf, used for what it is good at here: keeping watches open. Each event goes to one function and nothing else.

No create, update or timer handlers, so kopf writes no finalizer and no annotation, and keeps no state. What it does by
default and an operator that shall survive its API server cannot have is switched off here, once:

    gives up after a minute without the API server      endless back-offs
    ends at a refused token or an error event            the session's middlewares (cluster/connection.py, pulse.py)
    stops seeing events of a frozen connection           server, connect and inactivity timeouts
    copies and compares each body for edge handlers      storages that do nothing
    keeps a record and a task for every object seen      records thrown away, tasks ended at once
    watches CRDs and namespaces cluster-wide             scanning off: the kinds are known
"""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import kopf
from kopf._core.engines.peering import Identity
from kopf._core.reactor.inventory import ResourceMemories, ResourceMemory

from slmops.cluster.client import PAGE
from slmops.cluster.connection import Connection
from slmops.cluster.objects import CHILDREN, GVK, MANAGED_BY, MANAGER, Manifest
from slmops.cluster.pulse import Pulse

Take = Callable[[GVK, str | None, Manifest], None]
"""Takes one event: kind, type (None where it comes from a list), body."""
INACTIVITY_TIMEOUT = 70.0
"""The API server sends a bookmark every minute, so a stream that is silent for longer is dead."""
LONGEST_BACKOFF = 30.0


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
        memories=_NoMemories(),
        standalone=True,
        identity=Identity("slmops"),  # kopf would ask for the user's name, and a container's user has none
        clusterwide=not namespaces,
        namespaces=list(namespaces),
        ready_flag=started,
    )


def _registry(connection: Connection, pulse: Pulse, gvks: Sequence[GVK], take: Take) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry, retries=None)
    async def login(**_: Any) -> kopf.AiohttpSession:
        session = connection.session(pulse.middleware)
        return kopf.AiohttpSession(
            server=connection.server, aiohttp_session=session, default_namespace=connection.namespace
        )

    for gvk in gvks:
        kopf.on.event(gvk.group, gvk.version, gvk.plural, id=gvk.plural, registry=registry)(_handler(gvk, take))
    return registry


def _handler(gvk: GVK, take: Take) -> Callable[..., Any]:
    async def handler(event: Any, **_: Any) -> None:
        take(gvk, event["type"], event["object"])

    return handler


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
    settings.queueing.idle_timeout = 0.05
    settings.queueing.exit_timeout = 0.1
    settings.persistence.finalizer = "(none)"  # no valid name: kopf would take its own finalizer off a dying object
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.persistence.progress_storage = _NoProgress()
    return settings


class _Backoffs:
    """Endless delays, longer and longer, each request anew. Jittered: ten watches must not return in step."""

    def __iter__(self) -> Iterator[float]:
        delay = 1.0
        while True:
            yield delay * random.uniform(0.5, 1.0)  # noqa: S311
            delay = min(delay * 2, LONGEST_BACKOFF)


class _NoDiffBase(kopf.DiffBaseStorage):
    """There are no handlers that compare an object with its former self."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None


class _NoProgress(kopf.ProgressStorage):
    """There are no handlers whose progress would have to be kept."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None

    def purge(self, **_: Any) -> None:
        return None

    def touch(self, **_: Any) -> None:
        return None

    def clear(self, *, essence: Any) -> Any:
        return essence


class _NoMemories(ResourceMemories):
    """kopf remembers every object it ever saw, for daemons and retries that there are none of."""

    async def recall(self, *_: Any, **__: Any) -> ResourceMemory:
        return ResourceMemory()
