"""What a verdict rests on is published once, while it is there, and holds nothing up."""

from typing import Any

import pytest

from slmops.state import LABEL_ROLE, Manifest
from tests.unit.edgeworld import World
from tests.unit.fleet_builders import SETTINGS, image

NODES = {"n1": "big", "n2": "big", "n3": "small"}


def fleet(model: str = "good-1", **evidence: Any) -> World:
    world = World(NODES, model, evidence=evidence)
    world.settle()
    return world


def jobs(world: World) -> list[Manifest]:
    return [job for job in world.of_kind("Job") if job["metadata"]["labels"][LABEL_ROLE] == "evidence"]


def test_a_promotion_leaves_its_evidence_in_the_registry_and_its_digest_in_the_status() -> None:
    world = fleet()
    (document,) = world.published
    outcome = dict(world.status["lastOutcome"])
    (reference,) = outcome.pop("evidence").values()
    assert reference.startswith("registry.example/slm/good-1@sha256:")
    assert document["outcome"] | {"evidence": {}} == outcome | {"evidence": {}}
    assert document["outcome"]["images"] == {"farms": image("good-1")}
    assert [(each["node"], each["class"], each["verdict"]) for each in document["nodes"]] == [
        ("n1", "big", "Passed"), ("n3", "small", "Passed"),
    ]  # fmt: skip
    (first, _) = document["nodes"]
    assert first["measured"]["targets"]["candidate"]["rounds"]
    assert first["gates"][0]["bound"] == "min 20"
    assert first["fingerprint"]["capacity"] == {"cpu": "4", "memory": "8Gi"}
    assert first["began"] <= first["ended"]
    assert document["asked"]["gates"][0] == {"metric": "TokensPerSecond", "percentile": 50, "min": 20}
    told = world.condition("Evidenced")
    assert (told["status"], told["message"]) == ("True", reference)
    assert not jobs(world), "it has done its duty"


def test_a_failure_and_a_persons_words_are_evidence_too() -> None:
    world = fleet()
    world.deploy("lame-1")
    world.settle()
    document = world.published[-1]
    assert document["outcome"]["outcome"] == "RolledBack"
    assert document["outcome"]["images"] == {"farms": image("lame-1")}
    assert {each["node"]: each["verdict"] for each in document["nodes"]} == {"n1": "Passed", "n3": "Failed"}
    assert document["stable"]["images"] == {"farms": image("good-1")}
    world.deploy("noisy-1")
    world.settle()
    revision = world.status["candidate"]["revision"]
    world.say(promote=revision)
    world.settle()
    assert world.published[-1]["said"] == {"slmops.dev/promote": revision}
    assert len(world.published) == 3


def test_it_is_published_once_whenever_the_operator_is_killed() -> None:
    world, since = World(NODES, evidence={}), 0
    for number in range(400):
        world.kill_after = number % 4
        world.turn()
        since += "evidence" in (world.status.get("lastOutcome") or {})
        if since == 40:
            break
    world.kill_after = None
    world.settle()
    assert len(world.published) == 1
    assert world.status["lastOutcome"]["evidence"]


def test_a_registry_that_refuses_it_holds_nothing_up() -> None:
    world = World(NODES, evidence={})
    while not jobs(world):
        world.turn()
    (job,) = jobs(world)
    job["status"] = {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]}
    world.settle()
    assert world.status["phase"] == "Ready"
    assert world.condition("Evidenced")["status"] == "False"
    assert len(jobs(world)) == 1, "not again and again"
    world.deploy("good-2")
    world.settle()
    assert world.condition("Evidenced")["status"] == "True", "the next verdict has its own"


def test_nothing_is_published_that_nobody_asked_for() -> None:
    world = World(NODES)
    world.settle()
    assert not world.published
    assert "Evidenced" not in {condition["type"] for condition in world.status["conditions"]}


@pytest.mark.parametrize(("own", "secret"), [({}, None), ({"credentials": {"secret": "push"}}, "push")])
def test_the_job_has_what_it_needs_to_push_and_to_sign(own: Manifest, secret: str | None) -> None:
    world = World(NODES, evidence=own | {"sign": {"secret": "cosign"}})
    while not jobs(world):
        world.turn()
    (job,) = jobs(world)
    volumes = {volume["name"]: volume for volume in job["spec"]["template"]["spec"]["volumes"]}
    assert "signing-key" in volumes
    assert ({name for name in volumes if name.startswith("secret-")} == {f"secret-{secret}"}) is (secret is not None)
    assert SETTINGS.images.bench == job["spec"]["template"]["spec"]["containers"][0]["image"]
