"""Metrics of servers in production: what is set, what is counted, and what goes."""

from typing import Any

from prometheus_client import CollectorRegistry

from slmops.production import Production


class Scrape:
    """Metrics of statuses."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.production = Production(self.registry)

    def seen(self, *pools: dict[str, Any], at: str | None = None, name: str = "farms") -> None:
        retrain = {"retrain": {"at": at}} if at else {}
        self.production.seen("edge-ai", name, {"monitoring": {"pools": list(pools), **retrain}})

    def gone(self) -> None:
        self.production.seen("edge-ai", "farms", None)

    def value(self, end: str, name: str = "farms", **labels: str) -> float | None:
        return self.registry.get_sample_value(
            f"slmops_monitoring_{end}", {"namespace": "edge-ai", "name": name, **labels}
        )

    def series(self) -> int:
        return sum(len(family.samples) for family in self.registry.collect())


def pool(name: str = "north", index: float = 0.31, breached: bool = True) -> dict[str, Any]:
    breaches = [{"what": "PromptContent"}, {"what": "RequestLatency p95"}] if breached else []
    return {"name": name, "drift": {"PromptContent": index}, "breaches": breaches, "bottlenecks": ["Queue"]}


def test_figures_are_those_of_the_status() -> None:
    scrape = Scrape()
    scrape.seen(pool())
    assert scrape.value("drift_index", pool="north", distribution="PromptContent") == 0.31
    assert scrape.value("breach", pool="north", bound="RequestLatency p95") == 1
    assert scrape.value("bottleneck", pool="north", bottleneck="Queue") == 1
    scrape.seen(pool(index=0.02, breached=False))
    assert scrape.value("drift_index", pool="north", distribution="PromptContent") == 0.02
    assert scrape.value("breach", pool="north", bound="RequestLatency p95") is None
    assert scrape.value("breach", pool="north", bound="PromptContent") is None


def test_series_go_with_what_they_are_about() -> None:
    scrape = Scrape()
    scrape.seen(pool(), pool("south"))
    scrape.seen(pool("south"), name="other")
    scrape.seen(pool("south"))
    assert scrape.value("drift_index", pool="north", distribution="PromptContent") is None
    assert scrape.value("drift_index", pool="south", distribution="PromptContent") is not None
    scrape.gone()
    assert scrape.value("drift_index", pool="south", distribution="PromptContent") is None
    assert scrape.value("drift_index", name="other", pool="south", distribution="PromptContent") is not None
    scrape.production.seen("edge-ai", "other", None)
    assert scrape.series() == 0


def test_a_retrain_is_counted_once_and_one_of_before_the_process_began_not_at_all() -> None:
    scrape = Scrape()
    for _ in range(3):
        scrape.seen(at="2026-03-01T12:00:00Z")
    assert scrape.value("retrains_total") == 0
    for _ in range(3):
        scrape.seen(at="2026-03-02T12:00:00Z")
    assert scrape.value("retrains_total") == 1


def test_of_what_is_not_watched_there_is_no_series() -> None:
    scrape = Scrape()
    scrape.production.seen("edge-ai", "farms", {"phase": "Ready"})
    assert scrape.series() == 0
