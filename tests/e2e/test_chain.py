"""The whole path on the real cluster: what the chain left behind, and what becomes of a bad model after it."""

import threading
import urllib.request
from collections.abc import Iterator

import pytest

from demo.assets import records
from demo.steps import CHAIN, Manifest, condition, wait_for
from demo.task import IRRIGATION
from tests.e2e.chain import PROMPTS, STAGES, Seen
from tests.e2e.platform import NAMESPACE, NODE_PORT, Platform

pytestmark = pytest.mark.cluster


def _status(seen: Seen, kind: str, name: str) -> Manifest:
    return dict(seen.resources[kind, name]["status"])


def test_the_operator_was_killed_in_every_stage_and_another_took_over(chain: Seen) -> None:
    assert set(chain.takeovers) == STAGES
    assert max(chain.takeovers.values()) <= 15, chain.takeovers


def test_no_work_was_done_twice(chain: Seen) -> None:
    assert {name: len(uids) for name, uids in chain.jobs.items() if len(uids) > 1} == {}
    roles = [name.rsplit("-", 1)[0] for name in chain.jobs if "-pull-" not in name and "-bench-" not in name]
    assert sorted(roles) == sorted(set(roles)), "two Jobs of one step"


def test_the_student_is_measured_against_teacher_and_untrained_student(chain: Seen) -> None:
    status = _status(chain, "distillation", "farm-assistant")
    figures = status["evaluation"]
    assert figures["teacher"]["ExactMatch"] > 0.8
    assert figures["baseline"]["ExactMatch"] < 0.05 < figures["model"]["ExactMatch"]
    assert status["dataset"]["prompts"] == PROMPTS + 100
    assert status["dataset"]["kept"] > 0.9 * PROMPTS
    assert "@sha256:" in status["artifact"]["reference"]


def test_the_adapter_taught_the_new_task(chain: Seen) -> None:
    status = _status(chain, "finetune", "farm-irrigation")
    assert status["evaluation"]["baseline"]["ExactMatch"] < 0.05
    assert status["evaluation"]["model"]["ExactMatch"] >= 0.8
    assert status["adapter"]["reference"] != status["artifact"]["reference"]


def test_each_variant_is_an_image_with_its_figures(chain: Seen) -> None:
    status = _status(chain, "quantizedmodel", "farm-irrigation")
    variants = {variant["name"]: variant for variant in status["variants"]}
    assert set(variants) == {"cpu-int4", "cpu-int8"}
    for variant in variants.values():
        assert variant["phase"] == "Ready"
        assert "@sha256:" in variant["reference"]
        assert variant["evaluation"]["comparison"]["AccuracyRetained"] >= 0.92
    assert variants["cpu-int4"]["reference"] != variants["cpu-int8"]["reference"]


def test_every_link_is_a_digest_from_the_nodes_to_the_data(chain: Seen, platform: Platform) -> None:
    deployed = _status(chain, "edgedeployment", "farms")["stable"]["images"]["farms"]
    packed = _status(chain, "quantizedmodel", "farm-irrigation")
    assert deployed == next(v["reference"] for v in packed["variants"] if v["name"] == "cpu-int4")
    tuned = _status(chain, "finetune", "farm-irrigation")
    assert packed["inputs"]["model"] == f"oci://{tuned['artifact']['reference']}"
    student = _status(chain, "distillation", "farm-assistant")
    assert tuned["inputs"]["base"] == f"oci://{student['artifact']['reference']}"
    assert student["inputs"]["train"].startswith(f"oci://{platform.registry}/slm/data/e2e-prompts@sha256:")
    assert student["inputs"]["tokenizer"].startswith(f"oci://{platform.registry}/slm/teacher@sha256:")


def test_the_nodes_were_measured_and_answer(chain: Seen, platform: Platform) -> None:
    status = _status(chain, "edgedeployment", "farms")
    (pool,) = status["pools"]
    assert pool["nodes"] == {"total": 2, "updated": 2, "ready": 2, "offline": 0, "behind": 0}
    assert [c["verdict"] for c in pool["classes"]] == ["Passed", "Passed"], "one class for each kind of node"
    assert all(c["figures"]["candidate"]["TokensPerSecond"] > 0 for c in pool["classes"])
    example = records((IRRIGATION,), 8, 1, held_out=True)[0]
    for name in ("edge1", "edge2"):
        base = _address(platform, name)
        said = platform.chat(base, example.prompt[0]["content"], "farm-irrigation")
        assert said["choices"][0]["message"]["content"] == example.completion
        assert said["usage"]["completion_tokens"] > 0
        events = platform.chat(base, example.prompt[0]["content"], "farm-irrigation", stream=True)
        assert events[-1] == "[DONE]"
        assert len(events) > 5
        with urllib.request.urlopen(f"{base}/v1/models", timeout=5) as answer:
            assert b"farm-irrigation" in answer.read()
        with urllib.request.urlopen(f"{base}/health", timeout=5) as answer:
            assert answer.status == 200
        with urllib.request.urlopen(f"{base}/metrics", timeout=5) as answer:
            assert b"slmops_runtime_generated_tokens_total" in answer.read()


def _address(platform: Platform, node: str) -> str:
    """A serving pod's own address: the node port would balance over both nodes."""
    for pod in platform.kubectl.items("pods", "-l", "slmops.dev/role=serve,slmops.dev/name=farms"):
        if pod["spec"]["nodeName"] == node and condition(pod, "Ready").get("status") == "True":
            return f"http://{pod['status']['podIP']}:8080"
    raise AssertionError(f"no ready pod on {node}")


@pytest.fixture
def traffic(chain: Seen, platform: Platform) -> Iterator[list[str]]:
    """Somebody keeps asking the model by its node port; what went wrong."""
    errors: list[str] = []
    stopping = threading.Event()
    example = records((IRRIGATION,), 9, 1, held_out=True)[0]
    node = platform.kubectl.items("nodes", "-l", "pool=farms")[0]
    addresses = {a["type"]: a["address"] for a in node["status"]["addresses"]}
    base = f"http://{addresses['InternalIP']}:{NODE_PORT}"

    def ask() -> None:
        while not stopping.wait(0.2):
            try:
                said = platform.chat(base, example.prompt[0]["content"], "farm-irrigation")
                if said["choices"][0]["message"]["content"] != example.completion:
                    errors.append(str(said["choices"][0]["message"]))
            except (OSError, ValueError) as error:
                errors.append(repr(error))

    thread = threading.Thread(target=ask)
    thread.start()
    yield errors
    stopping.set()
    thread.join()


def test_a_bad_model_is_stopped_at_the_first_wave_and_taken_back(
    chain: Seen, platform: Platform, traffic: list[str]
) -> None:
    """The teacher knows nothing of irrigation and is twenty times as large: worse and slower."""
    before = platform.kubectl.get("edgedeployment", "farms") or {}
    pools = [before["spec"]["pools"][0] | {"variant": "cpu-int8"}]
    platform.patch("edgedeployment", "farms", {"model": {"quantizedModel": {"name": "teacher"}}, "pools": pools})
    wanted = (platform.kubectl.get("edgedeployment", "farms") or {})["spec"]
    candidates: set[str] = set()

    def ended() -> bool:
        status = (platform.kubectl.get("edgedeployment", "farms") or {})["status"]
        stable = before["status"]["stable"]["revision"]
        for pod in platform.kubectl.items("pods", "-l", "slmops.dev/role=serve,slmops.dev/name=farms"):
            if pod["metadata"]["labels"]["slmops.dev/revision"] != stable and pod["spec"].get("nodeName"):
                candidates.add(pod["spec"]["nodeName"])
        return bool((status.get("lastOutcome") or {}).get("outcome") == "RolledBack")

    wait_for("the roll-back", ended, 180, lambda: platform.show("edgedeployment", "farms"), pause=0.5)
    after = platform.kubectl.get("edgedeployment", "farms") or {}
    outcome = after["status"]["lastOutcome"]
    assert outcome["reason"] == "GateFailed"
    assert "ExactMatch" in outcome["message"]
    judged = [gate for row in after["status"]["pools"][0]["classes"] for gate in row.get("gates", ())]
    speed = {gate["outcome"] for gate in judged if gate["metric"] == "TokensPerSecond"}
    # On a node that is busy with others, nobody can tell by its speed alone.
    assert speed & {"Failed", "Inconclusive"}, "measured beside the one that serves, on the same node"
    assert len(candidates) == 1, "it reached more than the first wave"
    assert after["spec"] == wanted, "the spec is the user's"
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1
    assert after["status"]["stable"] == before["status"]["stable"]
    assert condition(after, "Promoted")["status"] == "False"

    def only_stable() -> bool:
        pods = platform.kubectl.items("pods", "-l", "slmops.dev/role=serve,slmops.dev/name=farms")
        revisions = {pod["metadata"]["labels"]["slmops.dev/revision"] for pod in pods}
        return revisions == {before["status"]["stable"]["revision"]} and len(pods) == 2

    wait_for("the candidate's pods to go", only_stable, 60, lambda: platform.show("edgedeployment", "farms"))
    assert traffic == []


def test_going_back_to_the_good_spec_is_at_rest_at_once(chain: Seen, platform: Platform) -> None:
    good = chain.resources["edgedeployment", "farms"]["spec"]
    platform.patch("edgedeployment", "farms", {"model": good["model"], "pools": good["pools"]})
    after = platform.wait("edgedeployment", "farms", "Promoted", "True", 60)
    assert after["status"]["stable"] == chain.resources["edgedeployment", "farms"]["status"]["stable"]
    assert condition(after, "Ready")["status"] == "True"


def test_nothing_is_written_when_nothing_changes(chain: Seen, platform: Platform) -> None:
    """The resync of the operator is ten minutes, so force passes by a touch of an annotation that means nothing."""

    def versions() -> dict[str, str]:
        kinds = "distillations,finetunes,quantizedmodels,edgedeployments,jobs,daemonsets,configmaps,services"
        found = platform.kubectl.items(kinds)
        return {f"{m['kind']}/{m['metadata']['name']}": m["metadata"]["resourceVersion"] for m in found}

    wait_for("the evidence of what went before", lambda: not platform.kubectl.items(
        "jobs", "-l", "slmops.dev/role=evidence"), 60, lambda: platform.show("edgedeployment", "farms"))  # fmt: skip
    for kind, name, _ in CHAIN:
        platform.kubectl("annotate", kind, name, "-n", NAMESPACE, "example.com/touch=1", "--overwrite")
    before = versions()
    platform.renewals(2)
    assert versions() == before
