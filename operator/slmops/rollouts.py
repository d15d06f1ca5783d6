"""What the leader tells Prometheus about rollouts, as their statuses say it. Pools are the finest label: nodes come by
thousands. What was so when the process began is not counted again.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from slmops.api.base import quantity
from slmops.api.conditions import moment

BUCKETS = (60, 300, 900, 1800, 3600, 2 * 3600, 6 * 3600, 12 * 3600, 86400, 2 * 86400, 7 * 86400)
STATES = ("Progressing", "Measuring", "Soaking", "Waiting", "Paused")
"""What a rollout does with its time; Measuring where a benchmark runs, Waiting for a person or the hour, as asked for."""
Key = tuple[str, str]


@dataclass
class _Seen:
    outcome: object
    verdicts: Mapping[object, str]
    begun: str | None
    """When the candidate became one."""
    state: str | None
    at: float
    pulls: tuple[str, int, str] | None
    """Candidate, wave, and what its nodes pull in all."""
    pools: set[str] = field(default_factory=set)


class Rollouts:
    """Metrics of EdgeDeployments."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[Key, _Seen] = {}
        self._outcomes = Counter("slmops_rollouts_total", "Rollouts that have ended.", ["outcome"], registry=registry)
        self._durations = Histogram(
            "slmops_rollout_seconds", "From the moment that a revision is asked for to its end.", ["outcome"],
            buckets=BUCKETS, registry=registry,
        )  # fmt: skip
        self._time = Counter(
            "slmops_rollout_state_seconds_total",
            "Seconds that rollouts spent in a state.",
            ["state"],
            registry=registry,
        )
        self._gates = Counter(
            "slmops_rollout_gates_total", "What gates said of a candidate on a hardware class.", ["metric", "outcome"],
            registry=registry,
        )  # fmt: skip
        self._nodes = Gauge(
            "slmops_rollout_nodes", "Nodes of a pool: all, and those that are in a state.",
            ["namespace", "name", "pool", "state"], registry=registry,
        )  # fmt: skip
        self._pulls = Counter(
            "slmops_rollout_pull_bytes_total", "Bytes of model images that nodes of waves that have begun had to pull.",
            registry=registry,
        )  # fmt: skip
        names = ["namespace", "name"]
        self._wave = Gauge("slmops_rollout_wave", "The wave that a rollout is in, from 1.", names, registry=registry)
        self._waves = Gauge("slmops_rollout_waves", "Waves of a rollout under way.", names, registry=registry)
        for outcome in ("Promoted", "FastPromoted", "RolledBack", "Aborted", "Superseded"):
            self._outcomes.labels(outcome)
        for state in STATES:
            self._time.labels(state)

    def seen(self, namespace: str, name: str, status: Mapping[str, Any] | None) -> None:
        """A status as it is now; None: the EdgeDeployment is gone."""
        key, now = (namespace, name), self._clock()
        before = self._seen.pop(key, None)
        if before is not None and before.state is not None:
            self._time.labels(before.state).inc(now - before.at)
        if status is None:
            self._forget(key, before.pools if before else set())
            return
        pools = {pool["name"]: pool for pool in status.get("pools") or ()}
        self._forget(key, (before.pools if before else set()) - set(pools))
        outcome = status.get("lastOutcome")
        found = _Seen(
            outcome=outcome and (outcome["outcome"], outcome["revision"], outcome["at"]),
            verdicts=_verdicts(status), begun=(status.get("candidate") or {}).get("since"), state=_state(status), at=now,
            pulls=_pulls(status), pools=set(pools),
        )  # fmt: skip
        self._seen[key] = found
        for pool, about in pools.items():
            self._count(key, pool, about["nodes"])
        if (wave := status.get("wave")) and status.get("candidate"):
            self._wave.labels(*key).set(wave["index"])
            self._waves.labels(*key).set(wave["of"])
        else:
            self._drop(self._wave, key)
            self._drop(self._waves, key)
        if before is not None:
            self._changed(before, found, status)

    def _changed(self, before: _Seen, found: _Seen, status: Mapping[str, Any]) -> None:
        if found.outcome and found.outcome != before.outcome:
            outcome = status["lastOutcome"]
            self._outcomes.labels(outcome["outcome"]).inc()
            begun, ended = moment(before.begun), moment(outcome["at"])
            if begun and ended:
                self._durations.labels(outcome["outcome"]).observe(max(0.0, (ended - begun).total_seconds()))
        if found.pulls and found.pulls != before.pulls:
            self._pulls.inc(float(quantity(found.pulls[2])))
        for pool in status.get("pools") or ():
            for each in pool.get("classes") or ():
                whom = (pool["name"], each["name"])
                if each["verdict"] != "Pending" and before.verdicts.get(whom) != found.verdicts[whom]:
                    for gate in each.get("gates") or ():
                        self._gates.labels(gate["metric"], gate["outcome"]).inc()

    def _count(self, key: Key, pool: str, nodes: Mapping[str, Any]) -> None:
        total, updated = nodes["total"], nodes["updated"]
        states = {"total": total, "updated": updated, "ready": nodes["ready"], "offline": nodes["offline"],
                  "failed": nodes.get("failed") or 0, "behind": nodes.get("behind", total - updated)}  # fmt: skip
        for state, count in states.items():
            self._nodes.labels(*key, pool, state).set(count)

    def _forget(self, key: Key, pools: set[str]) -> None:
        for pool in pools:
            self._nodes.remove_by_labels({"namespace": key[0], "name": key[1], "pool": pool})
        if key not in self._seen:
            self._drop(self._wave, key)
            self._drop(self._waves, key)

    def _drop(self, gauge: Gauge, key: Key) -> None:
        gauge.remove_by_labels({"namespace": key[0], "name": key[1]})


def _pulls(status: Mapping[str, Any]) -> tuple[str, int, str] | None:
    wave, candidate = status.get("wave") or {}, status.get("candidate")
    return (candidate["revision"], wave["index"], wave["pulls"]) if candidate and wave.get("pulls") else None


def _verdicts(status: Mapping[str, Any]) -> dict[object, str]:
    """Whose figures a class has, in one word: it changes when somebody has measured."""
    asked = (status.get("candidate") or status.get("stable") or {}).get("revision", "")
    return {
        (pool["name"], each["name"]): f"{asked} {each.get('node')} {each['verdict']}"
        for pool in status.get("pools") or ()
        for each in pool.get("classes") or ()
    }


def _state(status: Mapping[str, Any]) -> str | None:
    """What a rollout under way is doing; None where there is none."""
    if not status.get("candidate"):
        return None
    phase = status.get("phase")
    if phase in ("Waiting", "Paused"):
        return str(phase)
    if phase != "Progressing":
        return None
    activity = str(status.get("activity") or "")
    reasons = {c["type"]: c["reason"] for c in status.get("conditions") or ()}
    if reasons.get("Progressing") == "Soaking":
        return "Soaking"
    return "Measuring" if "Measuring" in activity else "Progressing"
