"""What the leader tells Prometheus about servers in production, as the statuses of EdgeDeployments say it: rounded, and a
few minutes old at most. The servers' own metrics have the figures themselves. A series goes with what it is about.
"""

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

Key = tuple[str, str]
OF = ["namespace", "name"]


class Production:
    """Metrics of monitoring."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._retrained: dict[Key, str | None] = {}
        self._labelled: dict[Key, dict[str, set[tuple[str, str]]]] = {}
        of_pool = [*OF, "pool"]
        self._gauges = {
            "distribution": Gauge(
                "slmops_monitoring_drift_index",
                "Population stability index against the baseline, less what chance makes of it.",
                [*of_pool, "distribution"], registry=registry,
            ),
            "bound": Gauge("slmops_monitoring_breach", "1 while a bound is exceeded.", [*of_pool, "bound"],
                           registry=registry),
            "bottleneck": Gauge("slmops_monitoring_bottleneck", "1 while something is in the way of the servers.",
                                [*of_pool, "bottleneck"], registry=registry),
        }  # fmt: skip
        self._retrains = Counter(
            "slmops_monitoring_retrains_total", "Retrains that a breach led to.", OF, registry=registry
        )

    def seen(self, namespace: str, name: str, status: Mapping[str, Any] | None) -> None:
        """A status as it is now; None: the EdgeDeployment is gone. What was so when the process began is not counted
        again."""
        key, said = (namespace, name), (status or {}).get("monitoring") or {}
        before, now = self._labelled.pop(key, {}), _values(said)
        for label, gauge in self._gauges.items():
            for pool, value in before.get(label, set()) - now[label].keys():
                gauge.remove_by_labels({"namespace": namespace, "name": name, "pool": pool, label: value})
            for (pool, value), figure in now[label].items():
                gauge.labels(*key, pool, value).set(figure)
        if status is None:
            self._retrained.pop(key, None)
            self._retrains.remove_by_labels({"namespace": namespace, "name": name})
            return
        self._labelled[key] = {label: set(values) for label, values in now.items()}
        at = (said.get("retrain") or {}).get("at")
        if at is not None and key in self._retrained and self._retrained[key] != at:
            self._retrains.labels(*key).inc()
        elif said:
            self._retrains.labels(*key)
        self._retrained[key] = at


def _values(said: Mapping[str, Any]) -> dict[str, dict[tuple[str, str], float]]:
    """Figures by label, then by pool and the label's value."""
    found: dict[str, dict[tuple[str, str], float]] = {"distribution": {}, "bound": {}, "bottleneck": {}}
    for pool in said.get("pools") or ():
        name = pool["name"]
        found["distribution"] |= {(name, what): value for what, value in (pool.get("drift") or {}).items()}
        found["bound"] |= {(name, breach["what"]): 1.0 for breach in pool.get("breaches") or ()}
        found["bottleneck"] |= {(name, what): 1.0 for what in pool.get("bottlenecks") or ()}
    return found
