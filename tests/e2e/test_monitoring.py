"""A model in production on the real cluster: what is asked becomes another thing, its FineTune runs once more on the data
of now, and what comes of it is rolled out and watched from a new beginning."""

import itertools
import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.assets import records
from demo.steps import Manifest, ask, wait_for
from demo.task import IRRIGATION
from slmkit.data import write_messages
from slmops.contract import BENCHMARK_HEADER, DATASET_TYPE, Sink
from tests.e2e import toys
from tests.e2e.platform import NAMESPACE, Platform
from tests.e2e.test_served_adapters import read, resource

pytestmark = pytest.mark.cluster
NAME, PORT, TAG = "watched", 8131, "live"
SECONDS = 600
MONITORING: Manifest = {
    "interval": "10s", "window": "5m", "minRequests": 100, "baseline": {"requests": 100}, "drift": {},
    "bounds": [{"metric": "ErrorRate", "max": "50%"}],
    "retrain": {"fineTune": {"name": NAME}, "minInterval": "24h"},
}  # fmt: skip
USUAL = [record.prompt[-1]["content"] for record in records((IRRIGATION,), 4, 60)]
OTHER = [f"code {number}" for number in range(1000, 1060)]


def publish(platform: Platform, folder: Path, seed: int) -> str:
    """Put other records behind the address that the FineTune learns from. Returns their digest."""
    path = folder / "train.jsonl"
    write_messages(path, records((IRRIGATION,), seed, 80))
    sink, client = Sink(repository=f"{platform.registry}/slm/data/{NAME}"), toys.client(platform)
    made = client.push_artifact(sink, {path.name: path}, DATASET_TYPE, {})
    client.tag(sink, made, TAG)
    return made.digest


@pytest.fixture(scope="module")
def watched(platform: Platform, base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], str]]:
    """FineTune, QuantizedModel and an EdgeDeployment of it that is watched. What puts other records behind the FineTune's
    data."""
    folder = tmp_path_factory.mktemp(NAME)
    publish(platform, folder, 4)
    run = {"nodeSelector": {"pool": "gpu"}, "retries": 0}
    pools = [{"name": "one", "selector": {"matchLabels": {"kubernetes.io/hostname": "edge1"}}}]
    platform.apply(
        resource(
            "FineTune", NAME, base={"uri": base}, lora={"rank": 4},
            data={"train": {"uri": f"oci://{platform.registry}/slm/data/{NAME}:{TAG}"}, "validationSplit": 0.2},
            training={"maxSteps": 8, "batchSize": 8, "learningRate": 0.002},
            evaluation={"samples": 4, "maxNewTokens": 4}, run=run,
            output={"repository": f"{platform.registry}/slm/{NAME}"},
        ),
        resource("QuantizedModel", NAME, model={"fineTune": {"name": NAME}}, variants=[{"name": "cpu-int4"}], run=run,
                 output={"repository": f"{platform.registry}/slm/{NAME}-images"}),
        resource("EdgeDeployment", NAME, model={"quantizedModel": {"name": NAME}}, pools=pools, monitoring=MONITORING,
                 runtime={"port": PORT, "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}}),
    )  # fmt: skip
    platform.wait("edgedeployment", NAME, "Ready", "True", 2 * SECONDS)
    yield lambda seed: publish(platform, folder, seed)
    for kind in ("edgedeployment", "quantizedmodel", "finetune"):
        platform.kubectl("delete", kind, NAME, "-n", NAMESPACE, "--ignore-not-found")


def address(platform: Platform) -> str:
    """The server of what is stable: one of before may still end."""
    stable = platform.status("edgedeployment", NAME)["stable"]["revision"]
    mine = f"slmops.dev/name={NAME},slmops.dev/role=serve,slmops.dev/revision={stable}"
    (pod,) = platform.kubectl.items("pods", "-l", mine)
    return f"http://{pod['status']['podIP']}:{PORT}"


def keep_asking(
    platform: Platform, prompts: list[str], what: str, so: Callable[[Manifest], Any], seconds: int = 240
) -> None:
    """Ask, as users do, until the status of the EdgeDeployment is so."""
    base, turn = address(platform), itertools.cycle(prompts)

    def done() -> bool:
        for _ in range(25):
            ask(base, NAME, next(turn), max_tokens=4).close()
        return bool(so(platform.status("edgedeployment", NAME)))

    wait_for(f"{NAME}: {what}", done, 300, lambda: platform.show("edgedeployment", NAME), pause=0.2)


def reason(status: Manifest) -> str:
    return str(next((c["reason"] for c in status.get("conditions", []) if c["type"] == "WithinBounds"), ""))


def jobs(platform: Platform) -> dict[str, str]:
    """The FineTune's Jobs: UID by name."""
    mine = f"slmops.dev/kind=FineTune,slmops.dev/name={NAME}"
    return {job["metadata"]["name"]: job["metadata"]["uid"] for job in platform.kubectl.items("jobs", "-l", mine)}


def answers(page: str) -> int:
    """Requests that a server has answered, as it tells itself."""
    return int(json.loads(page)["answers"])


def test_usual_requests_become_the_baseline_and_are_within_bounds(
    platform: Platform, watched: Callable[[int], str]
) -> None:
    keep_asking(platform, USUAL, "a baseline", lambda status: reason(status) == "TooFewRequests")
    (baseline,) = platform.kubectl.items("configmaps", "-l", f"slmops.dev/name={NAME},slmops.dev/role=baseline")
    stable = platform.status("edgedeployment", NAME)["stable"]["revision"]
    assert baseline["metadata"]["name"] == f"{NAME}-baseline-{stable}"
    keep_asking(platform, USUAL, "enough requests", lambda status: reason(status) == "WithinBounds")
    (pool,) = platform.status("edgedeployment", NAME)["monitoring"]["pools"]
    assert pool["servers"] == 1
    assert max(pool["drift"].values()) < 0.1
    assert 0 < pool["latency"]["p50"] <= pool["latency"]["p95"] <= pool["latency"]["p99"]


def test_a_server_tells_counts_and_no_text_and_leaves_a_benchmark_out(
    platform: Platform, watched: Callable[[int], str]
) -> None:
    base = address(platform)
    page = read(f"{base}/monitoring?seconds=86400")
    assert answers(page) >= 200
    assert not any(word in page for prompt in USUAL for word in prompt.split() if word.isalpha() and len(word) > 6)
    body = json.dumps({"model": NAME, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}).encode()
    headers = {"Content-Type": "application/json", BENCHMARK_HEADER: "yes"}
    asked = urllib.request.Request(f"{base}/v1/chat/completions", body, headers)
    urllib.request.urlopen(asked, timeout=30).close()
    assert answers(read(f"{base}/monitoring?seconds=86400")) == answers(page)


def test_other_requests_are_a_breach_that_has_the_model_trained_again_once(
    platform: Platform, watched: Callable[[int], str]
) -> None:
    before = jobs(platform)
    assert len(before) == 1
    spec = (platform.kubectl.get("finetune", NAME) or {})["spec"]
    digest = watched(7)
    keep_asking(platform, OTHER, "a breach", lambda status: reason(status) == "Drifted")
    wait_for("the new run", lambda: bool(jobs(platform)) and not jobs(platform).keys() & before.keys(), 120,
             lambda: platform.show("finetune", NAME))  # fmt: skip
    tuned = platform.kubectl.get("finetune", NAME) or {}
    said = tuned["metadata"]["annotations"]["slmops.dev/retrain"]
    assert f"EdgeDeployment {NAME} revision" in said
    assert "max 0.2" in said
    assert tuned["spec"] == spec
    events = platform.kubectl.items("events.events.k8s.io")
    told = {event["regarding"]["kind"] for event in events if event["reason"] == "Retrain"}
    assert told == {"EdgeDeployment", "FineTune"}
    seen = jobs(platform)
    wait_for("its end", lambda: platform.condition("finetune", NAME, "Succeeded").get("status") == "True", SECONDS,
             lambda: platform.show("finetune", NAME))  # fmt: skip
    assert jobs(platform) == seen
    status = platform.status("finetune", NAME)
    assert status["retrain"]["why"] == said
    assert digest in str(status["inputs"]), "on the data of now"


def test_what_came_of_it_is_rolled_out_and_watched_from_a_new_beginning(
    platform: Platform, watched: Callable[[int], str]
) -> None:
    retrain = platform.status("edgedeployment", NAME)["monitoring"]["retrain"]

    def anew() -> bool:
        found = platform.status("edgedeployment", NAME)
        return bool(found["stable"]["revision"] != retrain["revision"] and found["phase"] == "Ready")

    wait_for("the new model everywhere", anew, SECONDS, lambda: platform.show("edgedeployment", NAME))
    run = jobs(platform)
    keep_asking(platform, OTHER, "a new baseline", lambda status: reason(status) in ("TooFewRequests", "WithinBounds"))
    keep_asking(platform, OTHER, "that it is usual now", lambda status: reason(status) == "WithinBounds")
    found = platform.status("edgedeployment", NAME)["monitoring"]
    assert found["retrain"]["at"] == retrain["at"]
    assert found["retrain"]["outcome"] == "Succeeded"
    assert jobs(platform) == run, "and nothing was trained a third time"
    named = f'slmops_monitoring_retrains_total{{name="{NAME}",namespace="{NAMESPACE}"}}'
    assert platform.metrics(platform.leader())[named] == 1


def test_git_neither_undoes_the_run_nor_starts_it_again(platform: Platform, watched: Callable[[int], str]) -> None:
    """What a tool does that keeps a cluster as git has it, which knows of no annotation."""
    before, live = jobs(platform), platform.kubectl.get("finetune", NAME) or {}
    plain = {**live, "metadata": {"name": NAME, "namespace": NAMESPACE}}
    plain.pop("status")
    platform.kubectl("replace", "-f", "-", stdin=json.dumps(plain))
    assert "annotations" not in (platform.kubectl.get("finetune", NAME) or {})["metadata"]
    platform.renewals(5)
    assert jobs(platform) == before
    assert platform.condition("finetune", NAME, "Succeeded").get("status") == "True"
