"""The volume of a Job that outlives its pods: when it is made, what it is, when it goes."""

from typing import Any

import pytest

from slmops.plan.distillation import plan_distillation
from slmops.plan.finetune import plan_finetune
from slmops.state import ANNOTATION_REPORT, ANNOTATION_RETRY, Manifest, Observed, Plan
from tests.unit.builders import (
    COMPLETE,
    FAILED,
    RUNNING,
    SETTINGS,
    distillation,
    done,
    ended,
    failure,
    finetune,
    jobs,
    live,
    pod,
    report,
    said,
)

WANTED = {"run": {"volume": {"size": "10Gi"}}}


def planned(observed: Observed | None = None, spec: dict[str, Any] | None = None, **fields: Any) -> Plan:
    return plan_finetune(finetune(spec or WANTED, **fields), observed or Observed(), SETTINGS)


def claims(plan: Plan) -> list[Manifest]:
    return [manifest for manifest in plan.apply if manifest["kind"] == "PersistentVolumeClaim"]


def made(*conditions: Manifest) -> tuple[Manifest, Manifest, Manifest]:
    """The live ConfigMap, claim and Job."""
    config_map, claim, job = planned().apply
    return live(config_map), live(claim), live(job, *conditions)


def test_without_a_wish_there_is_none() -> None:
    plan = planned(spec={"run": {"retries": 3}})
    assert claims(plan) == []
    assert "state" not in [volume["name"] for volume in jobs(plan)[0]["spec"]["template"]["spec"]["volumes"]]


def test_the_claim_comes_before_its_job_and_belongs_to_the_resource() -> None:
    plan = planned()
    assert [manifest["kind"] for manifest in plan.apply] == ["ConfigMap", "PersistentVolumeClaim", "Job"]
    (claim,), (job,) = claims(plan), jobs(plan)
    same = {key: value for key, value in claim["metadata"].items() if key != "name"}
    assert {key: job["metadata"][key] for key in same} == same
    assert claim["metadata"]["ownerReferences"][0]["uid"] == "uid-of-farm-tuned"
    assert claim["spec"] == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}}


def test_the_class_is_the_clusters_default_unless_one_is_named() -> None:
    (claim,) = claims(planned(spec={"run": {"volume": {"size": 1, "storageClass": "fast"}}}))
    assert claim["spec"]["storageClassName"] == "fast"
    assert claim["spec"]["resources"] == {"requests": {"storage": "1"}}


def test_the_pod_finds_it_where_the_image_looks_and_can_write_to_it() -> None:
    spec = jobs(planned())[0]["spec"]["template"]["spec"]
    name = claims(planned())[0]["metadata"]["name"]
    assert {"name": "state", "persistentVolumeClaim": {"claimName": name}} in spec["volumes"]
    assert {"name": "state", "mountPath": "/state"} in spec["containers"][0]["volumeMounts"]
    assert spec["securityContext"]["fsGroup"] == spec["securityContext"]["runAsGroup"]


def test_a_running_job_keeps_it_and_one_that_somebody_deleted_comes_back() -> None:
    config_map, claim, job = made()
    running = (pod(job, state=RUNNING),)
    plan = planned(Observed(children=(config_map, claim, job), pods=running))
    assert (plan.apply, plan.remove) == ((), ())
    assert claims(planned(Observed(children=(config_map, job), pods=running))) == claims(planned())


def test_it_goes_with_its_pods_when_the_job_has_succeeded_and_does_not_come_back() -> None:
    config_map, claim, job = made(COMPLETE)
    end = (pod(job, state=ended(0, said(report("model")))),)
    plan = planned(Observed(children=(config_map, claim, job), pods=end))
    assert plan.remove == (), "the report is in the pod alone"
    ((_, kept),) = plan.annotate
    job["metadata"]["annotations"] = {**job["metadata"].get("annotations", {}), **kept}
    assert planned(Observed(children=(config_map, claim, job), pods=end)).remove == (claim, *end)
    plan = planned(Observed(children=(config_map, job)))
    assert (claims(plan), plan.remove) == ([], ())


def test_a_failed_job_keeps_it_for_the_attempt_that_a_person_asks_for() -> None:
    config_map, claim, job = made(FAILED)
    observed = Observed(children=(config_map, claim, job), pods=(pod(job, state=ended(1, failure("DiskFull"))),))
    assert planned(observed).remove == ()
    again = {"annotations": {ANNOTATION_RETRY: "1"}}
    assert planned(observed, metadata=again).remove == (job,)
    after = planned(Observed(children=(config_map, claim)), metadata=again)
    assert [manifest["kind"] for manifest in after.apply] == ["Job"]


def test_another_wish_is_another_volume_and_the_old_one_goes() -> None:
    before = made()
    plan = planned(Observed(children=before), spec=WANTED | {"lora": {"rank": 8}})
    assert set(map(id, plan.remove)) == set(map(id, before))
    assert claims(plan)[0]["metadata"]["name"] != before[1]["metadata"]["name"]


@pytest.mark.parametrize("changed", [
    {"resources": {"limits": {"memory": "64Gi"}}}, {"retries": 9}, {"priorityClassName": "high"},
    {"nodeSelector": {"pool": "gpu"}},
])  # fmt: skip
def test_where_it_runs_may_change_and_the_checkpoints_stay(changed: dict[str, Any]) -> None:
    before = made(FAILED)
    plan = planned(Observed(children=before), spec={"run": WANTED["run"] | changed})
    assert claims(plan) == []
    assert before[1] not in plan.remove
    for job in jobs(plan):
        volume = job["spec"]["template"]["spec"]["volumes"][-1]
        assert volume["persistentVolumeClaim"]["claimName"] == before[1]["metadata"]["name"]


@pytest.mark.parametrize(("size", "asked"), [("20Gi", ["20Gi"]), ("5Gi", []), ("10Gi", [])])
def test_one_that_is_there_grows_and_never_shrinks(size: str, asked: list[str]) -> None:
    claim = made()[1]
    plan = planned(Observed(children=(claim,)), spec={"run": {"volume": {"size": size}}})
    assert [claim["spec"]["resources"]["requests"]["storage"] for claim in claims(plan)] == asked


def test_a_size_that_nobody_here_wrote_is_left_alone() -> None:
    claim = made()[1]
    claim["spec"]["resources"]["requests"]["storage"] = "1Ei"
    assert claims(planned(Observed(children=(claim,)))) == []


@pytest.mark.parametrize("changed", [
    {"teacher": {"endpoint": {"url": "http://teacher:8080/v1", "model": "t", "minSuccessRatio": 0.5}}},
    {"data": {"train": {"uri": "oci://registry:5000/data/other:v1"}}},
    {"labelling": {"resources": {"limits": {"memory": "1Gi"}}, **WANTED["run"]}},
])  # fmt: skip
def test_what_a_teacher_has_answered_stays_through_every_change_and_after_the_end(changed: dict[str, Any]) -> None:
    config_map, claim, job = plan_distillation(distillation(WANTED), Observed(), SETTINGS).apply
    children = (live(config_map), live(claim), live(job, COMPLETE))
    observed = Observed(children=children, pods=(pod(children[2], state=ended(0, said(report("dataset")))),))
    children[2]["metadata"]["annotations"] = {ANNOTATION_REPORT: report("dataset").model_dump_json()}
    assert children[1] not in plan_distillation(distillation(WANTED), observed, SETTINGS).remove
    plan = plan_distillation(distillation(WANTED | changed), observed, SETTINGS)
    assert {manifest["kind"] for manifest in plan.remove} == {"ConfigMap", "Job"}
    (again,) = jobs(plan)
    volume = again["spec"]["template"]["spec"]["volumes"][-1]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def test_labelling_and_training_each_have_their_own() -> None:
    resource = distillation(WANTED)
    label = plan_distillation(resource, Observed(), SETTINGS)
    first = Plan(apply=tuple(m for m in label.apply if m["kind"] != "PersistentVolumeClaim"))
    train = plan_distillation(resource, done(first, report("dataset")), SETTINGS)
    names = [claim["metadata"]["name"] for claim in (*claims(label), *claims(train))]
    assert [name.rpartition("-")[0] for name in names] == ["farm-tuned-label", "farm-tuned-train"]


def test_labelling_can_have_one_where_training_has_none() -> None:
    resource = distillation({"labelling": {"volume": {"size": "1Gi"}}})
    label = plan_distillation(resource, Observed(), SETTINGS)
    assert len(claims(label)) == 1
    first = Plan(apply=tuple(m for m in label.apply if m["kind"] != "PersistentVolumeClaim"))
    assert claims(plan_distillation(resource, done(first, report("dataset")), SETTINGS)) == []
