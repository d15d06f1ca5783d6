"""What Jobs have used: every pod's time counts once, whatever becomes of the pod."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from slmops.api.budget import Budget, CostStatus, Price
from slmops.contract import LARGEST
from slmops.cost import Used, attempts, cost, exceeded, growth, money, used
from slmops.state import ANNOTATION_GPUS, Manifest, Observed
from tests.unit.builders import COMPLETE, UNREADABLE, condition, ended, job, pod

START = "2026-03-01T12:00:00Z"
T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
PRICE = Price.model_validate({"perGpuHour": "2.50", "perNodeHour": "0.10", "currency": "EUR"})


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def stamp(seconds: float) -> str:
    return at(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")


def a_job(*conditions: Manifest, gpus: int = 1) -> Manifest:
    return job(*conditions, annotations={ANNOTATION_GPUS: str(gpus)} if gpus else None)


def a_pod(number: int = 0, began: float = 0, finished: float | None = None, **status: Any) -> Manifest:
    state = {"running": {}} if finished is None else ended(0)
    if finished is not None:
        state["terminated"]["finishedAt"] = stamp(finished)
    return pod(a_job(), number, state, startTime=stamp(began), **status)


def seen(*pods: Manifest, of: Manifest | None = None) -> Observed:
    return Observed(children=(of or a_job(),), pods=pods)


def seconds(observed: Observed, now: float, before: CostStatus | None = None) -> tuple[float, float]:
    total = used(attempts(before, observed, at(now)), at(now))
    return total.gpu_seconds, total.pod_seconds


def test_nothing_is_shown_before_the_first_pod() -> None:
    assert cost(None, Observed(), PRICE, T0) is None
    assert cost(None, seen(pod(a_job())), PRICE, T0) is None, "a pod that no node took costs nothing"


def test_all_attempts_count_failed_ones_too() -> None:
    failed, good = a_pod(0, 0, 600), a_pod(1, 700, 1000)
    failed["status"]["phase"] = "Failed"
    assert seconds(seen(failed, good), 5000) == (900, 900)


def test_gpus_multiply_the_hours_and_a_run_without_one_has_none() -> None:
    assert seconds(seen(a_pod(0, 0, 60), of=a_job(gpus=4)), 100) == (240, 60)
    assert seconds(seen(a_pod(0, 0, 60), of=a_job(gpus=0)), 100) == (0, 60)


def test_a_running_pod_counts_until_now_and_by_whole_minutes_in_a_status() -> None:
    observed = seen(a_pod(0, 0))
    assert seconds(observed, 119) == (119, 119)
    shown = [cost(None, observed, PRICE, at(now)) for now in (60, 90, 119, 120)]
    assert shown[0] == shown[1] == shown[2] != shown[3], "else every look at it would be a write"


def test_a_pod_that_is_gone_still_counts_and_counts_once() -> None:
    first = cost(None, seen(a_pod(0, 0, 600), of=a_job(COMPLETE)), PRICE, at(700))
    later = cost(first, seen(a_pod(1, 800, 900), of=a_job(COMPLETE)), PRICE, at(1000))
    assert later is not None
    assert (later.gpu_hours, later.amount) == (round(700 / 3600, 4), "0.5056")
    again = cost(later, seen(a_pod(1, 800, 900), of=a_job(COMPLETE)), PRICE, at(2000))
    assert again == later


def test_the_end_of_a_pod_is_told_together_with_its_jobs() -> None:
    """A write for each would be one more than there are phases."""
    running = cost(None, seen(a_pod(0, 0)), PRICE, at(50))
    over = seen(a_pod(0, 0, 55))
    assert cost(running, over, PRICE, at(57)) == running
    assert seconds(over, 57) == (55, 55), "a budget is held against what is known"
    told = cost(running, seen(a_pod(0, 0, 55), of=a_job(COMPLETE)), PRICE, at(58))
    assert told is not None
    assert told.attempts[0].end == stamp(55)


def test_the_end_of_a_pod_is_told_where_its_job_goes_on_or_another_pod_follows() -> None:
    beside = cost(None, seen(a_pod(0, 0, 30), a_pod(1, 0)), PRICE, at(40))
    failed = a_pod(0, 0, 30)
    failed["status"]["phase"] = "Failed"
    alone = cost(None, seen(failed), PRICE, at(40))
    assert beside is not None
    assert alone is not None
    assert beside.attempts[0].end == alone.attempts[0].end == stamp(30)


def test_a_pod_that_a_queue_took_away_ended_when_its_job_was_suspended() -> None:
    running = cost(None, seen(a_pod(0, 0)), PRICE, at(300))
    held = a_job(condition("Suspended") | {"lastTransitionTime": stamp(400)})
    assert seconds(seen(of=held), 9000, running) == (400, 400)


def test_a_pod_that_went_with_its_job_ended_when_that_was_noticed() -> None:
    running = cost(None, seen(a_pod(0, 0)), PRICE, at(300))
    assert seconds(Observed(), 350, running) == (350, 350)


def test_an_evicted_pod_ended_when_it_was_disrupted() -> None:
    lost = pod(a_job(), 0, None, startTime=START,
               conditions=[condition("DisruptionTarget") | {"lastTransitionTime": stamp(90)}])  # fmt: skip
    lost["status"]["phase"] = "Failed"
    assert seconds(seen(lost), 5000) == (90, 90)


@pytest.mark.parametrize(
    ("wrong", "scheduled"), [(-3600, True), (-3600, False), (0, True), (0, False), (3600, True)],
    ids=["behind", "behind, and nobody says when it was scheduled", "right", "right, and nobody says", "ahead"],
)  # fmt: skip
def test_a_nodes_clock_says_only_how_long_its_pods_took(wrong: float, scheduled: bool) -> None:
    """Else an hour would be charged at once, or none at all, and a small budget would end runs that have hardly begun."""
    told = [condition("PodScheduled") | {"lastTransitionTime": stamp(10)}] if scheduled else []
    running = a_pod(0, 10 + wrong, conditions=told)
    done = a_pod(0, 10 + wrong, 310 + wrong, conditions=told)
    for each in (running, done):
        each["metadata"]["creationTimestamp"] = stamp(10)
    assert seconds(seen(running), 130) == (120, 120)
    assert seconds(seen(done), 5000) == (300, 300)


def test_the_wait_for_a_node_costs_nothing() -> None:
    waited = a_pod(0, 901, conditions=[condition("PodScheduled") | {"lastTransitionTime": stamp(900)}])
    waited["metadata"]["creationTimestamp"] = stamp(0)
    assert seconds(seen(waited), 960) == (60, 60)


@pytest.mark.parametrize("made", ["yesterday", 5])
def test_a_time_that_is_none_changes_nothing(made: object) -> None:
    one = a_pod(0, 0, 60)
    one["metadata"]["creationTimestamp"] = made
    assert seconds(seen(one), 100) == (60, 60)


@pytest.mark.parametrize("time", UNREADABLE)
def test_of_two_times_the_one_that_can_be_read_says_when_a_pod_began(time: str) -> None:
    one, other = (a_pod(0, -3600, 300 - 3600) for _ in range(2))
    one["status"]["conditions"] = [condition("PodScheduled") | {"lastTransitionTime": time}]
    one["metadata"]["creationTimestamp"] = stamp(0)
    other["status"]["conditions"] = [condition("PodScheduled") | {"lastTransitionTime": stamp(0)}]
    other["metadata"]["creationTimestamp"] = time
    for each in (one, other):
        (found,), _ = attempts(None, seen(each), at(5000))
        assert (found.start, found.end) == (at(0).isoformat(), at(300).isoformat())


def test_a_clock_that_is_thousands_of_years_off_stops_nothing() -> None:
    one = a_pod(0, 0, 60)
    one["status"]["startTime"] = "0001-01-01T00:00:00Z"
    one["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = "9999-12-31T00:00:00Z"
    one["metadata"]["creationTimestamp"] = stamp(0)
    assert attempts(None, seen(one), at(100))[0][0].start == "0001-01-01T00:00:00Z"


def test_the_price_is_of_gpus_and_of_nodes() -> None:
    assert Used(gpu_seconds=7200, pod_seconds=3600).amount(PRICE) == 2 * PRICE.hourly(1) - PRICE.hourly(0)
    assert money(Used(7200, 3600).amount(PRICE)) == "5.10"
    assert money(Used(0, 0).amount(PRICE)) == "0.00"


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ({"gpuHours": 2}, ""),
        ({"gpuHours": "1.5"}, "2 GPU hours are used, spec.budget.gpuHours allows 1.5"),
        ({"price": PRICE, "max": "5.10"}, ""),
        ({"price": PRICE, "max": 5}, "5.10 EUR are spent, spec.budget.max allows 5 EUR"),
        ({"price": PRICE}, ""),
    ],
)
def test_what_is_beyond_the_budget_is_told_in_words(budget: dict[str, Any], words: str) -> None:
    assert exceeded(Budget.model_validate(budget), Used(7200, 3600)) == words


def test_metrics_get_what_grew() -> None:
    one = cost(None, seen(a_pod(0, 0, 3600), of=a_job(COMPLETE)), PRICE, at(4000))
    two = cost(one, seen(a_pod(0, 0, 3600), a_pod(1, 4000, 7600), of=a_job(COMPLETE)), PRICE, at(8000))
    grown = growth(one, two)
    assert grown is not None
    assert (grown.gpu_seconds, grown.pod_seconds, round(grown.amount, 2), grown.currency) == (3600, 3600, 2.6, "EUR")
    assert growth(two, two) is growth(two, None) is None


# --- what somebody else may have written


@pytest.mark.parametrize("text", ["abc", "", "-3", "1.5", "0x1", "\u0661", "9" * 5000])
def test_an_annotation_that_is_no_number_of_gpus_counts_as_none(text: str) -> None:
    of = job(annotations={ANNOTATION_GPUS: text})
    assert seconds(seen(a_pod(0, 0, 60), of=of), 100) == (0, 60)


@pytest.mark.parametrize("time", UNREADABLE)
def test_a_time_that_cannot_be_read_counts_as_absent(time: str) -> None:
    def known(**times: Any) -> CostStatus:
        return CostStatus.model_validate({"attempts": [{"pod": "p", "gpus": 1, "start": START, **times}]})

    assert seconds(Observed(), 50, known(start=time)) == (0, 0)
    assert seconds(Observed(), 50, known(end=time)) == (50, 50), "as if it had gone just now"
    unborn, unended = a_pod(0, 0), a_pod(1, 0, 60)
    unborn["status"]["startTime"] = time
    unended["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = time
    assert seconds(seen(unborn, unended), 100) == (0, 0), "it ended, nobody knows when: at its start"


def test_figures_beyond_all_bounds_stop_nothing_and_give_nothing_back() -> None:
    huge, less = ({"gpuSeconds": each, "podSeconds": each} for each in (2**63 - 1, -1000))
    forged = {"gpus": 2**62, "start": "0001-01-01T00:00:00Z"}
    before = CostStatus.model_validate({"gone": huge, "attempts": [{"pod": "p", **forged}]})
    found = cost(before, Observed(), PRICE, T0)
    assert found is not None
    assert found.gone is not None
    assert (found.gone.gpu_seconds, found.gone.pod_seconds) == (LARGEST, LARGEST)
    assert seconds(seen(a_pod(0, 0, 60)), 100, CostStatus.model_validate({"gone": less})) == (60, 60)


@pytest.mark.parametrize("amount", ["much", "NaN", "-5", "1e9", ""])
def test_an_amount_that_is_none_counts_as_nothing_spent(amount: str) -> None:
    before = CostStatus(amount=amount, currency="EUR")
    grown = growth(before, cost(None, seen(a_pod(0, 0, 3600)), PRICE, at(3600)))
    assert grown is not None
    assert round(grown.amount, 2) == 2.6
