"""The runtime's metrics: named as Prometheus wants it, and no series that a client can make."""

import pytest
from prometheus_client import generate_latest

from slm_edge.metrics import Metrics
from tests.unit.metricnames import faults


@pytest.fixture
def scrape() -> str:
    """All metrics, each with at least one value."""
    metrics = Metrics()
    metrics.requests.labels("200").inc()
    return generate_latest(metrics.registry).decode()


def test_names_are_as_prometheus_wants_them(scrape: str) -> None:
    assert scrape.count("# TYPE slmops_runtime_") >= 10
    assert faults(scrape, {"code"}) == []


def test_there_is_no_second_series_for_each(scrape: str) -> None:
    assert "_created" not in scrape


def exposed(name: str, type: str, *samples: str, said: str = "Said.") -> str:
    """One family as Prometheus reads it."""
    return "\n".join([f"# HELP {name} {said}", f"# TYPE {name} {type}", *(f"{sample} 1" for sample in samples), ""])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (exposed("slmops_a", "counter", "slmops_a"), "slmops_a is a counter and does not end with _total"),
        (exposed("slmops_a_total", "gauge", "slmops_a_total"), "slmops_a_total has the end of a counter or of a histogram"),
        (exposed("slmops_a", "gauge", "slmops_a", said=""), "slmops_a is not explained by a sentence"),
        (exposed("slmops_a_ms", "gauge", "slmops_a_ms"), "slmops_a_ms is not in a base unit"),
        (exposed("slmops_aB", "gauge", "slmops_aB"), "slmops_aB is no name of ours in small letters"),
        (exposed("slmops_a", "gauge", 'slmops_a{user="x"}'), "slmops_a has the label user"),
        (exposed("slmops_a", "gauge", 'slmops_a{le="1"}'), "slmops_a has the label le"),
        (exposed("slmops_a", "gauge", "slmops_a", "slmops_a"), "slmops_a is there twice with the same labels"),
        (exposed("slmops_gauge", "gauge", "slmops_gauge"), "slmops_gauge says its type in its name"),
        (exposed("slmops_a", "histogram", "slmops_a_sum", 'slmops_a_bucket{le="1"}'),
         "slmops_a is a histogram and does not say of what unit"),
    ],
)  # fmt: skip
def test_what_the_check_finds(text: str, fault: str) -> None:
    assert faults(text, {"code"}) == [fault]
