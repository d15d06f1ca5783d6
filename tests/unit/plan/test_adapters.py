"""Several adapters -> a Job each, in turn or side by side, then one that joins their layers."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmops.api.finetune import FineTune
from slmops.plan.finetune import plan_finetune
from slmops.plan.quantizedmodel import plan_quantizedmodel
from slmops.state import ANNOTATION_RETRY, Manifest, Observed, Plan
from tests.unit.builders import (
    COMPLETE,
    DATA,
    DIGEST,
    FAILED,
    RUNNING,
    SETTINGS,
    ended,
    failure,
    finetune,
    jobs,
    live,
    pod,
    quantizedmodel,
    reference,
    report,
    said,
)

NAMES = ("irrigation", "greenhouse", "stable")
GOOD = said(report("adapter", "layer", "logs"))
ENDS = {"Running": (), "Succeeded": (COMPLETE,), "Failed": (FAILED,)}


def one(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "data": {"train": DATA}, **fields}


def several(*names: str, **spec: Any) -> FineTune:
    return finetune({"data": None, "adapters": [one(name) for name in names or NAMES], **spec})


def plan_of(resource: FineTune, observed: Observed | None = None) -> Plan:
    return plan_finetune(resource, observed or Observed(), SETTINGS)


def step(observed: Observed, plan: Plan, ends: dict[str, str]) -> Observed:
    """What is there once a plan is carried out and its Jobs have come to what ``ends`` says of their adapters."""
    gone = {id(child) for child in plan.remove}
    children = [child for child in observed.children if id(child) not in gone]
    pods = [*observed.pods]
    roles = {item.name: item.role for item in plan.steps}
    for manifest in plan.apply:
        if manifest["kind"] != "Job":
            children.append(live(manifest))
            continue
        end = ends.get(roles[manifest["metadata"]["name"]].partition("-")[2], "Succeeded")
        job = live(manifest, *ENDS[end])
        children.append(job)
        state = {"Running": RUNNING, "Succeeded": ended(0, GOOD), "Failed": ended(3, failure("InvalidData"))}[end]
        pods.append(pod(job, state=state))
    return Observed(children=tuple(children), pods=tuple(pods))


def roles(plan: Plan) -> list[str]:
    return [item.role for item in plan.steps]


def made(plan: Plan) -> list[str]:
    """Roles of the Jobs that the plan makes."""
    return [job["metadata"]["labels"]["slmops.dev/role"] for job in jobs(plan)]


def told(plan: Plan) -> list[dict[str, Any]]:
    return [json.loads(m["data"]["run.json"]) for m in plan.apply if m["kind"] == "ConfigMap"]


def role_of(child: Manifest) -> str:
    return str(child["metadata"]["labels"]["slmops.dev/role"])


def names(observed: Observed) -> set[str]:
    return {child["metadata"]["name"] for child in observed.of_kind("Job")}


def test_adapters_train_in_turn_and_are_joined_once_all_are_there() -> None:
    resource, observed, seen = several(), Observed(), []
    for _ in range(4):
        plan = plan_of(resource, observed)
        seen.append(made(plan))
        observed = step(observed, plan, {})
    assert seen == [["train-irrigation"], ["train-greenhouse"], ["train-stable"], ["join"]]
    assert made(plan_of(resource, observed)) == []


def test_side_by_side_as_many_train_as_are_wanted() -> None:
    resource = several(parallelism=2)
    plan = plan_of(resource)
    assert made(plan) == ["train-irrigation", "train-greenhouse"]
    running = step(Observed(), plan, dict.fromkeys(NAMES, "Running"))
    assert made(plan_of(resource, running)) == []
    half = step(Observed(), plan, {"irrigation": "Running"})
    assert made(plan_of(resource, half)) == ["train-stable"]
    assert made(plan_of(several(parallelism=1), running)) == [], "what runs goes on when fewer are wanted"
    assert plan_of(several(parallelism=1), running).remove == ()


def test_one_that_fails_does_not_take_the_others_with_it_and_nothing_is_joined() -> None:
    resource, observed, seen = several(), Observed(), []
    for _ in range(4):
        plan = plan_of(resource, observed)
        seen += made(plan)
        observed = step(observed, plan, {"irrigation": "Failed"})
    assert seen == ["train-irrigation", "train-greenhouse", "train-stable"]
    assert plan_of(resource, observed).deadline is None


def test_a_failed_one_is_tried_again_by_the_annotation_and_the_others_stay() -> None:
    resource, observed = several(), Observed()
    for _ in range(3):
        observed = step(observed, plan_of(resource, observed), {"greenhouse": "Failed"})
    spec = resource.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    again = finetune({"data": None} | spec, metadata={"annotations": {ANNOTATION_RETRY: "1"}})
    plan = plan_of(again, observed)
    assert [child["metadata"]["labels"]["slmops.dev/role"] for child in plan.remove] == ["train-greenhouse"]
    after = plan_of(again, step(observed, plan, {}))
    assert made(after) == ["train-greenhouse"]


def test_who_waits_for_another_try_keeps_what_it_has_learned_so_far() -> None:
    """Its turn is to come, and until then no Job of it is there."""
    resource, observed = several(run={"volume": {"size": "1Gi"}}), Observed()
    observed = step(observed, plan_of(resource, observed), {"irrigation": "Failed"})
    observed = step(observed, plan_of(resource, observed), {"greenhouse": "Running"})
    claims = {claim["metadata"]["name"] for claim in observed.of_kind("PersistentVolumeClaim")}
    assert len(claims) == 2
    metadata = resource.metadata.model_copy(update={"annotations": {ANNOTATION_RETRY: "1"}})
    again = resource.model_copy(update={"metadata": metadata})
    plan = plan_of(again, observed)
    assert [(child["kind"], role_of(child)) for child in plan.remove] == [("Job", "train-irrigation")]
    observed = step(observed, plan, {})
    later = plan_of(again, observed)
    assert made(later) == [], "another has its turn"
    assert [child["kind"] for child in later.remove] == ["ConfigMap"]
    assert {claim["metadata"]["name"] for claim in observed.of_kind("PersistentVolumeClaim")} == claims
    less = several("greenhouse", "stable", run={"volume": {"size": "1Gi"}})
    gone = {(child["kind"], role_of(child)) for child in plan_of(less, observed).remove}
    assert ("PersistentVolumeClaim", "train-irrigation") in gone, "nobody will want it any more"


def test_a_slip_in_one_is_told_and_leaves_the_others_alone() -> None:
    bad = one("greenhouse") | {"data": {"train": {"uri": "pvc://No_Claim/train.jsonl"}}}
    resource = finetune({"data": None, "adapters": [bad, one("irrigation"), one("stable")]})
    observed, seen = Observed(), []
    for _ in range(3):
        plan = plan_of(resource, observed)
        seen += made(plan)
        observed = step(observed, plan, {})
        assert plan.problem is not None
        assert plan.problem.message.startswith("pvc://No_Claim")
        assert plan.remove == ()
    assert seen == ["train-irrigation", "train-stable"], "and nothing is joined"


def test_a_learner_that_reports_no_adapter_does_not_hold_up_the_others() -> None:
    resource, observed = several("irrigation", "greenhouse", engine="Olive"), Observed()
    plan = plan_of(resource, observed)
    observed = step(observed, plan, {})
    (learner,) = observed.of_kind("Job")
    observed = Observed(children=observed.children, pods=(pod(learner, state=ended(0, said(report("model")))),))
    plan = plan_of(resource, observed)
    assert plan.problem is not None
    assert plan.problem.reason == "AdapterMissing"
    assert roles(plan) == ["olive-irrigation", "olive-greenhouse"]


def test_a_renamed_adapter_is_another_one_also_while_it_is_queued() -> None:
    run = {"queue": "team-a"}
    resource = several("irrigation", "greenhouse", run=run, parallelism=2)
    observed = Observed(children=tuple(live(manifest) for manifest in plan_of(resource).apply))
    assert {observed.job(name).phase for name in names(observed)} == {"Queued"}
    plan = plan_of(several("watering", "greenhouse", run=run, parallelism=2), observed)
    assert made(plan) == ["train-watering"]
    assert {(child["kind"], role_of(child)) for child in plan.remove} == {
        ("Job", "train-irrigation"),
        ("ConfigMap", "train-irrigation"),
    }


def test_a_change_of_one_trains_that_one_alone_and_joins_anew() -> None:
    resource, observed = several("irrigation", "greenhouse"), Observed()
    for _ in range(3):
        observed = step(observed, plan_of(resource, observed), {})
    before = names(observed)
    changed = finetune({"data": None, "adapters": [one("irrigation"), one("greenhouse", lora={"rank": 4})]})
    plan = plan_of(changed, observed)
    assert made(plan) == ["train-greenhouse"]
    gone = {child["metadata"]["labels"]["slmops.dev/role"] for child in plan.remove if child["kind"] == "Job"}
    assert gone == {"train-greenhouse", "join"}
    observed = step(observed, plan, {})
    assert len(names(observed) & before) == 1


def test_an_adapter_more_trains_itself_and_one_less_takes_its_job_along() -> None:
    observed = Observed()
    for _ in range(3):
        observed = step(observed, plan_of(several("irrigation", "greenhouse"), observed), {})
    assert made(plan_of(several(), observed)) == ["train-stable"]
    less = plan_of(several("greenhouse"), observed)
    gone = {child["metadata"]["labels"]["slmops.dev/role"] for child in less.remove if child["kind"] == "Job"}
    assert gone == {"train-irrigation", "join"}
    assert made(less) == ["join"]


def test_each_is_told_its_own_data_settings_and_name_and_never_to_merge() -> None:
    own = one("irrigation", lora={"rank": 4}, task="Extraction", evaluation={"samples": 7})
    plan = plan_of(finetune({
        "data": None, "parallelism": 2, "lora": {"rank": 8}, "evaluation": {"samples": 9},
        "adapters": [own, one("greenhouse")],
    }))  # fmt: skip
    first, second = told(plan)
    for run, layer, rank, task, samples in (
        (first, "irrigation", 4, "Extraction", 7),
        (second, "greenhouse", 8, "Generation", 9),
    ):
        assert (run["layer"], run["lora"]["rank"], run["task"], run["merge"]) == (layer, rank, task, False)
        assert run["evaluation"]["samples"] == samples


def test_the_bases_task_is_told_to_each_and_to_a_finetune_of_one_set_of_data_and_else_nothing_changes() -> None:
    source = {"uri": "oci://registry.example/slm/chores:v1"}
    for resource in (several(baseTask=source), finetune({"baseTask": source})):
        assert told(plan_of(resource))[0]["base_task"]["source"]["uri"] == source["uri"]
    assert told(plan_of(finetune()))[0]["base_task"] is None


def test_two_of_the_same_settings_have_jobs_of_their_own_whatever_they_are_called() -> None:
    long = ("irrigation-of-the-northern-fields-in-may", "irrigation-of-the-northern-fields-in-mar")
    plan = plan_of(several(*long, parallelism=2, run={"nodes": 2}))
    found = [item.name for item in plan.steps]
    assert len(set(found)) == 2
    biggest = plan_of(finetune({"data": None, "adapters": [one(long[0])]}, name="f" * 40))
    assert len(f"{biggest.steps[0].name}-0") <= 63, "the host name of a rank"


def test_the_join_knows_adapters_and_layers_by_digest_and_asks_for_no_gpu() -> None:
    run = {"resources": {"limits": {"nvidia.com/gpu": 1}}, "volume": {"size": "1Gi"}, "nodeSelector": {"pool": "gpu"}}
    resource, observed = several("irrigation", "greenhouse", run=run), Observed()
    for _ in range(2):
        observed = step(observed, plan_of(resource, observed), {})
    plan = plan_of(resource, observed)
    (joined,) = (run for run in told(plan) if run["type"] == "Join")
    assert {name: member["layer"]["uri"] for name, member in joined["adapters"].items()} == dict.fromkeys(
        ("irrigation", "greenhouse"), f"oci://registry.example/slm/layer@{DIGEST}"
    )
    assert joined["adapters"]["irrigation"]["adapter"]["uri"] == f"oci://registry.example/slm/adapter@{DIGEST}"
    (job,) = jobs(plan)
    pod_spec = job["spec"]["template"]["spec"]
    assert "nvidia.com/gpu" not in pod_spec["containers"][0]["resources"]["limits"]
    assert pod_spec["nodeSelector"] == {"pool": "gpu"}
    assert not any("persistentVolumeClaim" in volume for volume in pod_spec["volumes"])


def test_olive_learns_each_and_a_second_job_of_each_measures_it() -> None:
    resource, observed, seen = several("irrigation", "greenhouse", engine="Olive"), Observed(), []
    for _ in range(5):
        plan = plan_of(resource, observed)
        seen += made(plan)
        observed = step(observed, plan, {})
    assert seen == ["olive-irrigation", "train-irrigation", "olive-greenhouse", "train-greenhouse", "join"]


def test_a_report_without_a_layer_is_told_and_not_tried_again() -> None:
    resource = several("irrigation")
    plan = plan_of(resource)
    job = live(jobs(plan)[0], COMPLETE)
    old = Observed(children=(job,), pods=(pod(job, state=ended(0, said(report("adapter")))),))
    problem = plan_of(resource, old).problem
    assert problem is not None
    assert problem.reason == "AdapterMissing"


@pytest.mark.parametrize("moved", [False, True])
def test_adapters_of_different_bases_are_not_joined(moved: bool) -> None:
    resource = several("irrigation", "greenhouse", parallelism=2)
    first = [live(job, COMPLETE) for job in jobs(plan_of(resource))]
    pods = []
    for number, job in enumerate(first):
        base = f"oci://registry/base@sha256:{'1' if moved and number else '0'}"
        told = said(report("adapter", "layer", inputs={"base": base, "train": f"data-{number}"}))
        pods.append(pod(job, state=ended(0, told)))
    plan = plan_of(resource, Observed(children=tuple(first), pods=tuple(pods)))
    assert [job["metadata"]["labels"]["slmops.dev/role"] for job in jobs(plan)] == ([] if moved else ["join"])
    assert (plan.problem is not None) is moved
    if plan.problem is not None:
        assert plan.problem.reason == "BasesDiffer"
        assert "greenhouse on oci://registry/base@sha256:1" in plan.problem.message
        assert plan.remove == (), "hours of work stay"


def test_a_finetune_of_neither_data_nor_adapters_is_told_so() -> None:
    problem = plan_of(finetune({"data": None})).problem
    assert problem is not None
    assert (problem.reason, problem.message) == (
        "InvalidSpec",
        "spec.data: set exactly one of data, adapters. Mend the field and apply again.",
    )


def test_a_quantized_model_of_several_adapters_is_told_what_to_do() -> None:
    found = reference("FineTune", "farm", {"artifact": None}, data=None, adapters=[one("irrigation")])
    observed = Observed(references={("FineTune", "farm"): found})
    resource = quantizedmodel({"model": {"fineTune": {"name": "farm"}}})
    problem = plan_quantizedmodel(resource, observed, SETTINGS).problem
    assert problem is not None
    assert problem.message == (
        "spec.model: FineTune farm has several adapters, of which nothing is merged; make a FineTune of the one that is "
        "wanted"
    )


@settings(derandomize=True, max_examples=60)
@given(
    st.integers(1, 6),
    st.one_of(st.none(), st.integers(1, 4)),
    st.lists(st.sampled_from(["Running", "Succeeded", "Failed"]), min_size=6, max_size=6),
)
def test_never_more_run_than_wanted_all_get_their_turn_and_nothing_is_joined_too_early(
    count: int, parallelism: int | None, outcomes: list[str]
) -> None:
    wanted = [f"a{number}" for number in range(count)]
    ends = dict(zip(wanted, outcomes, strict=False))
    resource = several(*wanted, **({"parallelism": parallelism} if parallelism else {}))
    observed = Observed()
    for _ in range(count + 2):
        plan = plan_of(resource, observed)
        trained = [item for item in plan.steps if observed.job(item.name).phase == "Succeeded" and item.role != "join"]
        assert ("join" in roles(plan)) == (len(trained) == count)
        observed = step(observed, plan, ends)
        running = [job for job in observed.of_kind("Job") if not _finished(job)]
        assert len(running) <= (parallelism or 1)
    stuck = sum(ends[name] == "Running" for name in wanted) >= (parallelism or 1)
    begun = {role.partition("-")[2] for role in roles(plan_of(resource, observed)) if role != "join"}
    assert stuck or begun == set(wanted)


def _finished(job: Manifest) -> bool:
    return bool((job.get("status") or {}).get("conditions"))


@pytest.mark.parametrize("method", ["LoRA", "QLoRA", "DoRA"])
def test_every_method_of_adapters_is_told(method: str) -> None:
    assert told(plan_of(several(method=method)))[0]["method"] == method
