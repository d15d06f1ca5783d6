"""Start of the operator: ``python -m slmops run --config PATH``. Puts the parts together and takes them apart again.

    watches (kopf) --> intake --> cache
                          '-----> queue --> reconcile --> API server       (on the leader only)

A replica fills its caches, is ready, and then stands for election. On SIGTERM it starts no more passes, gives the
running ones half a second, releases the Lease and ends with 0. When it loses the Lease or a watch ends for good, it
stops at once and ends with 1: what it has in memory may be stale, and a restart costs seconds.
"""

import argparse
import asyncio
import gc
import logging
import signal
import socket
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

from slmops import __version__, handlers, logs
from slmops.cli import convert
from slmops.cluster.cache import Cache
from slmops.cluster.client import Cluster
from slmops.cluster.connection import Connection, ConnectionConfigError
from slmops.cluster.connection import load as load_connection
from slmops.cluster.election import Election, LeaseLost
from slmops.cluster.errors import ClusterError
from slmops.cluster.objects import GVK, PARENTS, Key, Manifest
from slmops.cluster.pulse import Pulse
from slmops.health import HealthServer
from slmops.intake import WATCHED, Intake, Resync, asked
from slmops.kinds import refers_to
from slmops.loop import PASS_TIMEOUT, Loop
from slmops.metrics import Metrics
from slmops.reconcile import Reconciler
from slmops.settings import Settings, SettingsError
from slmops.settings import load as load_settings

GRACE = 0.5
"""Seconds that a running pass gets after SIGTERM. One that is cut off is repeated by the next leader, who reads everything
again. A standby looks at the Lease every 2.2 s at most: together that is less than the 3 s in which another shall lead."""
SILENCE_LIMIT = 2.5 * handlers.INACTIVITY_TIMEOUT
"""A watch's task without any sign of life for this long is gone: it reconnects sooner, whatever happens."""
STALL_LIMIT = 60.0
SERVED_PAUSE = 5.0
Reconcile = Callable[[Key], Awaitable[float | None]]
log = logging.getLogger("slmops")


class Operator:
    """One replica."""

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self._settings, self._connection = settings, connection
        identity = f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
        self.metrics = Metrics()
        self.cache = Cache(refers_to=_references)
        self.cluster = Cluster(
            connection,
            may_write=lambda: self.election.leading(),
            observe=self.metrics.requested,
            instance=identity,
        )
        namespace = settings.lease_namespace or connection.namespace
        self.election = Election(self.cluster, namespace, settings.lease_name, identity)
        self.queue = Loop(
            self.reconciler(), settings.workers, observe=self._observe, asked=lambda key: asked(self.cache, key)
        )
        self.intake = Intake(self.cache, self._wake, told=self.metrics.event)
        self.resync = Resync(
            self.cluster, self.cache, self.intake, settings.watch_namespaces, told=self.metrics.resynced
        )
        self.pulse = Pulse(self.resync.watches, self.resync.request)
        self._stop = asyncio.Event()
        self._served = self._leads = False
        self._gauges()

    def reconciler(self) -> Reconcile:
        """What the queue does with a key."""
        return Reconciler(
            self.cluster,
            self.cache,
            self._settings,
            phase_seen=lambda key, phase: self.metrics.phase(key.kind, key.namespace, key.name, phase),
            progress_seen=lambda key, status: self.metrics.progress(key.kind, key.namespace, key.name, status),
            wake=lambda key: self.queue.wake(key, 0.0),
            spent=self.metrics.spent,
        ).reconcile

    def _wake(self, key: Key, after: float) -> None:
        """What an event wakes. Standbys queue nothing: who takes over looks at everything once."""
        if self._leads:
            self.queue.wake(key, after)

    def _observe(self, key: Key, outcome: str, seconds: float) -> None:
        self.metrics.reconciled(key.kind, outcome, seconds)

    def _gauges(self) -> None:
        watch, queue = self.metrics.watch, self.queue
        watch("queue_depth", "Resources that wait for a pass.", lambda: queue.pending)
        watch("queue_oldest_seconds", "How long the longest waiting resource waits.", queue.oldest_pending)
        watch("pass_longest_seconds", "How long the longest running pass runs.", queue.longest_pass)
        self.metrics.watch_total("events_dropped", "Kubernetes Events given up.", lambda: self.cluster.events_dropped)
        self.metrics.watch_many(
            "watch_age_seconds", "Time since the API server told a watch anything.", "watch", self.pulse.ages
        )

    # --- health

    def not_live(self) -> Iterable[str]:
        """What only a restart mends."""
        for (gvk, namespace), seconds in self.pulse.silence().items():
            if seconds > SILENCE_LIMIT:
                where = f" in {namespace}" if namespace else ""
                yield f"the watch of {gvk.plural}{where} has shown no life for {seconds:.0f} s"
        if self.queue.longest_pass() > PASS_TIMEOUT + STALL_LIMIT:
            yield "a pass hangs"
        if self.queue.stalled() > STALL_LIMIT:
            yield "the workers do not take work"

    def not_ready(self) -> Iterable[str]:
        """Why this replica could not lead."""
        if not self._served:
            yield "the API server does not serve our kinds yet"
        if not self.resync.done:
            yield "the caches are not filled"
        for gvk, _ in self.pulse.not_started():
            yield f"the watch of {gvk.plural} has not begun"

    # --- life

    async def run(self) -> int:
        """Run until told to stop (0) or until that is the only safe thing to do (1)."""
        self._catch_signals()
        health = HealthServer(
            self._settings.http_port, live=self.not_live, ready=self.not_ready, metrics=self.metrics.render
        )
        async with health, self.cluster:
            tasks = [
                asyncio.create_task(self._stop.wait(), name="stop"),
                asyncio.create_task(self._lead(), name="lead"),
                asyncio.create_task(self._follow(), name="follow"),
            ]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                told = self._stop.is_set()
                if told:
                    log.info("stopping")
                    await self.queue.stop(GRACE)
            finally:
                await _end(tasks[1])
                await self.election.release()
                await _end(*tasks)
        if told:
            return 0
        # Only now: a watch that fails first cancels the work (kopf ends every task that is younger than itself), and
        # what was cancelled does not know why.
        for task in tasks:
            if not task.cancelled() and (error := task.exception()):
                _explain(error)
        return 1

    def _catch_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)

    async def _follow(self) -> None:
        """Keep the caches. Leaders and standbys do."""
        await self._wait_served()
        started = asyncio.Event()
        self.pulse.begin()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.resync.run(self._settings.resync_seconds))
            watching = group.create_task(
                handlers.watch(
                    self._connection,
                    self.pulse,
                    WATCHED,
                    self._settings.watch_namespaces,
                    self.intake.event,
                    started,
                )
            )
            await started.wait()
            await asyncio.sleep(0.1)  # kopf takes the signals for itself right after it has begun
            self._catch_signals()
            await watching
            self._stop.set()

    async def _wait_served(self) -> None:
        """Wait for the CRDs, saying once what is missing."""
        said = ""
        while True:
            try:
                missing = [gvk.kind for gvk in PARENTS if not await self.cluster.served(gvk)]
                problem = f"CRDs are not installed: {', '.join(missing)}; apply crds/" if missing else ""
            except ClusterError as error:
                problem = f"API server is not usable: {error.message}"
            if not problem:
                self._served = True
                return
            if problem != said:
                log.warning("%s", problem)
                said = problem
            await asyncio.sleep(SERVED_PAUSE)

    async def _lead(self) -> None:
        """Stand for election once everything is known, then do the work until the Lease is lost."""
        while list(self.not_ready()):  # noqa: ASYNC110  (several conditions, none worth an event)
            await asyncio.sleep(0.2)
        await self.election.acquire()
        self._leads = True
        self.metrics.leads(True)
        self.intake.wake_all()
        async with asyncio.TaskGroup() as group:
            working = group.create_task(self.queue.run())
            holding = group.create_task(self.election.hold())
            await working
            holding.cancel()


def _references(gvk: GVK, body: Manifest) -> Iterable[Key]:
    namespace = body["metadata"].get("namespace") or ""
    return (Key(kind, namespace, name) for kind, name in refers_to(body))


async def _end(*tasks: asyncio.Task[object]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _explain(error: BaseException) -> None:
    """Say why the process ends: the Lease in one line, anything else with its trace."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            _explain(part)
    elif isinstance(error, LeaseLost):
        log.error("stopping at once: %s", error)
    else:
        log.critical("stopping after an error: %s", error, exc_info=error)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="slmops", description="The slmops operator, and commands around it.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the operator until SIGTERM")
    run.add_argument("--config", type=Path, help="settings as YAML or JSON; defaults when absent")
    convert.add(commands)
    options = parser.parse_args(arguments)
    return convert.run(options) if options.command == "convert" else _run(options)


def _run(options: argparse.Namespace) -> int:
    try:
        settings = load_settings(options.config)
        connection = load_connection()
    except (SettingsError, ConnectionConfigError, OSError) as error:
        print(f"slmops: {error}", file=sys.stderr)
        return 2
    logs.configure(settings.log_level)
    log.info("slmops %s begins, API server %s", __version__, connection.server)

    gc.freeze()  # what is imported stays; not looking at it again saves a fifth of the CPU of reading long lists

    async def operate() -> int:
        return await Operator(settings, connection).run()

    return asyncio.run(operate())


if __name__ == "__main__":
    sys.exit(main())
