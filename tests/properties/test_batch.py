"""The three batch kinds, whatever happens: plans and statuses stay valid, and everything comes to rest."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmops.api.batch import BatchStatus
from slmops.kinds import KINDS
from slmops.state import Manifest, Observed, Plan
from tests.properties.batches import (
    BATCH_KINDS,
    REFERENCES,
    SPOILED,
    bodies,
    by_name,
    check_plan,
    check_status,
    planned,
    sights,
    texts,
)
from tests.properties.batchworld import OUTCOMES, World
from tests.unit.builders import DATA, LATER, NOW, SPECS, body, reference
from tests.unit.copies import fresh

moderate = settings(derandomize=True, max_examples=24)
every_kind = pytest.mark.parametrize("kind", BATCH_KINDS)


def stated(manifest: Manifest, observed: Observed, plan: Plan) -> BatchStatus:
    """The status of a pass."""
    kind = KINDS[manifest["kind"]]
    status = kind.status(kind.model.model_validate(manifest), observed, plan, NOW)
    assert isinstance(status, BatchStatus)
    return status


# --- any state -----------------------------------------------------------------------------------------------------


@every_kind
def test_any_state_gives_a_valid_plan_and_a_valid_status(kind: str) -> None:
    @moderate
    @given(st.data())
    def valid(data: st.DataObject) -> None:
        manifest = data.draw(bodies(kind))
        for observed in (Observed(references=by_name(REFERENCES)), data.draw(sights(manifest))):
            before = fresh((manifest, observed))
            plan = planned(manifest, observed)
            check_plan(manifest, observed, plan)
            status = stated(manifest, observed, plan)
            check_status(kind, status)
            assert status.observed_generation == manifest["metadata"]["generation"]
            assert (manifest, observed) == before, "a pass changes nothing that it was given"

    valid()


@every_kind
def test_the_order_in_which_children_and_pods_are_seen_does_not_matter(kind: str) -> None:
    @moderate
    @given(st.data())
    def same(data: st.DataObject) -> None:
        manifest = data.draw(bodies(kind))
        one = data.draw(sights(manifest))
        children, pods = (tuple(data.draw(st.permutations(part))) for part in (one.children, one.pods))
        other = Observed(children, pods, dict(reversed(one.references.items())), (), one.progress)
        plans = [planned(manifest, observed) for observed in (one, other)]
        assert plans[0].apply == plans[1].apply
        assert plans[0].annotate == plans[1].annotate
        assert sorted(map(repr, plans[0].remove)) == sorted(map(repr, plans[1].remove))
        assert stated(manifest, one, plans[0]) == stated(manifest, other, plans[1])

    same()


# --- a life --------------------------------------------------------------------------------------------------------

CHANGES: dict[str, list[dict[str, Any]]] = {
    "Distillation": [{"training": {"seed": 1}}, {"training": {"epochs": 1}},
                     {"gates": [{"metric": "ExactMatch", "min": 1}]}],
    "FineTune": [{"lora": {"rank": 2}}, {"merge": False}, {"base": {"fineTune": {"name": "ready"}}}],
    "QuantizedModel": [{"variants": [{"name": "a"}, {"name": "b"}]}, {"variants": [{"name": "b"}]},
                       {"model": {"distillation": {"name": "ready"}}}],
}  # fmt: skip
BROKEN: dict[str, list[dict[str, Any]]] = {
    "Distillation": [{"teacher": {"model": {"fineTune": {"name": name}}}} for name in ("absent", "empty", "failed")]
    + [{"data": {"train": {"uri": "pvc://Bad_claim/x"}}}],
    "FineTune": [{"base": {"fineTune": {"name": name}}} for name in ("absent", "empty", "failed", "young")],
    "QuantizedModel": [{"model": {"fineTune": {"name": "empty"}}}, {"model": {"uri": "pvc://Bad_claim/x"}},
                       {"variants": [{"name": "a"}, {"name": "a"}]}],
}  # fmt: skip


LASTING = ("good", "permanent", "passing", "oom", "silent", "late")
"""How pods may end for ever; an image that stays away or a node that always evicts is no rest."""


def spec(kind: str, change: dict[str, Any] | None = None) -> dict[str, Any]:
    return fresh(SPECS[kind] | (change or {}))


def events(kind: str) -> st.SearchStrategy[Callable[[World], None]]:
    """Something that happens between two passes."""
    changes = st.sampled_from([{}, *CHANGES[kind], *BROKEN[kind]])
    return st.one_of(
        st.just(lambda world: world.turn()),
        st.just(lambda world: world.turn()),
        changes.map(lambda change: lambda world: world.change(spec(kind, change))),
        st.integers(0, 3).map(lambda number: lambda world: world.annotate(retry=str(number))),
        st.integers(0, 5).map(lambda index: lambda world: _delete(world, index)),
        texts.map(lambda text: lambda world: _spoil(world, text)),
        st.sampled_from(SPOILED).map(lambda status: lambda world: world.body.update(status=status)),
        st.just(lambda world: world.pods.clear()),
    )


def _delete(world: World, index: int) -> None:
    if index < len(world.children):
        world.delete(list(world.children.values())[index])


def _spoil(world: World, text: str) -> None:
    for job in world.jobs:
        job["metadata"].setdefault("annotations", {})["slmops.dev/report"] = text


@every_kind
def test_whatever_happens_all_comes_to_rest_and_then_nothing_is_written(kind: str) -> None:
    @moderate
    @given(
        st.lists(events(kind), max_size=12), st.lists(st.sampled_from(OUTCOMES), max_size=8), st.sampled_from(LASTING)
    )
    def rests(happening: list[Callable[[World], None]], outcomes: list[str], then: str) -> None:
        world = World(body(kind), outcomes, REFERENCES, then)
        for happens in happening:
            world.reconcile()
            check(world)
            happens(world)
        world.settle()
        check(world)
        at_rest = fresh((world.body, world.children))
        assert world.reconcile(LATER) == 0
        world.pods.clear()
        assert world.reconcile(LATER) == 0, "what is known outlives the pods"
        assert (world.body, world.children) == at_rest

    rests()


def check(world: World) -> None:
    """What holds after every pass."""
    status, generation = world.body["status"], world.body["metadata"]["generation"]
    assert status["observedGeneration"] == generation
    assert {found["observedGeneration"] for found in status["conditions"]} == {generation}
    for step in planned(world.body, world.observe()).steps:
        job = world.observe().child("Job", step.name)
        assert job is None or world.over(job) or ("ConfigMap", step.name) in world.children


@every_kind
def test_success_is_only_ever_of_the_spec_that_stands(kind: str) -> None:
    @moderate
    @given(st.lists(events(kind), max_size=12), st.lists(st.sampled_from(OUTCOMES), max_size=4))
    def honest(happening: list[Callable[[World], None]], outcomes: list[str]) -> None:
        world = World(body(kind), outcomes, REFERENCES)
        for happens in happening:
            plan, jobs = planned(world.body, world.observe()), {job["metadata"]["name"] for job in world.jobs}
            done = [name for name in jobs if world.observe().job(name).phase == "Succeeded"]
            world.reconcile()
            if world.condition("Succeeded")["status"] == "True":
                assert plan.steps
                assert {step.name for step in plan.steps} <= set(done)
                assert world.condition("Succeeded")["observedGeneration"] == world.body["metadata"]["generation"]
            happens(world)

    honest()


@every_kind
def test_the_observed_generation_never_falls(kind: str) -> None:
    @moderate
    @given(st.lists(st.sampled_from([{}, *CHANGES[kind], *BROKEN[kind]]), max_size=8))
    def rises(changes: list[dict[str, Any]]) -> None:
        world = World(body(kind), (), REFERENCES)
        seen = []
        for change in changes:
            world.change(spec(kind, change))
            world.reconcile()
            world.turn()
            seen.append(world.body["status"]["observedGeneration"])
        assert seen == sorted(seen)

    rises()


@every_kind
def test_a_world_without_mishaps_ends_in_success(kind: str) -> None:
    world = World(body(kind))
    assert world.settle() < 12
    assert world.body["status"]["phase"] == "Succeeded"
    assert all(found["status"] == "True" for found in world.body["status"]["conditions"])


# --- changes -------------------------------------------------------------------------------------------------------


@every_kind
def test_a_slip_that_is_taken_back_costs_no_job_and_leaves_no_trace(kind: str) -> None:
    @moderate
    @given(st.sampled_from(BROKEN[kind]), st.integers(0, 8), st.lists(st.sampled_from(OUTCOMES), max_size=3))
    def untouched(slip: dict[str, Any], turns: int, outcomes: list[str]) -> None:
        never, slipped = (World(body(kind), outcomes, REFERENCES) for _ in range(2))
        for world in (never, slipped):
            for _ in range(turns):
                world.reconcile()
                world.turn()
        slipped.change(spec(kind, slip))
        slipped.reconcile()
        assert slipped.condition("Succeeded")["status"] != "True"
        slipped.change(spec(kind))
        for world in (never, slipped):
            world.settle()
        assert slipped.made == never.made
        assert timeless(slipped.body["status"]) == timeless(never.body["status"])

    untouched()


def timeless(status: Manifest) -> Manifest:
    """A status without generations and times."""
    skipped = ("observedGeneration", "lastTransitionTime")
    conditions = [{k: v for k, v in found.items() if k not in skipped} for found in status["conditions"]]
    return {k: v for k, v in status.items() if k not in skipped} | {"conditions": conditions}


@every_kind
def test_a_changed_spec_is_new_jobs_and_the_old_ones_go(kind: str) -> None:
    @moderate
    @given(st.sampled_from(CHANGES[kind]), st.integers(0, 8))
    def replaced(change: dict[str, Any], turns: int) -> None:
        world = World(body(kind), (), REFERENCES)
        for _ in range(turns):
            world.reconcile()
            world.turn()
        world.change(spec(kind, change))
        world.settle()
        fresh = World(body(kind, change), (), REFERENCES)
        fresh.settle()
        assert set(world.children) == set(fresh.children)
        assert timeless(world.body["status"]) == timeless(fresh.body["status"])

    replaced()


@every_kind
def test_a_failure_is_mended_by_the_retry_annotation_alone(kind: str) -> None:
    @moderate
    @given(st.sampled_from(["permanent", "late", "silent", "garbage"]), st.integers(0, 1))
    def mended(outcome: str, position: int) -> None:
        world = World(body(kind), ["good"] * position + [outcome])
        world.settle()
        failed = world.body["status"]["phase"] == "Failed"
        made = list(world.made)
        world.annotate(retry="1")
        world.settle()
        assert world.body["status"]["phase"] == "Succeeded"
        again = world.made[len(made) :]
        assert len(again) == failed + (kind == "Distillation" and failed and position == 0)
        assert {name for _, name in again[:failed]} <= {name for _, name in made}

    mended()


def test_a_chain_waits_for_its_first_link_and_follows_it_to_another_digest() -> None:
    world = World(body("QuantizedModel", {"model": {"fineTune": {"name": "tuned"}}}))
    world.settle()
    assert world.condition("InputsResolved")["reason"] == "ReferenceNotFound"
    tuned = reference("FineTune", "tuned")
    world.references["FineTune", "tuned"] = tuned
    world.settle()
    assert world.body["status"]["phase"] == "Succeeded"
    first = [name for _, name in world.made]
    tuned["status"]["artifact"]["reference"] = f"registry.example/slm/tuned@sha256:{'cd' * 32}"
    world.settle()
    assert world.body["status"]["phase"] == "Succeeded"
    assert len(world.made) == 2
    assert world.made[1][1] not in first


def test_data_by_the_same_address_are_not_read_again_by_themselves() -> None:
    world = World(body("FineTune", {"data": {"train": DATA}}))
    world.settle()
    world.change(spec("FineTune", {"data": {"train": dict(DATA)}}))
    world.settle(LATER)
    assert len(world.made) == 1
