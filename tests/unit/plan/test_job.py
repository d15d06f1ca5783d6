"""The Job of a run: its name, what shapes it, the pod it makes, and what it asks of the node."""

import json
from typing import Any

import pytest

from slmops.plan.finetune import plan_finetune
from slmops.settings import Images, Resources, Settings
from slmops.state import ANNOTATION_RETRY, Manifest, Observed
from tests.unit.builders import DIGEST, NAMESPACE, SETTINGS, configuration, finetune, jobs


def planned(spec: dict[str, Any] | None = None, settings: Settings = SETTINGS, **fields: Any) -> Manifest:
    """The Job of a FineTune."""
    (found,) = jobs(plan_finetune(finetune(spec, **fields), Observed(), settings))
    return found


def name(spec: dict[str, Any] | None = None, settings: Settings = SETTINGS, **fields: Any) -> str:
    return str(planned(spec, settings, **fields)["metadata"]["name"])


def container(spec: dict[str, Any] | None = None, settings: Settings = SETTINGS) -> Manifest:
    found: list[Manifest] = planned(spec, settings)["spec"]["template"]["spec"]["containers"]
    return found[0]


def run(**fields: Any) -> dict[str, Any]:
    return {"run": fields}


def resources(**fields: Any) -> dict[str, Any]:
    """What the container asks for, where ``run.resources`` says this."""
    return dict(container(run(resources=fields))["resources"])


# --- names ---------------------------------------------------------------------------------------------------------


def test_the_same_wish_has_the_same_name_whatever_the_order_of_its_fields() -> None:
    one = {"run": {"nodeSelector": {"a": "1", "b": "2"}, "deadline": "1h"}, "lora": {"rank": 4, "alpha": 8}}
    other = {"lora": {"alpha": 8, "rank": 4}, "run": {"deadline": "1h", "nodeSelector": {"b": "2", "a": "1"}}}
    assert name(one) == name(other)


def test_a_default_that_is_written_out_changes_no_name() -> None:
    assert name({"method": "LoRA", "lora": {"rank": 16}, "merge": True, "training": {"epochs": 3}}) == name()


@pytest.mark.parametrize(
    "change",
    [
        {"base": {"uri": "oci://registry.example/slm/base:v2"}},
        {"data": {"train": {"uri": "oci://registry.example/slm/data:v2"}}},
        {"training": {"learningRate": 1e-4}},
        {"lora": {"rank": 8}},
        {"merge": False},
        {"output": {"repository": "registry.example/slm/elsewhere"}},
        {"output": {"repository": "registry.example/slm/out", "credentials": {"secret": "registry"}}},
        run(image=f"registry.example/trainer@{DIGEST}"),
        run(nodeSelector={"pool": "gpu"}),
        run(tolerations=[{"key": "gpu", "operator": "Exists"}]),
        run(priorityClassName="high"),
        run(runtimeClassName="nvidia"),
        run(queue="team-a"),
        run(resources={"limits": {"memory": "8Gi"}}),
    ],
)
def test_whatever_shapes_the_run_changes_the_name(change: dict[str, Any]) -> None:
    assert name(change) != name()


@pytest.mark.parametrize(
    "change",
    [
        {"gates": [{"metric": "ExactMatch", "min": "99%"}]},
        run(retries=0),
        run(deadline="5m"),
    ],
)
def test_what_does_not_shape_the_run_repeats_no_work(change: dict[str, Any]) -> None:
    assert name(change) == name()


def test_an_upgrade_of_the_installation_repeats_no_work_and_new_jobs_get_the_new_image() -> None:
    after = Settings(
        images=Images(trainer=f"registry.example/trainer@{DIGEST}"),
        default_resources=Resources(memory="2Gi", memory_limit="8Gi"),
        plain_http_registries=("registry.example",),
    )
    assert name(None, after) == name()
    assert container(None, after)["image"] == f"registry.example/trainer@{DIGEST}"


def test_a_name_is_short_enough_for_a_label_and_says_whose_and_what_it_is() -> None:
    long = "a" * 40
    found = planned(name=long)["metadata"]
    assert found["name"].startswith(f"{long}-train-")
    assert len(found["name"]) <= 63
    assert name(name="other").split("-")[0] == "other"


def test_config_map_and_job_carry_the_same_name_and_owner() -> None:
    plan = plan_finetune(finetune(), Observed(), SETTINGS)
    assert [manifest["kind"] for manifest in plan.apply] == ["ConfigMap", "Job"]
    first, second = (manifest["metadata"] for manifest in plan.apply)
    assert first["name"] == second["name"] == plan.steps[0].name
    for metadata in (first, second):
        assert metadata["namespace"] == NAMESPACE
        (owner,) = metadata["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("FineTune", "uid-of-farm-tuned", True)


# --- configuration -------------------------------------------------------------------------------------------------


def test_the_configuration_names_its_run_and_who_asked_for_it() -> None:
    plan = plan_finetune(finetune(), Observed(), SETTINGS)
    told = configuration(plan)
    assert told["type"] == "Train"
    assert told["run"] == plan.steps[0].name
    assert told["annotations"] == {"slmops.dev/kind": "FineTune", "slmops.dev/name": "farm/farm-tuned"}


def test_registries_without_tls_are_told_to_the_image() -> None:
    plan = plan_finetune(finetune(), Observed(), Settings(plain_http_registries=("localhost:5000",)))
    assert configuration(plan)["registry"] == {"plain_http": ["localhost:5000"]}


def test_no_secret_is_in_the_configuration_only_where_its_file_is() -> None:
    spec = {"base": {"uri": "hf://org/base", "credentials": {"secret": "hub", "key": "api-key"}}}
    plan = plan_finetune(finetune(spec), Observed(), SETTINGS)
    assert configuration(plan)["base"]["credentials"] == {"path": "/etc/slmops/credentials/hub/api-key"}


def test_the_config_map_is_immutable_so_that_a_retry_does_what_the_first_attempt_did() -> None:
    config_map = plan_finetune(finetune(), Observed(), SETTINGS).apply[0]
    assert config_map["immutable"] is True
    assert json.loads(config_map["data"]["run.json"])


def test_with_a_budget_the_config_map_can_change_so_that_a_run_that_comes_back_reads_what_is_left() -> None:
    config_map = plan_finetune(finetune({"budget": {"gpuHours": 1}}), Observed(), SETTINGS).apply[0]
    assert "immutable" not in config_map
    assert json.loads(config_map["data"]["run.json"])["budget"]["gpu_hours"] == 1


# --- the pod -------------------------------------------------------------------------------------------------------


def test_the_pod_has_one_argument_and_no_environment() -> None:
    assert container()["args"] == ["/etc/slmops/run.json"]
    assert not {"env", "envFrom", "command"} & set(container())


def test_where_the_user_says_the_pod_goes() -> None:
    toleration = {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}
    spec = run(nodeSelector={"pool": "gpu"}, tolerations=[toleration], priorityClassName="low")
    pod = planned(spec)["spec"]["template"]["spec"]
    assert (pod["nodeSelector"], pod["tolerations"], pod["priorityClassName"]) == ({"pool": "gpu"}, [toleration], "low")


def test_what_the_user_did_not_say_is_left_to_the_cluster() -> None:
    assert not {"nodeSelector", "tolerations", "priorityClassName"} & set(planned()["spec"]["template"]["spec"])


def test_an_image_of_the_users_own_replaces_the_installations() -> None:
    image = f"registry.example/trainer@{DIGEST}"
    assert container(run(image=image))["image"] == image


def test_a_pod_leads_back_to_its_resource() -> None:
    found = planned()
    labels = found["spec"]["template"]["metadata"]["labels"]
    assert labels == found["metadata"]["labels"]
    assert (labels["slmops.dev/kind"], labels["slmops.dev/name"]) == ("FineTune", "farm-tuned")


def test_exit_code_three_ends_the_job_and_a_disruption_or_a_stop_costs_no_retry() -> None:
    spec = planned(run(retries=4))["spec"]
    assert spec["backoffLimit"] == 4
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    fail, stopped, ignore = spec["podFailurePolicy"]["rules"]
    assert (fail["action"], fail["onExitCodes"]["values"]) == ("FailJob", [3])
    assert (stopped["action"], stopped["onExitCodes"]["values"]) == ("Ignore", [143])
    assert (ignore["action"], ignore["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert (stopped["action"], stopped["onExitCodes"]["values"]) == ("Ignore", [143])


@pytest.mark.parametrize(
    ("deadline", "seconds"), [("1h30m", 5400), ("1500ms", 2), ("1ms", 1), ("0s", 1), ("2d", 172800)]
)
def test_a_deadline_is_whole_seconds_and_never_none_at_all(deadline: str, seconds: int) -> None:
    assert planned(run(deadline=deadline))["spec"]["activeDeadlineSeconds"] == seconds


def test_the_retry_annotation_is_kept_on_the_job_it_made() -> None:
    made = planned(metadata={"annotations": {ANNOTATION_RETRY: "2", "other": "x"}})
    assert made["metadata"]["annotations"] == {ANNOTATION_RETRY: "2"}
    assert made["metadata"]["name"] == name()


# --- queue and GPUs ---------------------------------------------------------------------------------------------------


def test_a_job_of_a_queue_is_made_suspended_and_names_it_where_kueue_looks() -> None:
    made = planned(run(queue="team-a"))
    assert made["spec"]["suspend"] is True
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    assert "kueue.x-k8s.io/queue-name" not in made["spec"]["template"]["metadata"]["labels"], "Kueue owns the Job alone"


def test_a_job_of_no_queue_leaves_suspend_to_others() -> None:
    made = planned()
    assert "suspend" not in made["spec"]
    assert "kueue.x-k8s.io/queue-name" not in made["metadata"]["labels"]


def test_where_a_pod_runs_is_what_the_run_says() -> None:
    pod = planned(
        run(
            nodeSelector={"pool": "gpu"},
            tolerations=[{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
            priorityClassName="high",
            runtimeClassName="nvidia",
            resources={"limits": {"nvidia.com/gpu": 2}},
        )
    )["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"pool": "gpu"}
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert (pod["priorityClassName"], pod["runtimeClassName"]) == ("high", "nvidia")
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"


@pytest.mark.parametrize(
    ("limits", "gpus"),
    [
        ({"nvidia.com/gpu": 2}, "2"),
        ({"amd.com/gpu": "1", "memory": "8Gi"}, "1"),
        ({"nvidia.com/mig-1g.5gb": 3}, "3"),
        ({"gpu.intel.com/xe": 1}, "1"),
        ({"cpu": 4}, None),
    ],
)
def test_a_job_says_how_many_gpus_its_pods_have(limits: dict[str, Any], gpus: str | None) -> None:
    made = planned(run(resources={"limits": limits}))
    assert made["metadata"].get("annotations", {}).get("slmops.dev/gpus") == gpus


# --- resources -----------------------------------------------------------------------------------------------------


def test_without_a_wish_the_installations_defaults_hold() -> None:
    assert resources() == {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "4Gi"}}


def test_a_limit_alone_is_the_request_too() -> None:
    found = resources(limits={"memory": "512Mi", "cpu": "250m"})
    assert found == {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"memory": "512Mi", "cpu": "250m"}}


def test_a_request_above_the_default_limit_raises_the_limit() -> None:
    assert resources(requests={"memory": "16Gi"})["limits"] == {"memory": "16Gi"}
    assert resources(requests={"memory": "2Gi"})["limits"] == {"memory": "4Gi"}


def test_request_and_limit_of_the_users_own_stand_as_they_are() -> None:
    found = resources(requests={"memory": "100Mi", "cpu": 2}, limits={"memory": "120Mi", "nvidia.com/gpu": 1})
    assert found == {"requests": {"memory": "100Mi", "cpu": "2"}, "limits": {"memory": "120Mi", "nvidia.com/gpu": "1"}}
