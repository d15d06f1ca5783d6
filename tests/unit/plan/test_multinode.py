"""A training on several nodes: an Indexed Job whose pods find each other by name."""

from typing import Any

import pytest

from slmops.plan.distillation import plan_distillation
from slmops.plan.finetune import plan_finetune
from slmops.state import Manifest, Observed, Plan
from tests.unit.builders import (
    COMPLETE,
    RUNNING,
    SETTINGS,
    configuration,
    distillation,
    done,
    ended,
    finetune,
    jobs,
    live,
    pod,
    report,
    said,
)


def planned(nodes: int = 2, observed: Observed | None = None, **run: Any) -> Plan:
    return plan_finetune(finetune({"run": {"nodes": nodes} | run}), observed or Observed(), SETTINGS)


def of_kind(plan: Plan, kind: str) -> list[Manifest]:
    return [manifest for manifest in plan.apply if manifest["kind"] == kind]


def test_one_node_is_a_plain_job_as_before() -> None:
    assert planned(1) == plan_finetune(finetune(), Observed(), SETTINGS)
    assert not {"completionMode", "successPolicy"} & set(jobs(planned(1))[0]["spec"])


def test_each_rank_is_a_pod_and_the_job_is_done_when_the_leader_is() -> None:
    (job,) = jobs(planned(3))
    assert (job["spec"]["completionMode"], job["spec"]["completions"], job["spec"]["parallelism"]) == ("Indexed", 3, 3)
    assert job["spec"]["successPolicy"] == {"rules": [{"succeededIndexes": "0"}]}
    assert configuration(planned(3))["nodes"] == 3


def test_pods_find_each_other_by_the_names_that_the_image_counts_on() -> None:
    plan = planned()
    (service,), (job,) = of_kind(plan, "Service"), jobs(plan)
    name = plan.steps[0].name
    assert (
        job["spec"]["template"]["spec"]["subdomain"]
        == service["metadata"]["name"]
        == name
        == configuration(plan)["run"]
    )
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    assert service["metadata"]["ownerReferences"] == job["metadata"]["ownerReferences"]
    assert len(f"{name}-63") <= 63, "the host name of the last rank"


def test_no_two_pods_share_a_node() -> None:
    pod_spec = jobs(planned())[0]["spec"]["template"]["spec"]
    (rule,) = pod_spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert rule["topologyKey"] == "kubernetes.io/hostname"
    assert rule["labelSelector"]["matchLabels"] == {"batch.kubernetes.io/job-name": planned().steps[0].name}


def test_a_volume_is_shared_by_all() -> None:
    (claim,) = of_kind(planned(volume={"size": "1Gi"}), "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_names_are_there_as_long_as_the_job_and_not_made_again_after_it() -> None:
    config_map, service, job = planned().apply
    service, config_map = live(service), live(config_map)
    running = live(job)
    observed = Observed(children=(config_map, service, running), pods=(pod(running, state=RUNNING),))
    assert planned(observed=observed).apply == ()
    assert of_kind(planned(observed=Observed(children=(config_map, running), pods=observed.pods)), "Service")
    over = live(job, COMPLETE)
    end = Observed(children=(config_map, over), pods=(pod(over, state=ended(0, said(report("model")))),))
    assert planned(observed=end).apply == ()


def test_another_number_of_nodes_is_another_training_and_the_old_names_go() -> None:
    before = tuple(live(manifest) for manifest in planned(2).apply)
    plan = planned(3, Observed(children=before))
    assert {m["kind"] for m in plan.remove} == {"ConfigMap", "Service", "Job"}
    assert plan.steps != planned(2).steps


def test_nodes_are_for_training_and_repeat_no_labelling() -> None:
    one, two = (plan_distillation(distillation({"run": {"nodes": n}}), Observed(), SETTINGS) for n in (1, 2))
    assert one == two
    train = plan_distillation(distillation({"run": {"nodes": 2}}), done(two, report("dataset")), SETTINGS)
    assert jobs(train)[0]["spec"]["completions"] == 2


@pytest.mark.parametrize(("volume", "seconds"), [(None, 30), ({"size": "1Gi"}, 120)])
def test_a_pod_with_a_checkpoint_to_write_gets_time_for_it(volume: dict[str, str] | None, seconds: int) -> None:
    plan = plan_finetune(finetune({"run": {"volume": volume} if volume else {}}), Observed(), SETTINGS)
    assert jobs(plan)[0]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == seconds


def test_checkpoints_are_written_where_there_is_a_volume() -> None:
    def told(spec: dict[str, Any]) -> Any:
        return configuration(plan_finetune(finetune(spec), Observed(), SETTINGS))["hyperparameters"]["checkpoint"]

    volume = {"run": {"volume": {"size": "1Gi"}}}
    assert told({}) is None
    assert told(volume) == {"every_steps": 100, "keep": 2}
    assert told(volume | {"training": {"checkpoint": {"everySteps": 7, "keep": 3}}}) == {"every_steps": 7, "keep": 3}
