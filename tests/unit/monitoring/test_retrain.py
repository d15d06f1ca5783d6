"""When a breach leads to a new run of the FineTune, and when it does not: never twice for one, never too soon."""

from typing import Any

import pytest

from slmops.retraining import LONGEST, last, trace
from tests.unit.builders import UNREADABLE
from tests.unit.copies import fresh
from tests.unit.monitoring.worlds import NOW, OTHER, RETRAIN, World, asked, drifted, served

DAY = 86400.0


def waiting(world: World) -> str:
    """Why there is no retrain now."""
    return str(world.body["status"]["monitoring"].get("waiting") or "")


def breach_again(world: World, after: float = DAY) -> None:
    """The breach ends, and much later there is one."""
    world.tell(served(200))
    world.operate()
    world.tell(asked(200, OTHER))
    world.operate(after)


def test_a_breach_leads_to_one_run_that_says_why() -> None:
    world = drifted()
    assert len(world.runs) == 1
    assert world.fine_tune is not None
    said = world.fine_tune["metadata"]["annotations"]["slmops.dev/retrain"]
    assert said.startswith("2026-03-01T12:03:00Z EdgeDeployment chat revision ")
    assert "pool farms: PromptContent" in said
    found = world.retrain
    assert found is not None
    assert (found["fineTune"], found["at"], found["outcome"]) == ("farm-tuned", "2026-03-01T12:03:00Z", "Running")
    assert "PromptContent" in found["why"]
    assert "FineTune farm-tuned was asked for a new run at 2026-03-01T12:03:00Z" in world.within[2]


def test_it_never_loops_while_the_breach_stays() -> None:
    world = drifted()
    for day in range(10):
        world.runs_again()
        world.operate(DAY)
        world.ends("True" if day % 2 else "False", "GateFailed")
        world.operate(DAY)
    assert len(world.runs) == 1
    assert "was retrained for it already" in waiting(world)


def test_its_end_is_told() -> None:
    world = drifted()
    for status, outcome in (("True", "Succeeded"), ("False", "Failed"), ("Unknown", "Running")):
        world.ends(status)
        world.operate()
        assert world.retrain is not None
        assert world.retrain["outcome"] == outcome


def test_a_breach_that_ended_and_begins_anew_is_another_once_the_interval_is_over() -> None:
    world = drifted()
    world.ends()
    breach_again(world, after=3600)
    assert world.retrain is not None
    assert world.retrain["clearedAt"]
    assert len(world.runs) == 1
    assert waiting(world) == "FineTune farm-tuned was retrained less than 24h ago (minInterval)"
    world.operate(DAY)
    assert len(world.runs) == 2
    assert world.retrain["at"] == "2026-03-02T13:04:00Z"
    assert "clearedAt" not in world.retrain


def test_under_another_revision_it_is_another_breach() -> None:
    world = drifted()
    world.ends()
    world.promote("b")
    world.tell(served(200), served(200))
    world.operate()
    world.tell(asked(200, OTHER))
    world.operate(DAY)
    assert len(world.runs) == 2
    assert world.runs[0][1] != world.runs[1][1]


@pytest.mark.parametrize("lost", ["status", "annotation", "both statuses", "everything but our status"])
def test_what_is_remembered_survives_any_loss(lost: str) -> None:
    """A backup is restored, a tool replaces the object, somebody makes the FineTune anew."""
    world = drifted()
    world.runs_again()
    world.ends()
    assert world.fine_tune is not None
    stable = world.body["status"]["stable"]
    if lost in ("status", "both statuses"):
        world.body["status"] = {"stable": stable}
    if lost == "annotation":
        world.fine_tune["metadata"].pop("annotations")
    if lost == "both statuses":
        world.fine_tune["status"].pop("retrain")
    if lost == "everything but our status":
        world.fine_tune = World().fine_tune
    for hours in (1, 5, 10):
        world.operate(hours * 3600.0)
        world.ends()
    assert len(world.runs) == 1
    world.operate(10 * DAY)
    assert len(world.runs) == 1, "the same breach still"
    assert world.retrain is not None
    assert world.retrain["at"] == "2026-03-01T12:03:00Z"


def test_an_operator_that_was_killed_before_it_said_so_does_not_ask_again() -> None:
    world = World(retrain=RETRAIN)
    world.settled()
    world.tell(asked(200, OTHER))
    before = fresh(world.body)
    world.operate()
    world.body = before
    world.operate()
    assert len(world.runs) == 1
    assert world.retrain is not None
    assert world.retrain["at"] == "2026-03-01T12:03:00Z"


def test_another_deployments_retrain_counts_for_the_interval() -> None:
    world = World(retrain=RETRAIN)
    assert world.fine_tune is not None
    said = "2026-03-01T06:00:00Z EdgeDeployment other revision 0a1b2c3d: pool x: PromptContent 0.9, max 0.2"
    world.fine_tune["metadata"]["annotations"] = {"slmops.dev/retrain": said}
    world.fine_tune["status"]["retrain"] = {"why": said, "at": "2026-03-01T06:00:00Z"}
    world.settled()
    world.tell(asked(200, OTHER))
    world.operate()
    assert world.runs == []
    assert world.retrain is None, "it is none of ours"
    world.operate(18 * 3600)
    assert len(world.runs) == 1


def test_the_end_of_a_breach_is_seen_also_where_another_deployment_has_asked_since() -> None:
    world = drifted()
    world.ends()
    world.operate()
    assert world.fine_tune is not None
    said = "2026-03-02T12:00:00Z EdgeDeployment other revision 0a1b2c3d: pool x: PromptContent 0.9, max 0.2"
    world.fine_tune["metadata"]["annotations"] = {"slmops.dev/retrain": said}
    world.ends()
    breach_again(world, after=3600)
    assert world.retrain is not None
    assert world.retrain["clearedAt"]
    assert (world.retrain["at"], world.retrain["outcome"]) == ("2026-03-01T12:03:00Z", "Succeeded")
    assert len(world.runs) == 1
    world.operate(2 * DAY)
    assert len(world.runs) == 2


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("Unknown", "FineTune farm-tuned is running"),
        ("False", "FineTune farm-tuned has failed (GateFailed): mend that"),
    ],
)
def test_a_run_under_way_or_one_that_failed_is_left_alone(status: str, told: str) -> None:
    world = World(retrain=RETRAIN)
    world.ends(status, "GateFailed")
    world.settled()
    world.tell(asked(200, OTHER))
    world.operate()
    assert world.runs == []
    assert told in waiting(world)
    assert told in world.within[2]
    world.ends()
    world.operate()
    assert len(world.runs) == 1


def test_a_finetune_whose_spec_was_changed_and_not_looked_at_yet_is_left_alone() -> None:
    world = World(retrain=RETRAIN)
    assert world.fine_tune is not None
    world.fine_tune["metadata"]["generation"] = 2
    world.settled()
    world.tell(asked(200, OTHER))
    world.operate()
    assert world.runs == []
    assert "is running" in waiting(world)


def test_a_rollout_under_way_comes_first() -> None:
    world = World(retrain=RETRAIN)
    world.settled()
    world.body["spec"] = {**world.body["spec"], "runtime": {"maxQueue": 7}}
    world.tell(asked(200, OTHER))
    world.operate()
    assert world.runs == []
    assert waiting(world) == "a rollout is under way"


def test_a_finetune_that_is_not_there_is_told_before_it_is_needed() -> None:
    world = World(retrain=RETRAIN)
    world.fine_tune = None
    world.settled()
    assert world.within[0] == "True"
    assert "FineTune farm-tuned does not exist in this namespace: create it" in world.within[2]
    world.tell(asked(200, OTHER))
    world.operate()
    assert world.runs == []
    assert "does not exist" in world.within[2]


@pytest.mark.parametrize(
    ("on", "runs"), [(["InputDrift"], 1), (["OutputDrift"], 0), (["Bounds"], 0), (["OutputDrift", "InputDrift"], 1)]
)
def test_only_what_is_named_leads_to_it(on: list[str], runs: int) -> None:
    world = World(retrain={**RETRAIN, "on": on}, bounds=[{"metric": "ErrorRate", "max": "5%"}])
    world.settled()
    world.tell(asked(200, OTHER))
    world.operate()
    assert world.within[0] == "False"
    assert len(world.runs) == runs


def test_a_bound_may_lead_to_it() -> None:
    world = World(retrain={**RETRAIN, "on": ["Bounds"]}, bounds=[{"metric": "ErrorRate", "max": "5%"}])
    world.settled()
    world.tell(served(200, errors=100))
    world.operate()
    assert len(world.runs) == 1
    assert world.retrain is not None
    assert "ErrorRate 33%" in world.retrain["why"]


def test_the_annotation_is_bounded_and_read_again_as_it_was_written() -> None:
    why = "; ".join(f"pool {'p' * 40}: PromptContent {n}, max 0.2" for n in range(64))
    made = trace(NOW, "d" * 40, "0a1b2c3d", why)
    assert len(made.text) == LONGEST
    assert last({"metadata": {"annotations": {"slmops.dev/retrain": made.text}}}) == (made, [NOW])


@pytest.mark.parametrize(
    "text",
    [*UNREADABLE, "9999-12-31T23:59:59-23:00", "0001-01-01T00:00:00+23:00", "x" * 5000, "", "again"],
)
def test_an_annotation_of_anybody_breaks_no_pass(text: str) -> None:
    world = World(retrain=RETRAIN)
    assert world.fine_tune is not None
    for said in (text, f"{text} EdgeDeployment chat revision {world.name}: x"):
        world.fine_tune["metadata"]["annotations"] = {"slmops.dev/retrain": said}
        world.fine_tune["status"]["retrain"] = {"why": said[:LONGEST], "at": text}
        world.settled()
        world.tell(asked(200, OTHER))
        world.operate()
        assert world.within[:2] == ("False", "Drifted")


@pytest.mark.parametrize("status", [{}, {"retrain": None}, {"retrain": {}}, {"retrain": {"at": 5}}])
def test_a_finetune_without_a_status_is_no_mistake(status: dict[str, Any]) -> None:
    assert last({"metadata": {}, "status": status}) == (None, [])
