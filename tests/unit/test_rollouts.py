"""Metrics of rollouts: what they count, and what they forget."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from slmops.rollouts import Rollouts

STABLE, SINCE = {"revision": "aaaa", "since": "2026-11-30T08:00:00Z"}, "2026-11-30T09:00:00Z"
NODES = {"total": 10, "updated": 3, "ready": 9, "offline": 1}
GATES = [{"metric": "TokensPerSecond", "outcome": "Passed"}, {"metric": "ExactMatch", "outcome": "Failed"}]


class Scrape:
    """Metrics of statuses, with a clock that stands still unless told."""

    def __init__(self) -> None:
        self.now = 100.0
        self.registry = CollectorRegistry()
        self.rollouts = Rollouts(self.registry, lambda: self.now)

    def seen(self, after: float = 0.0, **status: Any) -> None:
        self.now += after
        self.rollouts.seen("edge-ai", "farms", {"stable": STABLE, "phase": "Ready", "pools": []} | status)

    def gone(self) -> None:
        self.rollouts.seen("edge-ai", "farms", None)

    def value(self, end: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"slmops_rollout{end}", labels)

    def series(self) -> list[dict[str, str]]:
        return [
            sample.labels for family in self.registry.collect() for sample in family.samples if "name" in sample.labels
        ]


def on_trial(phase: str = "Progressing", **status: Any) -> dict[str, Any]:
    candidate = {"revision": "bbbb", "since": SINCE}
    return {"phase": phase, "candidate": candidate, "wave": {"name": "half", "index": 2, "of": 3}} | status


def pool(verdict: str = "Pending", gates: Any = (), node: str = "n0", **nodes: int) -> dict[str, Any]:
    classes = [{"name": "small", "nodes": 10, "verdict": verdict, "node": node, "gates": list(gates)}]
    return {"name": "farms", "nodes": NODES | nodes, "classes": classes}


@pytest.mark.parametrize("outcome", ["Promoted", "FastPromoted", "RolledBack", "Aborted", "Superseded"])
def test_an_outcome_is_counted_once_with_its_duration(outcome: str) -> None:
    scrape = Scrape()
    assert scrape.value("s_total", outcome=outcome) == 0
    scrape.seen(**on_trial())
    ended = {"outcome": outcome, "revision": "bbbb", "reason": "x", "at": "2026-11-30T10:30:00Z"}
    for _ in range(3):
        scrape.seen(lastOutcome=ended)
    assert scrape.value("s_total", outcome=outcome) == 1
    assert scrape.value("_seconds_sum", outcome=outcome) == 5400


def test_what_was_over_when_the_process_began_is_not_counted_again() -> None:
    scrape = Scrape()
    scrape.seen(lastOutcome={"outcome": "Promoted", "revision": "aaaa", "reason": "x", "at": SINCE})
    assert scrape.value("s_total", outcome="Promoted") == 0


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (on_trial(), "Progressing"),
        (on_trial(activity="n0: Measuring; n1: Pulling"), "Measuring"),
        (on_trial(conditions=[{"type": "Progressing", "reason": "Soaking"}]), "Soaking"),
        (on_trial("Waiting"), "Waiting"),
        (on_trial("Paused"), "Paused"),
    ],
)
def test_time_is_told_apart_by_what_is_done_with_it(status: dict[str, Any], state: str) -> None:
    scrape = Scrape()
    scrape.seen(**status)
    scrape.seen(after=7, **status)
    scrape.seen(after=5)
    scrape.seen(after=99)
    assert scrape.value("_state_seconds_total", state=state) == 12


def test_gates_are_counted_when_somebody_has_measured() -> None:
    scrape = Scrape()
    scrape.seen(**on_trial(pools=[pool()]))
    for _ in range(2):
        scrape.seen(**on_trial(pools=[pool("Failed", GATES)]))
    assert scrape.value("_gates_total", metric="TokensPerSecond", outcome="Passed") == 1
    assert scrape.value("_gates_total", metric="ExactMatch", outcome="Failed") == 1
    scrape.seen(**on_trial(pools=[pool("Failed", GATES, node="n1")]))
    assert scrape.value("_gates_total", metric="ExactMatch", outcome="Failed") == 2


def test_nodes_and_waves_are_told_and_forgotten() -> None:
    scrape = Scrape()
    scrape.seen(**on_trial(pools=[pool(failed=2)]))
    labels = {"namespace": "edge-ai", "name": "farms"}
    told = {state: scrape.value("_nodes", **labels, pool="farms", state=state)
            for state in ("total", "updated", "ready", "offline", "failed", "behind")}  # fmt: skip
    assert told == {"total": 10, "updated": 3, "ready": 9, "offline": 1, "failed": 2, "behind": 7}
    assert (scrape.value("_wave", **labels), scrape.value("_waves", **labels)) == (2, 3)
    scrape.seen(pools=[pool() | {"name": "barns"}])
    assert {series["pool"] for series in scrape.series()} == {"barns"}, "the wave is over, the pool is another"
    scrape.gone()
    assert scrape.series() == []


def test_what_a_wave_pulls_is_counted_once_it_is_known() -> None:
    scrape = Scrape()
    wave = {"name": "half", "index": 2, "of": 3}
    scrape.seen()
    for pulls in (None, "1.5Gi", "1.5Gi"):
        scrape.seen(**on_trial(wave=wave | ({"pulls": pulls} if pulls else {})))
    assert scrape.value("_pull_bytes_total") == 1.5 * 2**30
    scrape.seen(**on_trial(wave=wave | {"index": 3, "pulls": "0"}))
    scrape.seen()
    assert scrape.value("_pull_bytes_total") == 1.5 * 2**30
