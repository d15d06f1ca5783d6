"""Which resources an event wakes."""

from typing import Any

import pytest

from slmops.cluster.objects import (
    CHILDREN,
    DISTILLATION,
    EDGE_DEPLOYMENT,
    FINE_TUNE,
    GVK,
    JOB,
    NODE,
    PARENTS,
    POD,
    QUANTIZED_MODEL,
    Key,
)
from slmops.intake import CHILD_DELAY, NODE_DELAY, asked
from slmops.state import JOB_NAME_LABEL
from tests.unit.intakes import A, B, Desk, node, owned_by


@pytest.mark.parametrize("type", [None, "ADDED", "MODIFIED"])
def test_a_resource_wakes_itself(type: str | None) -> None:
    assert Desk().event(FINE_TUNE, type, "a", spec={}) == {A}


def test_a_resource_wakes_those_who_refer_to_it_also_when_it_goes() -> None:
    desk = Desk()
    desk.event(FINE_TUNE, "ADDED", "a", spec={"base": {"distillation": {"name": "student"}}})
    desk.event(FINE_TUNE, "ADDED", "b", spec={"base": {"uri": "hf://x"}})
    desk.event(QUANTIZED_MODEL, "ADDED", "q", spec={"model": {"distillation": {"name": "student"}}})
    student = Key("Distillation", "farm", "student")
    both = {student, A, Key("QuantizedModel", "farm", "q")}
    assert desk.event(DISTILLATION, "ADDED", "student", spec={}) == both
    assert desk.event(DISTILLATION, "MODIFIED", "student", spec={}, status={"phase": "Succeeded"}) == both
    assert desk.event(DISTILLATION, "DELETED", "student") == both
    assert desk.event(DISTILLATION, "ADDED", "student", metadata={"namespace": "mill"}) == {
        Key("Distillation", "mill", "student")
    }, "references stay in their namespace"


@pytest.mark.parametrize("gvk", CHILDREN)
def test_a_child_wakes_the_parent_that_its_labels_name(gvk: GVK) -> None:
    desk = Desk()
    assert desk.event(gvk, "ADDED", "c", metadata=owned_by("a")) == {A}
    assert desk.event(gvk, "MODIFIED", "c", metadata=owned_by("a"), status={"conditions": [{"type": "Failed"}]}) == {A}
    assert desk.event(gvk, "DELETED", "c", metadata=owned_by("a")) == {A}


def test_what_a_child_does_in_a_moment_is_one_pass() -> None:
    desk = Desk()
    desk.event(JOB, "ADDED", "c", metadata=owned_by("a"))
    assert desk.woken == [(A, CHILD_DELAY)]


def test_a_child_that_changes_hands_wakes_both_parents() -> None:
    desk = Desk()
    desk.event(JOB, "ADDED", "c", metadata=owned_by("a"))
    assert desk.event(JOB, "MODIFIED", "c", metadata=owned_by("b")) == {A, B}
    assert desk.event(JOB, "MODIFIED", "c", metadata={"labels": {}}) == {B}, "a child that lost its labels"
    assert desk.event(JOB, "MODIFIED", "c", metadata={"labels": {}}, status={"conditions": []}) == set()


def test_a_watch_that_does_not_see_a_child_any_more_tells_of_a_deletion_and_wakes_the_former_parent() -> None:
    desk = Desk()
    desk.event(JOB, "ADDED", "c", metadata=owned_by("a"))
    assert desk.event(JOB, "DELETED", "c", metadata={"labels": {}}) == {A}


@pytest.mark.parametrize(
    "labels", [{}, {"slmops.dev/kind": "FineTune"}, {"slmops.dev/name": "a"},
               {"slmops.dev/kind": "Node", "slmops.dev/name": "a"},
               {"slmops.dev/kind": "finetune", "slmops.dev/name": "a"}]
)  # fmt: skip
def test_labels_that_name_no_resource_of_ours_wake_nobody(labels: dict[str, str]) -> None:
    assert Desk().event(JOB, "ADDED", "c", metadata={"labels": labels}) == set()


def test_what_is_no_news_wakes_nobody() -> None:
    desk = Desk()
    desk.event(FINE_TUNE, "ADDED", "a", version=5, spec={"x": 1})
    assert desk.event(FINE_TUNE, "MODIFIED", "a", version=5, spec={"x": 1}) == set(), "twice"
    assert desk.event(FINE_TUNE, None, "a", version=4, spec={"x": 0}) == set(), "late"
    assert desk.event(FINE_TUNE, "MODIFIED", "a", version=6, spec={"x": 1}) == set(), "another version, same content"
    assert desk.event(JOB, "DELETED", "unknown", metadata=owned_by("a")) == set()
    assert desk.told == [("FineTune", "changed"), *[("FineTune", "unchanged")] * 3, ("Job", "unchanged")]


@pytest.mark.parametrize(
    ("job", "uid", "pod", "wakes"),
    [
        ({}, "1", {"phase": "Succeeded"}, False),
        ({}, "1", {"phase": "Running"}, True),
        ({}, "1", {"phase": "Failed"}, True),
        ({"conditions": [{"type": "SuccessCriteriaMet", "status": "True"}]}, "1", {"phase": "Succeeded"}, True),
        (None, "1", {"phase": "Succeeded"}, True),
        ({}, "2", {"phase": "Succeeded"}, True),
    ],
    ids=[
        "its Job will tell",
        "it begins",
        "it failed",
        "its Job waits for it",
        "it has no Job",
        "of a Job before this one",
    ],
)
def test_a_pod_that_ended_well_is_left_to_its_job(
    job: dict[str, Any] | None, uid: str, pod: dict[str, Any], wakes: bool
) -> None:
    desk = Desk()
    owner = {"ownerReferences": [{"kind": "Job", "name": "j", "uid": "1", "controller": True}]}
    mine = owned_by("a", **{JOB_NAME_LABEL: "j"}) | owner
    desk.event(POD, "ADDED", "p", metadata=mine, status={"phase": "Pending"})
    if job is not None:
        desk.event(JOB, "ADDED", "j", metadata=owned_by("a") | {"uid": uid}, status=job)
    assert desk.event(POD, "MODIFIED", "p", metadata=mine, status=pod) == ({A} if wakes else set())
    assert desk.event(POD, "DELETED", "p", metadata=mine, status=pod) == {A}


def test_our_own_write_wakes_nobody() -> None:
    desk = Desk()
    desk.event(FINE_TUNE, "ADDED", "a", version=5, spec={})
    metadata = {"name": "a", "namespace": "farm", "resourceVersion": "6"}
    desk.cache.wrote(FINE_TUNE, {"metadata": metadata, "spec": {}, "status": {"phase": "Pending"}})
    assert desk.event(FINE_TUNE, "MODIFIED", "a", version=6, spec={}, status={"phase": "Pending"}) == set()


@pytest.mark.parametrize(
    ("change", "another"),
    [
        ({"metadata": {"uid": "u", "generation": 2}}, True),
        ({"metadata": {"uid": "u", "generation": 1, "annotations": {"slmops.dev/retry": "1"}}}, True),
        ({"metadata": {"uid": "v", "generation": 1}}, True),
        ({"metadata": {"uid": "u", "generation": 1, "annotations": {"a": "b"}, "labels": {"c": "d"}}}, False),
        ({"metadata": {"uid": "u", "generation": 1}, "status": {"phase": "Failed"}}, False),
    ],
)
def test_what_people_ask_is_told_from_what_else_changes(change: dict[str, Any], another: bool) -> None:
    desk = Desk()
    assert asked(desk.cache, A) is None
    desk.event(FINE_TUNE, "ADDED", "a", metadata={"uid": "u", "generation": 1})
    before = asked(desk.cache, A)
    assert before is not None
    assert desk.event(FINE_TUNE, "MODIFIED", "a", **change) == {A}
    assert (asked(desk.cache, A) != before) is another
    desk.event(FINE_TUNE, "DELETED", "a", **change)
    assert asked(desk.cache, A) is None


def test_a_node_wakes_every_edge_deployment_and_nobody_else() -> None:
    desk = Desk()
    edge = {Key("EdgeDeployment", "farm", "e"), Key("EdgeDeployment", "mill", "e")}
    desk.event(EDGE_DEPLOYMENT, "ADDED", "e")
    desk.event(EDGE_DEPLOYMENT, "ADDED", "e", metadata={"namespace": "mill"})
    desk.event(FINE_TUNE, "ADDED", "a")
    desk.woken.clear()
    assert desk.event(NODE, "ADDED", "n", **node()) == edge
    assert {after for _, after in desk.woken} == {NODE_DELAY}
    assert desk.event(NODE, "MODIFIED", "n", **node(ready="Unknown")) == edge
    assert desk.event(NODE, "MODIFIED", "n", **node(ready="Unknown", pool="farms")) == edge
    assert desk.event(NODE, "DELETED", "n") == edge


def test_a_nodes_heartbeat_wakes_nobody() -> None:
    desk = Desk()
    desk.event(EDGE_DEPLOYMENT, "ADDED", "e")
    desk.event(NODE, "ADDED", "n", **node(beat="1"))
    assert desk.event(NODE, "MODIFIED", "n", **node(beat="2")) == set()


def test_everybody_can_be_woken_spread_over_time() -> None:
    desk = Desk()
    keys = set()
    for gvk in PARENTS:
        for number in range(50):
            desk.event(gvk, "ADDED", f"n{number}")
            keys.add(Key(gvk.kind, "farm", f"n{number}"))
    desk.event(JOB, "ADDED", "j", metadata=owned_by("n1"))
    desk.woken.clear()
    desk.intake.wake_all(within=300)
    assert {key for key, _ in desk.woken} == keys
    assert len(desk.woken) == len(keys)
    times = sorted(after for _, after in desk.woken)
    assert 0 <= times[0] < 60
    assert 240 < times[-1] <= 300
