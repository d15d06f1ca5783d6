"""What the operator tells Prometheus about itself. Every name begins with slmops_, but for the process's own figures.

Labels take values from small fixed sets (kinds, verbs, outcomes, phases), never texts of users. Names are in the progress
of what runs alone, and go when it has ended.
"""

from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from slmops.api.base import seconds
from slmops.cost import Growth
from slmops.production import Production
from slmops.rollouts import Rollouts

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, of no use to anybody here
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
PHASES = frozenset((
    "Pending", "Queued", "Starting", "Fetching", "Reading", "Labelling", "WaitingForTeacher", "Training", "Pruning",
    "Converting", "Verifying", "Evaluating", "Publishing", "Quantizing", "Searching", "Succeeded", "Failed", "Progressing",
    "Waiting", "Paused", "Degraded", "Ready",
))  # fmt: skip
"""What a phase can begin with. A running pod names its stage itself, and may name a new one each time it is asked."""
OTHER = "Other"
FINAL = ("Succeeded", "Failed")
NAMES = ("kind", "namespace", "name", "adapter")
PROGRESS = {
    "step": ("step", "How much of the running stage is done: optimizer steps, bytes, samples, records or trials."),
    "of": ("of", "How much the running stage is in all."),
    "percent": ("ratio", "Share of the running stage that is done, from 0 to 1."),
    "loss": ("loss", "Training loss, smoothed."),
    "tokensPerSecond": ("tokens_per_second", "Throughput of the running stage."),
    "eta": ("eta_seconds", "Expected time to the end of the running stage."),
    "jobPercent": ("job_ratio", "Share of the running Job that is done, from 0 to 1, where its stages are known."),
    "jobEta": ("job_eta_seconds", "Expected time to the end of the running Job."),
    "lastCheckpoint": ("last_checkpoint", "Step of the newest checkpoint."),
    "resumes": ("resumes", "How often the training went on from a checkpoint."),
    "lostSteps": ("lost_steps", "Steps that were lost with a pod and made again."),
}
"""Fields of a status' progress, and what their metrics are called."""
READ: Mapping[str, Callable[[Any], float]] = {
    "eta": seconds, "jobEta": seconds,
    "percent": lambda percent: percent / 100, "jobPercent": lambda percent: percent / 100,
}  # fmt: skip
"""How a field becomes a number in a base unit where it is none yet."""


class Metrics:
    """All metrics of one operator process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._reconciles = self._counter("reconcile", "Passes by kind and outcome.", "kind", "outcome")
        self._seconds = Histogram(
            "slmops_reconcile_seconds", "Duration of a pass.", ["kind"], buckets=BUCKETS, registry=self.registry
        )
        self._requests = self._counter("api_requests", "Requests to the API server.", "verb", "resource", "code")
        self._events = self._counter("watch_events", "Watch events, by what the cache made of them.", "kind", "effect")
        self._resyncs = self._counter("resync", "Comparisons of the cache with a fresh list.", "kind", "outcome")
        self._drift = self._counter("resync_drift", "Objects that a resync found changed or gone unnoticed.", "kind")
        self._leader = self._gauge("leader", "1 while this process is the leader.")
        self._objects = self._gauge("objects", "Resources by kind and phase, as the leader last saw them.", "phase")
        self._gpu_seconds = self._counter("run_gpu_seconds", "GPUs times seconds that Jobs' pods had them.", "kind")
        self._pod_seconds = self._counter("run_pod_seconds", "Seconds that Jobs' pods were on a node.", "kind")
        self._cost = self._counter("run_cost", "What Jobs have cost, where a budget has a price.", "kind", "currency")
        self.rollouts = Rollouts(self.registry)
        self.production = Production(self.registry)
        self._phases: dict[tuple[str, str, str], str] = {}
        self._running: dict[tuple[str, str, str], dict[str, dict[str, float]]] = {}
        """Figures by adapter, which is empty where a resource has no several."""
        for field, (name, text) in PROGRESS.items():
            read = partial(self._of_all, field)
            self.registry.register(_Read(GaugeMetricFamily, f"slmops_progress_{name}", text, NAMES, read))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"slmops_{name}_total", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        names = ("kind", *labels) if labels else ()
        return Gauge(f"slmops_{name}", text, names, registry=self.registry)

    # --- told by the parts

    def reconciled(self, kind: str, outcome: str, seconds: float) -> None:
        """A pass ended."""
        self._reconciles.labels(kind, outcome).inc()
        self._seconds.labels(kind).observe(seconds)

    def requested(self, verb: str, resource: str, code: int) -> None:
        """A request to the API server ended; code 0 means that there was no answer."""
        self._requests.labels(verb, resource, str(code) if code in _CODES else "none").inc()

    def event(self, kind: str, effect: str) -> None:
        """A watch event arrived."""
        self._events.labels(kind, effect).inc()

    def resynced(self, kind: str, outcome: str, drift: int) -> None:
        """A list was compared with the cache."""
        self._resyncs.labels(kind, outcome).inc()
        if drift:
            self._drift.labels(kind).inc(drift)

    def leads(self, leading: bool) -> None:
        """Whether this process is the leader."""
        self._leader.set(leading)

    def phase(self, kind: str, namespace: str, name: str, phase: str | None) -> None:
        """The phase that a resource is in; None when it is gone."""
        key, new = (kind, namespace, name), None if phase is None else _known(phase)
        old = self._phases.pop(key, None)
        if new is not None:
            self._phases[key] = new
        if old != new:
            if old is not None:
                self._objects.labels(kind, old).dec()
            if new is not None:
                self._objects.labels(kind, new).inc()

    def spent(self, kind: str, growth: Growth) -> None:
        """What Jobs have used since the last time."""
        self._gpu_seconds.labels(kind).inc(growth.gpu_seconds)
        self._pod_seconds.labels(kind).inc(growth.pod_seconds)
        if growth.amount:
            self._cost.labels(kind, growth.currency).inc(growth.amount)

    def progress(self, kind: str, namespace: str, name: str, status: Mapping[str, Any] | None) -> None:
        """How far a resource is, or each of its adapters, as its status says; None: it is gone."""
        if kind == "EdgeDeployment":
            self.rollouts.seen(namespace, name, status)
            self.production.seen(namespace, name, status)
            return
        status = status or {}
        parts = {part["name"]: part.get("progress") for part in status.get("adapters") or []}
        running = {
            part: _figures(progress)
            for part, progress in (parts or {"": status.get("progress")}).items()
            if progress is not None and progress.get("stage") not in FINAL
        }
        if running:
            self._running[kind, namespace, name] = running
        else:
            self._running.pop((kind, namespace, name), None)

    def _of_all(self, field: str) -> dict[tuple[str, ...], float]:
        return {
            (*key, part): figures[field]
            for key, parts in list(self._running.items())
            for part, figures in parts.items()
            if field in figures
        }

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge that is read when Prometheus asks."""
        gauge = self._gauge(name, text)
        gauge.set_function(value)

    def watch_many(self, name: str, text: str, label: str, values: Callable[[], dict[str, float]]) -> None:
        """A gauge with one label, read when Prometheus asks."""
        read = lambda: {(key,): value for key, value in values().items()}  # noqa: E731
        self.registry.register(_Read(GaugeMetricFamily, f"slmops_{name}", text, (label,), read))

    def watch_total(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A counter that is read when Prometheus asks."""
        self.registry.register(_Read(CounterMetricFamily, f"slmops_{name}", text, (), lambda: {(): value()}))

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)


def _figures(progress: Mapping[str, Any]) -> dict[str, float]:
    found = {field: value for field in PROGRESS if (value := progress.get(field)) is not None}
    return {field: READ.get(field, float)(value) for field, value in found.items()}


def _known(phase: str) -> str:
    first = phase.partition(" ")[0]
    return first if first in PHASES else OTHER


class _Read(Collector):
    """A metric whose values, by label, are read when Prometheus asks."""

    def __init__(
        self,
        family: type[GaugeMetricFamily] | type[CounterMetricFamily],
        name: str,
        text: str,
        labels: tuple[str, ...],
        values: Callable[[], Mapping[Any, float]],
    ) -> None:
        self._family, self._name, self._text, self._labels, self._values = family, name, text, labels, values

    def collect(self) -> list[Metric]:
        family = self._family(self._name, self._text, labels=self._labels)
        for labels, value in self._values().items():
            family.add_metric(list(labels), value)
        return [family]

    def describe(self) -> list[Metric]:
        return [self._family(self._name, self._text, labels=self._labels)]


_CODES = frozenset(int(status) for status in HTTPStatus)
