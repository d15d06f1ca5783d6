"""Servers of the stable revision, asked in turn what they answered, and their last words, until they are too old.

Servers remember by themselves (``/monitoring``), so what is kept here is a convenience: whoever leads next asks again.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from slmops.api.conditions import moment
from slmops.api.edgedeployment import EdgeDeployment
from slmops.api.resource import Resource
from slmops.cluster.client import Cluster
from slmops.cluster.objects import DAEMON_SET, Key, Manifest
from slmops.contract import MONITORED_SECONDS, Served
from slmops.monitoring.baseline import frozen
from slmops.monitoring.counts import plausible, together
from slmops.rollout.pods import condition
from slmops.state import LABEL_POOL, LABEL_REVISION, LABEL_ROLE, Heard, owners

AT_ONCE = 20
"""Servers of a pool that are asked in one pass."""
HELD = 100
"""Servers of a pool whose words are held: of a larger one the figures are of those that were asked last."""
ROUND_SECONDS = 5.0
"""What has not answered by then is left for another time."""
EARLY = timedelta(seconds=0.5)
NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class _Word:
    """What a server told last: JSON, which takes a tenth of what it stands for."""

    at: datetime
    begun: datetime
    """Nothing in it is older."""
    window: str
    first: str | None


@dataclass(frozen=True)
class _Question:
    """What the servers of a pool are asked."""

    port: int
    begun: datetime
    """What was before does not count: when the revision became stable, or its baseline was complete."""
    window: float
    first: bool
    """Whether all since then is wanted too, for a baseline."""


@dataclass
class _Pool:
    words: dict[str, _Word] = field(default_factory=dict)
    """By the pod's UID, the oldest first."""
    asked: dict[str, datetime] = field(default_factory=dict)
    """When each was asked last, whether it answered or not."""

    def tidy(self, there: set[str], begun: datetime, oldest: datetime) -> None:
        """Forget servers that are gone, and words of another time."""
        self.asked = {uid: at for uid, at in self.asked.items() if uid in there}
        self.words = {
            uid: word for uid, word in self.words.items() if uid in there and word.begun == begun and word.at >= oldest
        }

    def take(self, uid: str, word: _Word) -> None:
        """Take in what a server told."""
        self.words.pop(uid, None)
        self.words[uid] = word
        while len(self.words) > HELD:
            del self.words[next(iter(self.words))]

    def heard(self) -> Heard | None:
        """What all of them told."""
        words = list(self.words.values())
        if not words:
            return None
        firsts = [Served.model_validate_json(word.first) for word in words if word.first is not None]
        windows = together(Served.model_validate_json(word.window) for word in words)
        return Heard(windows, together(firsts) if firsts else None, len(words))


@dataclass
class _Deployment:
    revision: str
    due: datetime
    pools: dict[str, _Pool] = field(default_factory=dict)
    heard: dict[str, Heard] = field(default_factory=dict)


class Monitors:
    """What all EdgeDeployments' servers told."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._known: dict[Key, _Deployment] = {}

    def forget(self, key: Key) -> None:
        """It is gone."""
        self._known.pop(key, None)

    async def heard(
        self, resource: Resource[Any, Any], children: Sequence[Manifest], pods: Sequence[Manifest], now: datetime
    ) -> Mapping[str, Heard]:
        """What the servers of each pool told; they are asked where it is time to. Nothing of other kinds."""
        if not isinstance(resource, EdgeDeployment):
            return {}
        key = Key(resource.kind(), resource.metadata.namespace, resource.metadata.name)
        spec, stable = resource.spec.monitoring, resource.status.stable
        if spec is None or stable is None:
            self.forget(key)
            return {}
        known = self._known.get(key)
        if known is None or known.revision != stable.revision:
            known = self._known[key] = _Deployment(stable.revision, now)
        if now < known.due - EARLY:
            return known.heard
        known.due = now + timedelta(seconds=spec.interval_seconds)
        done = frozen(resource, stable.revision, children)
        sets = {name: s for s in children if (name := _pool(s, stable.revision)) is not None}
        asking = []
        for name, daemon_set in sets.items():  # with variant Auto a pool of the spec is several
            pool = known.pools.setdefault(name, _Pool())
            ready = {p["metadata"]["uid"]: p for p in pods if daemon_set["metadata"]["uid"] in owners(p) and _ready(p)}
            begun = done[name].at if name in done else moment(stable.since) or now
            ask = _Question(_port(daemon_set), begun, spec.window_seconds, spec.drift is not None and name not in done)
            pool.tidy(set(ready), begun, now - timedelta(seconds=ask.window))
            turn = sorted(ready, key=lambda uid, asked=pool.asked: (asked.get(uid, NEVER), uid))  # type: ignore[misc]
            for uid in turn[:AT_ONCE]:
                pool.asked[uid] = now
                asking.append(self._ask(pool, ready[uid], ask, now))
        await _all(asking)
        known.heard = {name: heard for name in sets if name in known.pools and (heard := known.pools[name].heard())}
        return known.heard

    async def _ask(self, pool: _Pool, pod: Manifest, ask: _Question, now: datetime) -> None:
        age = (now - ask.begun).total_seconds()
        said = await self._of_time(pod, ask.port, min(ask.window, age))
        first = await self._of_time(pod, ask.port, age) if ask.first else None
        if said is not None and (first is not None or not ask.first):
            word = _Word(now, ask.begun, said.model_dump_json(), first.model_dump_json() if first else None)
            pool.take(pod["metadata"]["uid"], word)

    async def _of_time(self, pod: Manifest, port: int, age: float) -> Served | None:
        answer = await self._cluster.monitoring(pod, port, int(max(1, min(MONITORED_SECONDS, age))))
        try:
            said = Served.model_validate(answer)
        except ValidationError:
            return None
        return said if plausible(said) else None


def _pool(child: Manifest, revision: str) -> str | None:
    """The pool that a DaemonSet serves the revision to."""
    labels = child["metadata"].get("labels") or {}
    mine = child.get("kind") == DAEMON_SET.kind and labels.get(LABEL_ROLE) == "serve"
    return labels.get(LABEL_POOL) if mine and labels.get(LABEL_REVISION) == revision else None


def _port(daemon_set: Manifest) -> int:
    """The server's port: of this revision, the spec may ask for another by now."""
    (container, *_) = daemon_set["spec"]["template"]["spec"]["containers"]
    return int(container["ports"][0]["containerPort"])


def _ready(pod: Manifest) -> bool:
    return not pod["metadata"].get("deletionTimestamp") and condition(pod, "Ready")


async def _all(asking: Sequence[Any]) -> None:
    """All at once, and none for longer than a round may take."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ROUND_SECONDS):
            await asyncio.gather(*asking)
