"""One more run of the same FineTune: what the annotation makes of its Jobs, and that it does so once."""

from typing import Any

import pytest

from slmops.api.finetune import FineTune
from slmops.kinds import KINDS
from slmops.plan.finetune import plan_finetune
from slmops.retraining import ANNOTATION_RETRAIN, LONGEST
from slmops.state import ANNOTATION_RETRY, Manifest, Observed, Plan
from tests.unit.builders import (
    COMPLETE,
    DATA,
    LATER,
    NOW,
    SETTINGS,
    body,
    done,
    finetune,
    jobs,
    live,
    report,
)

NAME = "farm-tuned-train-7183737e"
"""The Job of the shortest manifest, since the first version."""
SAID = "2026-03-01T12:00:00Z EdgeDeployment chat revision 0a1b2c3d: pool farms: PromptContent 0.6, max 0.2"
SEARCH = {"trials": 2, "space": [{"name": "learningRate", "log": {"min": 1.0e-6, "max": 1.0e-3}}]}
KINDS_OF_TRAINING: dict[str, dict[str, Any]] = {
    "one": {},
    "Olive": {"engine": "Olive"},
    "adapters": {"data": None, "adapters": [{"name": "a", "data": {"train": DATA}}, {"name": "b", "data": {"train": DATA}}],
                 "parallelism": 2},
    "search": {"search": SEARCH},
}  # fmt: skip


def again(word: str = SAID, spec: dict[str, Any] | None = None, **annotations: str) -> FineTune:
    return finetune(spec, metadata={"annotations": {ANNOTATION_RETRAIN: word, **annotations}})


def plan_of(resource: FineTune, observed: Observed | None = None) -> Plan:
    return plan_finetune(resource, observed or Observed(), SETTINGS)


def names(plan: Plan) -> list[str]:
    return [job["metadata"]["name"] for job in jobs(plan)]


@pytest.mark.parametrize(
    "annotations", [{}, {ANNOTATION_RETRY: "1"}, {"slmops.dev/other": "x"}, {ANNOTATION_RETRAIN: ""}]
)
def test_without_it_the_jobs_have_the_names_that_they_always_had(annotations: dict[str, str]) -> None:
    assert names(plan_of(finetune(metadata={"annotations": annotations}))) == [NAME]


@pytest.mark.parametrize("what", KINDS_OF_TRAINING)
def test_every_job_of_a_run_is_a_new_one(what: str) -> None:
    spec = KINDS_OF_TRAINING[what]
    before, after = names(plan_of(finetune(spec))), names(plan_of(again(spec=spec)))
    assert len(before) == len(after) > 0
    assert not set(before) & set(after)


def test_a_run_that_succeeded_is_made_once_more_and_the_job_says_why() -> None:
    config_map, job = (live(m) for m in plan_of(finetune()).apply)
    job["status"] = {"conditions": [COMPLETE]}
    plan = plan_of(again(), Observed(children=(config_map, job)))
    (new,) = jobs(plan)
    assert new["metadata"]["annotations"][ANNOTATION_RETRAIN] == SAID
    assert new["metadata"]["name"] != job["metadata"]["name"]
    assert set(map(id, plan.remove)) == {id(config_map), id(job)}


def test_it_is_made_once() -> None:
    observed = done(plan_of(again()), report("model"))
    plan = plan_of(again(), observed)
    assert (plan.apply, plan.remove) == ((), ())


def test_each_word_is_a_run_of_its_own() -> None:
    found = {names(plan_of(again(word)))[0] for word in ("one", "two", SAID)}
    assert len(found) == 3


def test_a_long_word_is_bounded_before_it_goes_anywhere() -> None:
    (job,) = jobs(plan_of(again("x" * 10_000)))
    assert len(job["metadata"]["annotations"][ANNOTATION_RETRAIN]) == LONGEST
    assert names(plan_of(again("x" * LONGEST))) == [job["metadata"]["name"]]


def test_its_volume_is_a_new_one() -> None:
    """Checkpoints of the run before are of the records of that time."""
    spec = {"run": {"volume": {"size": "1Gi"}}}

    def claim(resource: FineTune) -> str:
        (found,) = [m for m in plan_of(resource).apply if m["kind"] == "PersistentVolumeClaim"]
        return str(found["metadata"]["name"])

    assert claim(again(spec=spec)) != claim(finetune(spec))


@pytest.mark.parametrize("kind", ["Distillation", "QuantizedModel"])
def test_other_kinds_do_not_know_it(kind: str) -> None:
    def made(**metadata: Any) -> list[str]:
        resource = KINDS[kind].model.model_validate(body(kind, metadata=metadata))
        return names(KINDS[kind].plan(resource, Observed(), SETTINGS, NOW))

    assert made(annotations={ANNOTATION_RETRAIN: SAID}) == made() != []


# --- what the status remembers


def stated(manifest: Manifest, now: Any = NOW) -> Manifest:
    """A pass without anything that exists; the FineTune with its status."""
    resource = FineTune.model_validate(manifest)
    found = KINDS["FineTune"]
    plan = found.plan(resource, Observed(), SETTINGS, now)
    return {**manifest, "status": found.status(resource, Observed(), plan, now).dump()}


@pytest.mark.parametrize("spec", [{}, KINDS_OF_TRAINING["adapters"]])
def test_to_take_the_annotation_away_undoes_nothing_and_starts_nothing(spec: dict[str, Any]) -> None:
    manifest = body("FineTune", spec, metadata={"annotations": {ANNOTATION_RETRAIN: SAID}})
    run = names(plan_of(FineTune.model_validate(manifest)))
    manifest = stated(manifest)
    assert manifest["status"]["retrain"] == {"why": SAID, "at": "2026-03-01T12:00:00Z"}
    manifest["metadata"].pop("annotations")
    for _ in range(2):
        assert names(plan_of(FineTune.model_validate(manifest))) == run
        manifest = stated(manifest, LATER)
        assert manifest["status"]["retrain"]["at"] == "2026-03-01T12:00:00Z"


def test_another_word_is_remembered_with_its_own_time() -> None:
    manifest = stated(body("FineTune", metadata={"annotations": {ANNOTATION_RETRAIN: "one"}}))
    manifest["metadata"]["annotations"] = {ANNOTATION_RETRAIN: "two"}
    assert stated(manifest, LATER)["status"]["retrain"] == {"why": "two", "at": "2026-03-01T13:00:00Z"}


def test_where_nothing_was_asked_for_nothing_is_said() -> None:
    assert "retrain" not in stated(body("FineTune"))["status"]
