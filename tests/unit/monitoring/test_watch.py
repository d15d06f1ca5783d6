"""What an EdgeDeployment says of its servers in production: baseline, drift, bounds, and how seldom it says it."""

import json
from typing import Any

import pytest

from slmops.api.edgedeployment import EdgeDeployment
from slmops.contract import Served
from slmops.monitoring.baseline import baseline_name
from tests.unit.monitoring.worlds import OTHER, World, asked, served

SLOW = [{"metric": "RequestLatency", "percentile": 95, "max": "1s"}]
ERRORS = [{"metric": "ErrorRate", "max": "5%"}]


def failing(errors: int, answers: int = 1000, **fields: Any) -> Served:
    return served(answers, errors=errors, **fields)


# --- the baseline


def test_the_first_requests_are_the_baseline_and_stay_it() -> None:
    world = World()
    world.tell(served(60), served(60))
    world.operate()
    assert world.within[:2] == ("Unknown", "BaselineIncomplete")
    assert "has 60 of 100 requests" in world.within[2]
    assert world.baseline() is None
    world.tell(served(150), served(150))
    world.operate()
    found = world.baseline()
    assert found is not None
    assert found["metadata"]["ownerReferences"][0]["uid"] == "uid-chat"
    before = found["data"]
    for count in (200, 5000):
        world.tell(asked(count, OTHER), served(count))
        world.operate()
    found = world.baseline()
    assert found is not None
    assert found["data"] == before, "frozen"
    assert json.loads(before["farms"])["served"]["answers"] == 150


def test_another_stable_revision_has_a_baseline_of_its_own_and_the_old_one_goes() -> None:
    world = World()
    world.settled()
    first = world.baseline()
    world.tell(asked(200, OTHER), None)
    world.operate()
    assert world.within[1] == "Drifted"
    world.promote("b")
    world.tell(None)
    world.operate()
    assert world.baseline() is None
    assert world.within[:2] == ("Unknown", "NotHeard"), "a breach of another revision is none of this one's"
    world.tell(asked(200, OTHER), asked(200, OTHER))
    world.operate()
    assert world.within[:2] == ("Unknown", "TooFewRequests"), "those of the baseline are not judged by it"
    world.tell(asked(200, OTHER))
    world.operate()
    second = world.baseline()
    assert first is not None
    assert second is not None
    assert second["metadata"]["name"] == f"chat-baseline-{world.name}" != first["metadata"]["name"]
    assert world.within[0] == "True", "what is asked now is what is usual"


def test_a_deleted_baseline_is_taken_anew() -> None:
    world = World()
    world.settled()
    world.children = [c for c in world.children if "-baseline-" not in c["metadata"]["name"]]
    world.tell(asked(300, OTHER), asked(300, OTHER))
    world.operate()
    world.tell(asked(300, OTHER))
    world.operate()
    assert world.within[0] == "True"


@pytest.mark.parametrize(
    "text",
    ["", "no JSON", "[]", "{}", '{"at": "x", "served": {}}',
     '{"at": "9999-12-31T23:59:59-23:00", "served": {"answers": 1}}',
     '{"at": "2026-03-01T12:00:00Z", "served": {"answers": -1}}', '{"at": "2026-03-01T12:00:00Z", "served": null}',
     '{"at": "2026-03-01T12:00:00Z", "served": {"answers": 1, "finish": [1]}}', "[" * 100_000],
)  # fmt: skip
def test_a_baseline_that_cannot_be_read_is_none(text: str) -> None:
    world = World()
    world.settled()
    found = world.baseline()
    assert found is not None
    found["data"]["farms"] = text
    world.tell(served(50), served(50))
    world.operate()
    assert world.within[1] == "BaselineIncomplete"


def test_without_drift_there_is_no_baseline_and_without_monitoring_nothing() -> None:
    world = World(drift=None, bounds=SLOW)
    world.settled()
    assert world.baseline() is None
    assert world.within[0] == "True"
    world.body["spec"].pop("monitoring")
    status = world.operate()
    assert "monitoring" not in status
    assert not [c for c in status["conditions"] if c["type"] == "WithinBounds"]
    figures = World(drift=None)
    figures.settled()
    assert figures.pool["requests"] == 200
    assert not [c for c in figures.body["status"]["conditions"] if c["type"] == "WithinBounds"], "nothing is bounded"


def test_a_baseline_that_nobody_wants_any_more_goes() -> None:
    world = World()
    world.settled()
    assert world.baseline() is not None
    world.body["spec"].pop("monitoring")
    world.operate()
    assert world.baseline() is None


# --- drift and bounds


def test_other_prompts_are_drift_of_the_input_and_say_so() -> None:
    world = World()
    world.settled()
    assert world.within[:2] == ("True", "WithinBounds")
    world.tell(asked(200, OTHER))
    world.operate()
    status, reason, message = world.within
    assert (status, reason) == ("False", "Drifted")
    assert "pool farms: PromptContent" in message
    assert f"delete the ConfigMap {baseline_name(EdgeDeployment.model_validate(world.body), world.name)}" in message
    assert [breach["what"] for breach in world.pool["breaches"]] == ["PromptContent"]
    assert world.pool["drift"]["PromptContent"] > 1
    assert world.pool["drift"]["AnswerContent"] == 0


def test_answers_that_end_otherwise_are_drift_of_the_output() -> None:
    world = World()
    world.settled()
    world.tell(served(200, finish=(60, 140)))
    world.operate()
    assert [breach["what"] for breach in world.pool["breaches"]] == ["FinishReason"]


def test_a_breach_is_over_when_it_is_well_within_the_bound() -> None:
    """What lies on the bound would begin and end with every request."""
    world = World(drift=None, bounds=ERRORS)

    def rate(errors: int) -> bool:
        world.tell(failing(errors, 1000 - errors))
        world.operate()
        return bool(world.pool.get("breaches"))

    assert [rate(errors) for errors in (49, 50, 51, 50, 49, 41, 40, 45, 50, 51)] == [
        False, False, True, True, True, True, False, False, False, True,
    ]  # fmt: skip


def test_a_slow_server_exceeds_its_bound() -> None:
    world = World(drift=None, bounds=SLOW)
    world.tell(served(500))
    world.operate()
    assert world.within[0] == "True"
    assert 0.3 < world.pool["latency"]["p95"] < 0.5
    world.tell(served(500, seconds=3.0))
    world.operate()
    status, reason, message = world.within
    assert (status, reason) == ("False", "BoundExceeded")
    assert "RequestLatency p95" in message
    assert "max 1s" in message
    assert "spec.monitoring.bounds" in message


def test_of_few_requests_nothing_is_said_and_what_was_a_breach_stays_one() -> None:
    world = World(bounds=ERRORS)
    world.settled()
    world.tell(served(5, OTHER, errors=5))
    world.operate(400)
    assert world.within[:2] == ("Unknown", "TooFewRequests")
    assert "had 10 requests in 1h, spec.monitoring.minRequests wants 100" in world.within[2]
    world.tell(asked(200, OTHER))
    world.operate()
    assert world.within[0] == "False"
    since = world.pool["breaches"][0]["since"]
    for silence in (served(5), None):
        world.tell(silence)
        world.operate(400)
        assert world.within[0] == "False", "silence is no good news"
    world.tell(asked(200, OTHER))
    world.operate()
    assert world.pool["breaches"][0]["since"] == since
    world.tell(served(200))
    world.operate()
    assert world.within[0] == "True"


def test_a_pool_with_just_enough_requests_is_not_told_so_with_each_of_them() -> None:
    world = World()
    world.settled()
    seen = []
    for count in (200, 100, 99, 80, 79, 99, 100, 99):
        world.tell(served(count))
        world.operate()
        seen.append(world.within[1])
    few, good = "TooFewRequests", "WithinBounds"
    assert seen == [good, good, good, good, few, few, good, good]


def test_a_bound_that_is_declared_no_more_is_no_breach() -> None:
    world = World(bounds=ERRORS)
    world.settled()
    world.tell(failing(500))
    world.operate()
    assert world.pool["breaches"][0]["what"] == "ErrorRate"
    world.body["spec"]["monitoring"] = {**world.body["spec"]["monitoring"], "bounds": []}
    world.tell(None)
    world.operate()
    assert world.pool.get("breaches", []) == []


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({}, []), ({"refused": 1}, ["Queue"]), ({"waited_seconds": 50.0, "ran_seconds": 40.0}, ["Queue"]),
        ({"ran_seconds": 3000.0}, ["Compute"]), ({"peak_memory": 95, "memory_limit": 100}, ["Memory"]),
        ({"peak_memory": 95, "memory_limit": 0}, []), ({"peak_memory": 80, "memory_limit": 100}, []),
    ],
)  # fmt: skip
def test_what_is_in_the_way_is_named(fields: dict[str, float], found: list[str]) -> None:
    world = World()
    world.tell(served(200, **fields), served(200))
    world.operate()
    assert world.pool.get("bottlenecks", []) == found


def test_before_anything_is_promoted_nothing_is_known() -> None:
    world = World()
    world.body["status"] = {}
    world.children = []
    world.pods = []
    world.operate()
    assert world.within[:2] == ("Unknown", "NothingPromoted")


def test_servers_that_cannot_be_asked_are_told_with_what_to_do() -> None:
    world = World()
    world.operate()
    status, reason, message = world.within
    assert (status, reason) == ("Unknown", "NotHeard")
    assert "NetworkPolicy" in message


# --- writes


def test_figures_are_written_at_most_each_five_minutes_and_nothing_when_nothing_changed() -> None:
    world = World()
    world.settled()
    before = world.writes
    for minute in range(30):
        world.tell(served(200 + 37 * minute))
        world.operate()
    assert 5 <= world.writes - before <= 6
    world.operate(400)
    before = world.writes
    for _ in range(30):
        world.operate()
    assert world.writes == before


def test_a_breach_is_written_at_once_and_each_new_one() -> None:
    world = World(bounds=ERRORS)
    world.settled()
    world.operate()
    before = world.writes
    world.tell(asked(200, OTHER))
    world.operate(1)
    assert world.writes == before + 1
    world.tell(asked(200, OTHER).model_copy(update={"errors": 100}))
    world.operate(1)
    assert world.writes == before + 2
    for count in (210, 230, 260):
        world.tell(asked(count, OTHER).model_copy(update={"errors": 100}))
        world.operate(1)
    assert world.writes == before + 2


def test_the_next_pass_is_due_when_servers_are_to_be_asked() -> None:
    world = World(interval="90s")
    world.settled()
    assert world.plan.deadline == 90


def test_sixty_four_pools_fit_into_a_status() -> None:
    """An object has at most 1.5 MB in etcd, and is written as a whole."""
    world = World(bounds=[*ERRORS, *SLOW])
    world.settled()
    world.tell(asked(200, OTHER).model_copy(update={"errors": 200}))
    status = world.operate()
    assert len(json.dumps(status["monitoring"]["pools"])) * 64 < 100_000
    baseline = world.baseline()
    assert baseline is not None
    assert len(baseline["data"]["farms"]) * 64 < 500_000
