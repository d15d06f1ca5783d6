"""What becomes of a candidate on the cluster: each cause of a failure, doubt, nodes that come and go, and an operator that
is killed at every step."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from demo.steps import Manifest, condition, wait_for
from tests.cluster import Cluster, controlplane
from tests.cluster.shell import stop
from tests.e2e.chain import Seen
from tests.e2e.platform import NAMESPACE, Platform, deployment
from tests.e2e.toys import client

pytestmark = pytest.mark.cluster
FLEET = "slmops.dev/e2e-fleet"
"""A label of our own: nodes are put into the pool and taken out of it."""
DOUBTS = ("the node was disturbed", "asked the same twice")
"""Of a machine that does something else, too: what is measured once more may be clear."""
PORTS = {"judged": 8101, "one": 8102, "two": 8103, "moving": 8104}


@pytest.fixture(scope="module")
def models(chain: Seen) -> dict[str, str]:
    """Images: two that are good, and one that is large, slow, and knows nothing of what is asked."""
    tuned, (teacher,) = chain.images("farm-irrigation"), chain.images("teacher").values()
    return {"good": tuned["cpu-int4"], "other": tuned["cpu-int8"], "bad": teacher}


def deployed(platform: Platform, name: str, image: str, *gates: Manifest, **spec: Any) -> Manifest:
    """An EdgeDeployment with a short benchmark."""
    manifest = deployment(name, image, PORTS[name], spec.pop("strategy", {}))
    benchmark = {"data": {"uri": f"oci://{platform.registry}/slm/data/irrigation-benchmark:v1"}, "rounds": 2, "warmup": 1,
                 "prompts": 4, "maxNoise": "100%"}  # fmt: skip
    manifest["spec"] |= {"benchmark": benchmark | spec.pop("benchmark", {}), "gates": list(gates)} | spec
    return manifest


def on(platform: Platform, *nodes: str) -> Manifest:
    """Pools of these nodes, which get the fleet's label, and no others."""
    platform.kubectl("label", "nodes", "--all", f"{FLEET}-")
    for node in nodes:
        join(platform, node)
    return {"pools": [{"name": "fleet", "selector": {"matchLabels": {FLEET: "yes"}}}]}


def join(platform: Platform, node: str) -> None:
    platform.kubectl("label", "node", node, f"{FLEET}=yes", "--overwrite")


def leave(platform: Platform, node: str) -> None:
    platform.kubectl("label", "node", node, f"{FLEET}-")


def status(platform: Platform, name: str) -> Manifest:
    return platform.status("edgedeployment", name)


def reach(platform: Platform, name: str, what: str, so: Callable[[Manifest], Any], seconds: float = 300) -> Manifest:
    """Wait until the status is so; the status then."""
    wait_for(f"{name}: {what}", lambda: so(status(platform, name)), seconds, lambda: platform.show("edgedeployment", name),
             pause=0.3)  # fmt: skip
    return status(platform, name)


def serves(platform: Platform, name: str, image: str, seconds: float = 300) -> Manifest:
    """Wait until an image is what all nodes have; the status then."""
    return reach(platform, name, f"{image[-12:]} everywhere", lambda s: s.get("phase") == "Ready" and image in str(
        (s.get("stable") or {}).get("images")) and not s.get("candidate"), seconds)  # fmt: skip


def pods(platform: Platform, name: str) -> dict[str, dict[str, Manifest]]:
    """Servers by node and image."""
    found: dict[str, dict[str, Manifest]] = {}
    for pod in platform.kubectl.items("pods", "-l", f"slmops.dev/name={name},slmops.dev/role=serve"):
        (image,) = [v["image"]["reference"] for v in pod["spec"]["volumes"] if "image" in v]
        found.setdefault(pod["spec"].get("nodeName", ""), {})[image] = pod
    return found


def has(platform: Platform, name: str, wanted: dict[str, str]) -> None:
    """Wait until each node has the server of one image and no other."""
    wait_for(f"{name}: one server a node", lambda: {n: set(found) for n, found in pods(platform, name).items()} ==
             {n: {image} for n, image in wanted.items()}, 90, lambda: platform.show("edgedeployment", name))  # fmt: skip


def ready(pod: Manifest) -> bool:
    return bool(condition(pod, "Ready").get("status") == "True")


@contextmanager
def meanwhile(what: Callable[[], None]) -> Iterator[list[BaseException]]:
    """Do something again and again. What went wrong in it."""
    stopping, wrong = threading.Event(), list[BaseException]()

    def run() -> None:
        while not stopping.is_set():
            try:
                what()
            except BaseException as error:
                wrong.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield wrong
    finally:
        stopping.set()
        thread.join()


# --- verdicts, on one node


@pytest.fixture(scope="module")
def judged(platform: Platform, models: dict[str, str]) -> Iterator[Callable[..., Manifest]]:
    """Asks for a model with gates on a node that serves the good one; how that ended."""
    name = "judged"
    where = on(platform, "edge1")
    where |= {"evidence": {}}
    platform.apply(deployed(platform, name, models["good"], **where))
    serves(platform, name, models["good"])

    def ask(model: str, *gates: Manifest, outcome: str = "RolledBack", **spec: Any) -> Manifest:
        before = pods(platform, name)["edge1"][models["good"]]["metadata"]["uid"]
        wanted = deployed(platform, name, models[model], *gates, **where, **spec)
        platform.apply(wanted)
        generation = (platform.kubectl.get("edgedeployment", name) or {})["metadata"]["generation"]

        def so(found: Manifest) -> bool:
            if found.get("observedGeneration") != generation:
                return False
            if outcome == "Paused":
                return bool(found["phase"] == outcome)
            if found["phase"] == "Paused" and any(doubt in str(found["conditions"]) for doubt in DOUBTS):
                platform.annotate("edgedeployment", name, **{"retry-failed": str(time.monotonic())})
            last = found.get("lastOutcome") or {}
            return last.get("outcome") == outcome and last["revision"] in found["failed"] and not found.get("candidate")

        ended = reach(platform, name, outcome, so)
        after = platform.kubectl.get("edgedeployment", name) or {}
        assert after["metadata"]["generation"] == generation, "the spec is the user's"
        assert pods(platform, name)["edge1"][models["good"]]["metadata"]["uid"] == before, "what is good serves on"
        return ended

    yield ask
    platform.kubectl("delete", "edgedeployment", name, "-n", NAMESPACE, "--ignore-not-found")
    platform.kubectl("label", "nodes", "--all", f"{FLEET}-")


def test_a_slow_model_fails(judged: Callable[..., Manifest]) -> None:
    outcome = judged("bad", {"metric": "TokensPerSecond", "maxRegression": "20%"})["lastOutcome"]
    assert outcome["reason"] == "GateFailed"
    assert "TokensPerSecond is" in outcome["message"]
    assert "of stable" in outcome["message"]


def test_a_model_that_answers_wrongly_fails(judged: Callable[..., Manifest]) -> None:
    outcome = judged("bad", {"metric": "ExactMatch", "min": "80%"}, runtime={"port": PORTS["judged"], "maxQueue": 31})
    assert outcome["lastOutcome"]["reason"] == "GateFailed"
    assert "ExactMatch is" in outcome["lastOutcome"]["message"]


def test_a_model_that_takes_too_much_memory_fails(judged: Callable[..., Manifest]) -> None:
    outcome = judged("other", {"metric": "PeakMemory", "max": "1Mi"})["lastOutcome"]
    assert outcome["reason"] == "GateFailed"
    assert "PeakMemory is" in outcome["message"]


def test_too_few_answers_are_a_doubt_that_waits_for_a_person(
    platform: Platform, judged: Callable[..., Manifest]
) -> None:
    """However generous the bound is."""
    gate, again = {"metric": "TokensPerSecond", "maxRegression": "90%"}, {"port": PORTS["judged"], "maxQueue": 30}
    found = judged("other", gate, outcome="Paused", benchmark={"rounds": 2, "prompts": 1}, runtime=again)
    told = next(c for c in found["conditions"] if c["type"] == "Progressing")
    assert (told["status"], told["reason"]) == ("False", "GateInconclusive")
    assert "only 2 of 2 requests were answered by both" in told["message"]
    assert "slmops.dev/retry-failed" in told["message"]
    platform.annotate("edgedeployment", "judged", abort=found["candidate"]["revision"])
    reach(platform, "judged", "the end", lambda s: s["phase"] == "Degraded")


def test_a_server_that_is_killed_for_its_memory_has_crashed(judged: Callable[..., Manifest]) -> None:
    limits = {"requests": {"cpu": "10m", "memory": "24Mi"}, "limits": {"memory": "24Mi"}}
    outcome = judged("other", runtime={"port": PORTS["judged"], "resources": limits})["lastOutcome"]
    assert outcome["reason"] == "CandidateCrashed"
    assert "OOMKilled" in outcome["message"]


def test_what_a_verdict_rests_on_is_in_the_registry_beside_the_image(
    platform: Platform, models: dict[str, str], judged: Callable[..., Manifest]
) -> None:
    found = reach(platform, "judged", "its evidence", lambda s: s["lastOutcome"].get("evidence"))
    (reference,) = found["lastOutcome"]["evidence"].values()
    manifest = json.loads(platform.crane("manifest", reference))
    assert manifest["artifactType"] == "application/vnd.slmops.rollout.v1+json"
    assert manifest["subject"]["digest"] == models["other"].partition("@")[2]
    repository = reference.partition("@")[0]
    document = json.loads(platform.crane("blob", f"{repository}@{manifest['layers'][0]['digest']}"))
    assert document["outcome"]["revision"] == found["lastOutcome"]["revision"]
    documents = [
        json.loads(content)
        for image in set(models.values())
        for content in client(platform).referrers(image, manifest["artifactType"])
    ]
    mine = [each for each in documents if each["deployment"]["name"] == "judged"]
    verdicts = {(each["outcome"]["outcome"], each["outcome"]["reason"]) for each in mine}
    assert {
        ("Promoted", "AllNodesPassed"),
        ("RolledBack", "GateFailed"),
        ("RolledBack", "CandidateCrashed"),
    } <= verdicts
    slow = next(each for each in mine if each["outcome"]["reason"] == "GateFailed")
    (node,) = slow["nodes"]
    assert (node["node"], node["verdict"]) == ("edge1", "Failed")
    assert set(node["measured"]["targets"]) == {"stable", "candidate"}
    assert node["fingerprint"]["system"]["kernelVersion"]


# --- the operator is killed at every step, of two rollouts at once, while somebody applies the same again and again


def test_two_rollouts_go_on_whoever_leads_and_however_often_they_are_applied(
    platform: Platform, models: dict[str, str]
) -> None:
    names = ("one", "two")
    waves = {"strategy": {"waves": [{"name": "canary", "nodes": 1}, {"name": "rest", "nodes": "100%"}]}}
    for name in names:
        platform.apply(deployed(platform, name, models["good"], **waves))
    for name in names:
        serves(platform, name, models["good"])
    wanted = [deployed(platform, name, models["other"], {"metric": "ErrorRate", "max": 0}, **waves) for name in names]
    platform.apply(*wanted)
    generations = {n: (platform.kubectl.get("edgedeployment", n) or {})["metadata"]["generation"] for n in names}
    killed, jobs = list[str](), dict[str, set[str]]()
    gaps = list[str]()

    def apply_again() -> None:
        platform.apply(*wanted)
        time.sleep(2)  # as often as a tool does that keeps a cluster as git has it

    def look() -> bool:
        """Whether both are done."""
        for job in platform.kubectl.items("jobs"):
            if job["metadata"]["labels"]["slmops.dev/name"] in names:
                jobs.setdefault(job["metadata"]["name"], set()).add(job["metadata"]["uid"])
        for name in names:
            servers = pods(platform, name)
            gaps.extend(f"{name} {n}" for n in ("edge1", "edge2") if not any(map(ready, servers.get(n, {}).values())))
        found = status(platform, "one")
        step = str(found.get("activity") or "").partition(":")[2].split("(")[0].split(";")[0].strip()
        if step and step not in killed:
            killed.append(step)
            platform.end_leader(hard=True)
        return all(status(platform, n).get("phase") == "Ready" and models["other"] in str(
            status(platform, n)["stable"]["images"]) for n in names)  # fmt: skip

    with meanwhile(apply_again) as wrong:
        wait_for("both rollouts", look, 300, lambda: platform.show("edgedeployment", "one"), pause=0.2)
    assert not wrong
    assert {"Pulling", "Measuring"} <= set(killed), killed
    assert not gaps, "a node served nobody"
    assert {name: uids for name, uids in jobs.items() if len(uids) > 1} == {}, "no node had its turn twice"
    for name in names:
        assert (platform.kubectl.get("edgedeployment", name) or {})["metadata"]["generation"] == generations[name]
        has(platform, name, {"edge1": models["other"], "edge2": models["other"]})
        platform.kubectl("delete", "edgedeployment", name, "-n", NAMESPACE)


# --- nodes that come and go


@pytest.fixture(scope="module")
def moving(platform: Platform, local: Cluster, models: dict[str, str]) -> Iterator[Manifest]:
    """Both edge nodes serve the good model."""
    where = on(platform, "edge1", "edge2") | {"strategy": {"promotionScope": "HardwareClass"}}
    platform.apply(deployed(platform, "moving", models["good"], **where))
    serves(platform, "moving", models["good"])
    yield where
    for node in ("edge1", "edge2"):
        local.node(node).heal()
    platform.kubectl("delete", "edgedeployment", "moving", "-n", NAMESPACE, "--ignore-not-found")
    platform.kubectl("label", "nodes", "--all", f"{FLEET}-")


def away(platform: Platform, local: Cluster, node: str) -> None:
    local.node(node).cut()
    wait_for(f"{node} to be NotReady", lambda: not local.node(node).ready(), 60)


def test_a_node_that_is_away_before_its_turn_is_caught_up_through_the_gate_of_its_class(
    platform: Platform, local: Cluster, models: dict[str, str], moving: Manifest
) -> None:
    away(platform, local, "edge2")
    platform.apply(deployed(platform, "moving", models["other"], **moving))
    found = serves(platform, "moving", models["other"])
    assert found["pools"][0]["nodes"] == {"total": 2, "updated": 1, "ready": 1, "offline": 1, "behind": 1}
    assert len(found["stable"]["classes"]["fleet"]) == 1
    local.node("edge2").heal()
    late = reach(platform, "moving", "edge2 is measured", lambda s: "edge2: Measuring" in str(s.get("activity")))
    assert set(pods(platform, "moving")["edge2"]) == {models["good"], models["other"]}, "beside what it has"
    assert next(c for c in late["conditions"] if c["type"] == "Progressing")["reason"] == "CatchingUp"
    found = reach(platform, "moving", "all is well", lambda s: s["pools"][0]["nodes"]["updated"] == 2)
    assert len(found["stable"]["classes"]["fleet"]) == 2
    wait_for("the old one to go", lambda: set(pods(platform, "moving")["edge2"]) == {models["other"]}, 60)


def test_a_node_that_goes_in_its_turn_goes_on_with_it_when_it_is_back(
    platform: Platform, local: Cluster, models: dict[str, str], moving: Manifest
) -> None:
    platform.annotate("edgedeployment", "moving", retry="in-its-turn")
    reach(platform, "moving", "edge2 is measured", lambda s: "edge2: Measuring" in str(s.get("activity")))
    away(platform, local, "edge2")
    local.node("edge2").heal()
    found = reach(platform, "moving", "its end", lambda s: s["phase"] == "Ready" and not s.get("candidate")
                  and s["pools"][0]["nodes"]["updated"] == 2)  # fmt: skip
    assert found["stable"]["retry"] == "in-its-turn"
    assert len(found["stable"]["classes"]["fleet"]) == 2


def test_a_node_that_goes_after_its_turn_and_stays_away_is_a_failure(
    platform: Platform, local: Cluster, models: dict[str, str], moving: Manifest
) -> None:
    waves = [{"name": "canary", "nodes": 1, "soak": "1h"}, {"name": "rest", "nodes": "100%"}]
    strategy = {"waves": waves, "progressDeadline": "60s"}
    before = status(platform, "moving")["stable"]
    runtime = {"port": PORTS["moving"], "maxQueue": 29}
    platform.apply(deployed(platform, "moving", models["good"], **moving | {"strategy": strategy}, runtime=runtime))
    reach(platform, "moving", "the soak", lambda s: any(c["reason"] == "Soaking" for c in s["conditions"]))
    away(platform, local, "edge1")
    found = reach(platform, "moving", "a failure", lambda s: s["lastOutcome"]["outcome"] == "RolledBack")
    assert found["lastOutcome"]["reason"] == "NodeLost"
    assert "edge1" in found["lastOutcome"]["message"]
    assert found["stable"] == before
    local.node("edge1").heal()
    has(platform, "moving", {"edge1": models["other"], "edge2": models["other"]})
    platform.apply(deployed(platform, "moving", models["other"], **moving))
    serves(platform, "moving", models["other"])


def test_a_node_leaves_a_pool_and_comes_back_and_a_new_kind_of_node_is_measured_first(
    platform: Platform, models: dict[str, str], moving: Manifest
) -> None:
    leave(platform, "edge2")
    wait_for("its server to go", lambda: set(pods(platform, "moving")) == {"edge1"}, 60)
    reach(platform, "moving", "one node", lambda s: s["pools"][0]["nodes"]["total"] == 1)
    join(platform, "edge2")
    reach(platform, "moving", "two nodes", lambda s: s["pools"][0]["nodes"]["updated"] == 2, 90)
    jobs = {j["metadata"]["annotations"]["slmops.dev/node"] for j in platform.kubectl.items(
        "jobs", "-l", "slmops.dev/name=moving,slmops.dev/role=pull")}  # fmt: skip
    assert not jobs, "hardware that is known has no turn"
    join(platform, "gpu1")
    found = reach(platform, "moving", "three nodes", lambda s: s["pools"][0]["nodes"]["updated"] == 3)
    assert found["phase"] == "Ready"
    assert len(found["stable"]["classes"]["fleet"]) == 3
    assert "gpu1" in {row.get("node") for row in found["pools"][0]["classes"]}, "measured"
    leave(platform, "gpu1")


@pytest.fixture
def copy(platform: Platform, models: dict[str, str], request: pytest.FixtureRequest) -> str:
    """The good model in an image that no node has."""
    name = f"{platform.registry}/slm/e2e-{request.node.name.split('_')[2]}"
    platform.crane("mutate", models["good"], "--annotation", f"e2e={name}", "-t", f"{name}:v1")
    return f"{name}@{platform.crane('digest', f'{name}:v1').decode().strip()}"


def test_a_disk_that_is_full_is_the_nodes_own_and_with_room_it_goes_on(
    platform: Platform, local: Cluster, models: dict[str, str], moving: Manifest, copy: str
) -> None:
    before = status(platform, "moving")["stable"]
    local.node("edge2").fill()
    try:
        platform.apply(deployed(platform, "moving", copy, **moving))
        reach(platform, "moving", "it says so", lambda s: "edge2: Pulling (image" in str(s.get("activity"))
              and "no space left on device" in str(s["activity"]))  # fmt: skip
        assert status(platform, "moving")["stable"] == before
        assert any(map(ready, pods(platform, "moving")["edge2"].values())), "it serves what it had"
    finally:
        local.node("edge2").unfill()
    serves(platform, "moving", copy, 240)


def test_a_registry_that_is_away_makes_a_rollout_wait_and_says_so(
    platform: Platform, local: Cluster, models: dict[str, str], moving: Manifest, copy: str
) -> None:
    before = status(platform, "moving")["stable"]
    stop("registry")
    try:
        platform.apply(deployed(platform, "moving", copy, **moving))
        reach(platform, "moving", "it says so", lambda s: "Pulling (image" in str(s.get("activity")))
        assert status(platform, "moving")["stable"] == before
    finally:
        controlplane.start_registry()
    serves(platform, "moving", copy, 240)
