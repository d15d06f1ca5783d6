"""One replica acts, the others stand by: leader election by a Lease.

The holder renews every RETRY seconds and counts itself as leader only until RENEW_DEADLINE after the *start* of its
last successful renewal. Others take the Lease over once they have seen no change of it for DURATION, on their own
clock; nobody trusts another machine's time. As RENEW_DEADLINE < DURATION, a leader has stopped before another starts,
however the network fails. DURATION is 12 s and not the usual 15: a standby notices a renewal up to RETRY late, and it
shall have taken over 15 s after the leader was killed.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from slmops.cluster.errors import ClusterError, Conflict, Forbidden, NotFound
from slmops.cluster.objects import GVK, LEASE, Manifest

DURATION = 12.0
RENEW_DEADLINE = 8.0
RETRY = 2.0
KEPT = ("resourceVersion", "labels", "annotations", "ownerReferences", "finalizers")
"""What a renewal leaves as it is in the Lease's metadata: it replaces the whole object."""
ATTEMPT = RENEW_DEADLINE / 3
"""Longest wait for an answer: a renewal that hangs leaves time for two more tries."""
log = logging.getLogger(__name__)


class LeaseLost(Exception):  # noqa: N818  (an event more than an error)
    """This process was the leader and is not any more. It has to end: what it holds in memory may be stale."""


class LeaseApi(Protocol):
    """The requests that an election needs; ``Cluster`` has them."""

    async def get(self, gvk: GVK, namespace: str | None, name: str) -> Manifest | None:
        """The object or None."""

    async def create(self, manifest: Manifest) -> Manifest:
        """Create; Conflict when it exists."""

    async def update(self, manifest: Manifest) -> Manifest:
        """Replace; Conflict unless the version is current."""


def monotonic() -> float:
    """Seconds that also pass while the machine sleeps: a leader that wakes from suspend must know that it is late."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Election:
    """This process's part in the election of a leader."""

    def __init__(
        self,
        api: LeaseApi,
        namespace: str,
        name: str,
        identity: str,
        *,
        clock: Callable[[], float] = monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """``identity`` must differ between processes, also between restarts of one."""
        self._api = api
        self._namespace, self._name, self.identity = namespace, name, identity
        self._clock = clock
        self._jitter = jitter
        self._lease: Manifest | None = None
        self._seen: tuple[Any, ...] = ()
        self._seen_at = 0.0
        self._leads_until = 0.0
        self._problem = ""

    def leading(self) -> bool:
        """Whether this process may act. Asked before every write; it turns false by itself."""
        return self._clock() < self._leads_until

    async def acquire(self) -> None:
        """Stand by until this process is the leader."""
        while not await self._attempt():
            # Wake up exactly when the seen Lease runs out, rather than at the next tick after that.
            left = self._seen_at + self._duration() - self._clock()
            await asyncio.sleep(min(self._pause(), left) if left > 0 else self._pause())
        log.info("%s is the leader", self.identity)

    async def hold(self) -> None:
        """Renew for ever. Raises LeaseLost when that fails for too long or another process leads."""
        renewed = True
        while True:
            pause = self._pause() if renewed else RETRY / 4
            await asyncio.sleep(min(pause, max(0.0, self._leads_until - self._clock())))
            if not self.leading():
                raise LeaseLost(f"the Lease could not be renewed for {RENEW_DEADLINE:g} s")
            renewed = await self._attempt()
            if not renewed and self._seen[:1] != (self.identity,):
                self._leads_until = 0.0
                raise LeaseLost("another process holds the Lease")

    async def release(self) -> None:
        """Give the Lease back, so that a standby takes over at its next look. Never raises."""
        leading, self._leads_until = self.leading(), 0.0
        if not leading:
            return
        try:
            async with asyncio.timeout(RETRY):
                # Read again: a renewal that was cut off just now may have gone through.
                lease = await self._api.get(LEASE, self._namespace, self._name)
                if lease is not None and lease.get("spec", {}).get("holderIdentity") == self.identity:
                    await self._api.update(self._manifest(lease, holder="", duration=1.0))
            log.info("the Lease is released")
        except (ClusterError, TimeoutError) as error:
            log.warning("the Lease could not be released, a standby has to wait for its end: %s", error)

    async def _attempt(self) -> bool:
        """Try to take or to renew the Lease. What fails is tried again, so errors are only told."""
        started = self._clock()
        limit = min(ATTEMPT, self._leads_until - started) if self.leading() else ATTEMPT
        try:
            async with asyncio.timeout(limit):
                taken = await self._take()
            self._problem = ""
        except (ClusterError, TimeoutError) as error:
            self._tell(error)
            return False
        if taken:
            self._leads_until = started + RENEW_DEADLINE
        return taken

    async def _take(self) -> bool:
        lease = await self._api.get(LEASE, self._namespace, self._name)
        try:
            if lease is None:
                self._see(await self._api.create(self._manifest(None)))
                return True
            self._see(lease)
            holder = lease.get("spec", {}).get("holderIdentity") or ""
            if holder and holder != self.identity and self._clock() < self._seen_at + self._duration():
                return False
            self._see(await self._api.update(self._manifest(lease)))
            return True
        except Conflict:  # somebody was faster: see who, because a leader has to stop at once
            lease = await self._api.get(LEASE, self._namespace, self._name)
            if lease is not None:
                self._see(lease)
            return False

    def _see(self, lease: Manifest) -> None:
        """Remember when the Lease was first seen as it is; from then on its time runs."""
        spec = lease.get("spec", {})
        # The version changes with every write, also with one that sets the same time again.
        seen = (spec.get("holderIdentity") or "", spec.get("renewTime"), lease["metadata"].get("resourceVersion"))
        if seen != self._seen:
            self._seen, self._seen_at = seen, self._clock()
        self._lease = lease

    def _duration(self) -> float:
        """How long the seen Lease holds after its last change, as its holder wrote it."""
        spec = (self._lease or {}).get("spec", {})
        seconds = spec.get("leaseDurationSeconds")
        return float(seconds) if isinstance(seconds, int) and 0 < seconds <= 3600 else DURATION

    def _manifest(self, lease: Manifest | None, holder: str | None = None, duration: float = DURATION) -> Manifest:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")  # for people; nobody computes with it
        old = (lease or {}).get("spec", {})
        holder = self.identity if holder is None else holder
        changes = bool(holder) and old.get("holderIdentity") != holder
        # Labels and annotations are others': the chart brings the Lease, and Helm knows it by them.
        kept = {key: value for key, value in (lease or {}).get("metadata", {}).items() if key in KEPT}
        metadata = {"namespace": self._namespace, "name": self._name} | kept
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": metadata,
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": int(duration),
                "acquireTime": now if changes else old.get("acquireTime", now),
                "renewTime": now,
                "leaseTransitions": int(old.get("leaseTransitions") or 0) + (1 if changes and lease else 0),
            },
        }

    def _pause(self) -> float:
        return RETRY * (0.9 + 0.2 * self._jitter())

    def _tell(self, error: Exception) -> None:
        text = str(error) or type(error).__name__
        if text != self._problem:
            hint = "; the operator's Role must allow get, create and update of leases" if _refused(error) else ""
            log.warning("Lease %s/%s: %s%s", self._namespace, self._name, text, hint)
            self._problem = text


def _refused(error: Exception) -> bool:
    return isinstance(error, Forbidden | NotFound)
