"""The operator's metrics: named as Prometheus wants it, with labels whose values nobody outside can multiply."""

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from slmops.__main__ import Operator
from slmops.cluster.connection import Connection
from slmops.cost import Growth
from slmops.metrics import OTHER, Metrics
from slmops.settings import Settings
from tests.unit.metricnames import faults

OF_OBJECTS = ("slmops_progress_", "slmops_rollout_nodes", "slmops_rollout_wave", "slmops_monitoring_")
LABELS = {"kind", "outcome", "verb", "resource", "code", "effect", "phase", "currency", "watch", "state", "metric"}
NAMES = {"namespace", "name", "adapter", "pool", "distribution", "bound", "bottleneck"}


def scrape(metrics: Metrics) -> dict[str, Any]:
    """The families of a scrape, as Prometheus reads it."""
    return {family.name: family for family in text_string_to_metric_families(metrics.render().decode())}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return next(
        (
            sample.value
            for family in scrape(metrics).values()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ),
        None,
    )


TRAINING = {"progress": {
    "stage": "Training", "step": 420, "of": 1200, "percent": 35, "loss": 0.41, "tokensPerSecond": 5120.0, "eta": "6m10s",
    "lastCheckpoint": 400, "resumes": 1, "lostSteps": 12,
}}  # fmt: skip


@pytest.fixture
def everything() -> Metrics:
    """The metrics of a whole operator, each with at least one value."""

    async def authorization(renew: bool) -> str | None:
        return None

    operator = Operator(Settings(), Connection("http://127.0.0.1:1", False, authorization))
    operator.pulse.begin()
    metrics = operator.metrics
    metrics.reconciled("FineTune", "success", 0.2)
    metrics.requested("get", "jobs", 200)
    metrics.event("Job", "changed")
    metrics.resynced("Job", "compared", 2)
    metrics.leads(True)
    metrics.phase("FineTune", "farm", "a", "Training")
    metrics.spent("FineTune", Growth(60, 60, 2.5, "EUR"))
    metrics.progress("FineTune", "farm", "a", TRAINING)
    nodes = {"total": 3, "updated": 1, "ready": 3, "offline": 0}
    rolling = {"phase": "Progressing", "candidate": {"revision": "b", "since": "2026-11-30T09:00:00Z"},
               "wave": {"name": "all", "index": 1, "of": 1}, "pools": [{"name": "farms", "nodes": nodes}],
               "monitoring": {"pools": [{"name": "farms", "drift": {"PromptContent": 0.3}, "bottlenecks": ["Queue"],
                                         "breaches": [{"what": "PromptContent"}]}]}}  # fmt: skip
    metrics.progress("EdgeDeployment", "farm", "a", rolling)
    return metrics


def test_names_are_as_prometheus_wants_them(everything: Metrics) -> None:
    text = everything.render().decode()
    assert len(scrape(everything)) > 15
    assert [fault for fault in faults(text, LABELS) if not fault.startswith(OF_OBJECTS)] == []
    assert faults(text, LABELS | NAMES) == [], "names are said of what is there; their series go with it"


def test_ages_and_times_say_their_unit(everything: Metrics) -> None:
    names = set(scrape(everything))
    times = {"slmops_queue_oldest_seconds", "slmops_pass_longest_seconds", "slmops_watch_age_seconds",
             "slmops_reconcile_seconds"}  # fmt: skip
    assert times <= names


def test_every_watch_has_its_age(everything: Metrics) -> None:
    ages = [sample.labels["watch"] for sample in scrape(everything)["slmops_watch_age_seconds"].samples]
    assert {"finetunes", "jobs", "pods", "nodes"} <= set(ages)


def test_nothing_is_scraped_twice(everything: Metrics) -> None:
    text = everything.render().decode()
    series = [line.rsplit(" ", 1)[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(series) == len(set(series))
    assert "_created" not in text


# --- labels


def labels_of(metrics: Metrics, family: str, label: str) -> set[str]:
    return {sample.labels[label] for sample in scrape(metrics)[family].samples}


def test_a_pod_cannot_make_series_by_naming_its_stage() -> None:
    metrics = Metrics()
    metrics.phase("FineTune", "farm", "honest", "Training")
    for number in range(10_000):
        metrics.phase("FineTune", "farm", "hostile", f"Stage{number}")
    assert labels_of(metrics, "slmops_objects", "phase") == {"Training", OTHER}
    assert value(metrics, "slmops_objects", phase=OTHER) == 1


def test_a_stage_with_a_name_counts_by_its_first_word() -> None:
    metrics = Metrics()
    metrics.phase("Distillation", "farm", "a", "Evaluating teacher")
    metrics.phase("Distillation", "farm", "b", "Evaluating baseline")
    assert value(metrics, "slmops_objects", kind="Distillation", phase="Evaluating") == 2


@pytest.mark.parametrize("code", [0, -1, 299, 999, 12345])
def test_a_code_that_is_none_is_counted_as_no_answer(code: int) -> None:
    metrics = Metrics()
    metrics.requested("get", "jobs", code)
    assert value(metrics, "slmops_api_requests_total", verb="get", resource="jobs", code="none") == 1


# --- values


def test_a_resource_is_counted_in_one_phase_until_it_is_gone() -> None:
    metrics = Metrics()

    def count(phase: str) -> float | None:
        return value(metrics, "slmops_objects", kind="FineTune", phase=phase)

    for phase in ("Pending", "Training", "Training", "Succeeded"):
        metrics.phase("FineTune", "farm", "a", phase)
        assert count(phase) == 1
    metrics.phase("FineTune", "mill", "a", "Succeeded")
    metrics.phase("Distillation", "farm", "a", "Succeeded")
    assert (count("Pending"), count("Training"), count("Succeeded")) == (0, 0, 2)
    metrics.phase("FineTune", "farm", "a", None)
    metrics.phase("FineTune", "farm", "a", None)
    metrics.phase("FineTune", "farm", "unknown", None)
    assert count("Succeeded") == 1


def test_passes_are_counted_and_timed() -> None:
    metrics = Metrics()
    metrics.reconciled("FineTune", "success", 0.2)
    metrics.reconciled("FineTune", "error", 70.0)
    assert value(metrics, "slmops_reconcile_total", kind="FineTune", outcome="error") == 1
    assert value(metrics, "slmops_reconcile_seconds_count", kind="FineTune") == 2
    assert value(metrics, "slmops_reconcile_seconds_bucket", le="0.25") == 1
    assert value(metrics, "slmops_reconcile_seconds_bucket", le="60.0") == 1


def test_drift_is_counted_by_objects() -> None:
    metrics = Metrics()
    metrics.resynced("Job", "compared", 3)
    metrics.resynced("Job", "compared", 0)
    metrics.resynced("Job", "failed", 0)
    assert value(metrics, "slmops_resync_total", outcome="compared") == 2
    assert value(metrics, "slmops_resync_drift_total", kind="Job") == 3


def test_what_is_watched_is_read_at_each_scrape() -> None:
    metrics = Metrics()
    now = 1.0
    metrics.watch("depth", "Text.", lambda: now)
    metrics.watch_many("age_seconds", "Text.", "watch", lambda: {"a": now})
    metrics.watch_total("dropped", "Text.", lambda: now)
    for now in (1.0, 2.0):
        assert value(metrics, "slmops_depth") == now
        assert value(metrics, "slmops_age_seconds", watch="a") == now
        assert value(metrics, "slmops_dropped_total") == now


def test_events_that_were_given_up_are_a_counter(everything: Metrics) -> None:
    assert scrape(everything)["slmops_events_dropped"].type == "counter"


def progress(metrics: Metrics, adapter: str = "") -> dict[str, float]:
    """What is said of the resource farm/a."""
    named = {"kind": "FineTune", "namespace": "farm", "name": "a", "adapter": adapter}
    return {
        name.removeprefix("slmops_progress_"): sample.value
        for name, family in scrape(metrics).items()
        if name.startswith("slmops_progress_")
        for sample in family.samples
        if sample.labels == named
    }


def test_whoever_runs_shows_how_far_it_is_in_base_units() -> None:
    metrics = Metrics()
    metrics.progress("FineTune", "farm", "a", TRAINING)
    assert progress(metrics) == {
        "step": 420, "of": 1200, "ratio": 0.35, "loss": 0.41, "tokens_per_second": 5120, "eta_seconds": 370,
        "last_checkpoint": 400, "resumes": 1, "lost_steps": 12,
    }  # fmt: skip
    metrics.progress("FineTune", "farm", "a", {"progress": {"stage": "Fetching", "step": 7, "of": 0}})
    assert progress(metrics) == {"step": 7, "of": 0}


def test_each_of_several_adapters_shows_how_far_it_is() -> None:
    metrics = Metrics()
    rows = [{"name": "b", **TRAINING}, {"name": "c", "progress": {"stage": "Fetching", "step": 7}}, {"name": "d"}]
    metrics.progress("FineTune", "farm", "a", TRAINING | {"adapters": rows})
    assert progress(metrics) == {}
    assert progress(metrics, "b")["step"] == 420
    assert progress(metrics, "c") == {"step": 7}
    metrics.progress("FineTune", "farm", "a", {"adapters": [{"name": "b"}, rows[1]]})
    assert (progress(metrics, "b"), progress(metrics, "c")) == ({}, {"step": 7})


@pytest.mark.parametrize(
    "after",
    [None, {}, {"progress": {"stage": "Succeeded", "percent": 100, "resumes": 1}}, {"adapters": [{"name": "b"}]}],
)
def test_whoever_has_ended_or_is_gone_leaves_no_series(after: dict[str, Any] | None) -> None:
    metrics = Metrics()
    metrics.progress("FineTune", "farm", "a", TRAINING)
    metrics.progress("FineTune", "farm", "a", after)
    assert progress(metrics) == {}
