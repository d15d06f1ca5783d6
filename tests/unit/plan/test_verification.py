"""An EdgeDeployment whose images have to be signed: a Job looks first, and no node has its turn before it has found it."""

import json
from typing import Any

import pytest

from slmops.plan.edgedeployment import plan_edgedeployment
from slmops.state import LABEL_ROLE, Manifest, Observed
from tests.unit.edgemachines import FINGERPRINT
from tests.unit.edgeworld import World
from tests.unit.fleet_builders import NOW, SETTINGS, deployment, image, node

KEY = {"configMap": "publisher"}
TWO = {"n1": "small", "n2": "small"}


def of_role(world: World, role: str) -> list[Manifest]:
    return [job for job in world.of_kind("Job") if job["metadata"]["labels"][LABEL_ROLE] == role]


def fleet(model: str = "good-1", **verify: Any) -> World:
    world = World(TWO)
    world.parent["spec"]["model"] = {"image": image(model), "verify": KEY | verify}
    return world


def running() -> World:
    world = fleet()
    world.settle()
    assert world.status["phase"] == "Ready"
    return world


def deploy(world: World, model: str, **fields: Any) -> World:
    world.change(model={"image": image(model), "verify": KEY} | fields)
    return world


def test_no_node_has_its_turn_before_the_signature_is_found() -> None:
    world = fleet()
    world.operate()
    assert (len(of_role(world, "verify")), of_role(world, "pull"), world.of_kind("DaemonSet")) == (1, [], [])
    assert world.condition("InputsResolved")["reason"] == "VerifyingSignature"
    assert world.condition("Signed")["status"] == "Unknown"
    world.settle()
    assert world.serving("n1") == ["good-1"]
    told = world.condition("Signed")
    assert (told["status"], told["reason"]) == ("True", "Verified")
    assert told["message"] == f"the images are signed with the key {FINGERPRINT}"


def test_what_is_not_signed_reaches_no_node_and_the_reason_is_told() -> None:
    world = deploy(running(), "unsigned-2")
    world.settle()
    assert world.serving("n1") == world.serving("n2") == ["good-1"], "what runs goes on"
    assert not any("unsigned" in json.dumps(found["spec"]) for found in world.objects.values() if found["kind"] != "Job"
                   and "spec" in found)  # fmt: skip
    resolved, signed = world.condition("InputsResolved"), world.condition("Signed")
    assert (resolved["status"], resolved["reason"]) == ("False", "SignatureMissing")
    assert resolved["message"] == "spec.model.verify: it is not signed"
    assert (signed["status"], signed["reason"]) == ("False", "SignatureMissing")
    assert "cosign sign" in signed["message"]
    assert world.condition("Ready")["status"] == "True"
    assert world.condition("Promoted")["status"] != "True"


def test_what_was_refused_is_looked_at_again_when_asked() -> None:
    world = deploy(running(), "unsigned-2")
    world.settle()
    first = [job["metadata"]["name"] for job in of_role(world, "verify")]
    world.retry("1")
    world.operate()
    assert len(of_role(world, "verify")) > len(first)
    deploy(world, "good-2")
    world.settle()
    assert world.serving("n1") == ["good-2"]
    assert len(of_role(world, "verify")) == 1, "the one that stands for what runs"


def test_what_runs_already_is_looked_at_and_goes_on() -> None:
    world = World(TWO, "unsigned-1")
    world.settle()
    world.change(model=world.parent["spec"]["model"] | {"verify": KEY})
    world.settle()
    assert world.serving("n1") == ["unsigned-1"]
    assert world.condition("Signed")["status"] == "False"
    assert world.condition("Ready")["status"] == "True"


def test_nobody_looks_where_nothing_has_to_be_signed() -> None:
    world = World(TWO)
    world.settle()
    assert of_role(world, "verify") == []
    assert "Signed" not in [c["type"] for c in world.status["conditions"]]
    running_one = running()
    running_one.change(model={"image": image("good-1")})
    running_one.settle()
    assert of_role(running_one, "verify") == [], "who is not needed any more goes"


def test_an_image_that_knows_nothing_of_signatures_lets_nothing_pass() -> None:
    world = fleet()
    world.operate()
    (job,) = of_role(world, "verify")
    job["metadata"].setdefault("annotations", {})["slmops.dev/report"] = '{"outcome": "Succeeded"}'
    job["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    world.settle()
    assert world.condition("InputsResolved")["reason"] == "NotSigned"
    assert world.condition("Signed")["reason"] == "NotSigned"
    assert of_role(world, "pull") == []


def test_a_pass_that_is_cut_off_anywhere_leads_to_the_same() -> None:
    for after in range(12):
        world = fleet()
        world.kill_after = after
        world.settle()
        assert world.serving("n2") == ["good-1"], after


# --- what the Job is told


def configuration(resource: Any, references: dict[Any, Any] | None = None) -> tuple[Manifest, dict[str, Any]]:
    seen = Observed(nodes=(node("n1"),), references=references or {})
    plan = plan_edgedeployment(resource, seen, SETTINGS, NOW)
    (job,) = [found for found in plan.apply if found["kind"] == "Job"]
    (config,) = [found for found in plan.apply if found["kind"] == "ConfigMap"]
    return job, json.loads(config["data"]["run.json"])


def mounted(job: Manifest) -> dict[str, Manifest]:
    return {volume["name"]: volume for volume in job["spec"]["template"]["spec"]["volumes"]}


def test_the_public_key_alone_is_mounted() -> None:
    verify = {"secret": "cosign", "key": "cosign.pub", "provenance": True}
    job, run = configuration(deployment(model={"image": image("a"), "verify": verify}))
    (volume,) = [found for name, found in mounted(job).items() if name.startswith("key-")]
    assert volume["secret"]["secretName"] == "cosign"
    assert volume["secret"]["items"] == [{"key": "cosign.pub", "path": "cosign.pub"}]
    (source,) = run["images"].values()
    assert source["uri"] == f"oci://{image('a')}"
    assert source["verify"]["provenance"] is True
    assert source["verify"]["key"].endswith("/cosign.pub")


def test_one_image_of_two_pools_is_looked_at_once_wherever_there_is_room() -> None:
    pools = [
        {"name": name, "selector": {"matchLabels": {"pool": name}}, "tolerations": [{"key": "edge", "operator": "Exists"}]}
        for name in ("barns", "farms")
    ]  # fmt: skip
    job, run = configuration(deployment(model={"image": image("a"), "verify": KEY}, pools=pools))
    assert list(run["images"]) == ["barns"]
    pod = job["spec"]["template"]["spec"]
    assert pod["tolerations"] == [{"key": "edge", "operator": "Exists"}]
    assert "nodeSelector" not in pod


def test_the_registry_is_asked_with_the_credentials_of_who_published() -> None:
    spec = {"model": {"uri": "oci://registry.example/slm/x"},
            "output": {"repository": "registry.example/slm/q", "credentials": {"secret": "login"}}}  # fmt: skip
    made = {
        "kind": "QuantizedModel", "metadata": {"name": "q", "generation": 1}, "spec": spec,
        "status": {"observedGeneration": 1, "variants": [{"name": "v", "phase": "Ready", "reference": image("q")}]},
    }  # fmt: skip
    wanted = deployment(model={"quantizedModel": {"name": "q"}, "verify": KEY})
    job, run = configuration(wanted, {("QuantizedModel", "q"): made})
    assert run["images"]["farms"]["credentials"]["path"].endswith("/login/.dockerconfigjson")
    assert "secret-login" in mounted(job)
    own = deployment(model={"image": image("a"), "verify": KEY, "credentials": {"secret": "mine"}})
    assert configuration(own)[1]["images"]["farms"]["credentials"]["path"].endswith("/mine/.dockerconfigjson")


@pytest.mark.parametrize("change", [{"secret": "other"}, {"configMap": "publisher", "key": "other.pub"},
                                    {"configMap": "publisher", "provenance": True}])  # fmt: skip
def test_another_demand_is_another_look(change: dict[str, Any]) -> None:
    names = {
        configuration(deployment(model={"image": image("a"), "verify": verify}))[0]["metadata"]["name"]
        for verify in (KEY, change)
    }
    assert len(names) == 2
