"""The chain of the examples, followed to its end while the operator is killed in the middle of every stage.

With less data than the examples have, so that the suite stays in minutes; the figures of the full demo are in
docs/benchmarks.md.
"""

import time
from dataclasses import dataclass, field

import pytest

from demo.assets import TAG, records
from demo.steps import CHAIN, Manifest, condition
from demo.task import BASE_DOMAINS
from slmkit.data import write_messages
from slmkit.registry import Registry
from slmops import contract
from slmops.contract import DATASET_TYPE, Sink
from tests.e2e.platform import NODE_PORT, Platform, examples

PROMPTS = 1500
STAGES = {"label", "train", "finetune", "quantize", "rollout"}
LIMIT = 30 * 60


@dataclass
class Seen:
    """What was observed while the chain ran."""

    takeovers: dict[str, float] = field(default_factory=dict)
    """Seconds without a leader after the kill in each stage."""
    jobs: dict[str, set[str]] = field(default_factory=dict)
    """UIDs by Job name: more than one means that work was done again."""
    resources: dict[tuple[str, str], Manifest] = field(default_factory=dict)

    def images(self, name: str) -> dict[str, str]:
        """The model images of a QuantizedModel, by variant."""
        variants = self.resources["quantizedmodel", name]["status"]["variants"]
        return {variant["name"]: variant["reference"] for variant in variants}


@pytest.fixture(scope="session")
def chain(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Apply everything at once and follow it to the end."""
    client = Registry(contract.Registry(plain_http=platform.cluster.plain_http))
    folder = tmp_path_factory.mktemp("prompts")
    write_messages(folder / "train.jsonl", records(BASE_DOMAINS, 3, PROMPTS, answers=False))
    write_messages(folder / "validation.jsonl", records(BASE_DOMAINS, 2, 100, held_out=True))
    sink = Sink(repository=f"{platform.registry}/slm/data/e2e-prompts")
    files = {path.name: path for path in sorted(folder.iterdir())}
    client.tag(sink, client.push_artifact(sink, files, DATASET_TYPE, {}), TAG)

    def smaller(manifest: Manifest) -> None:
        spec = manifest["spec"]
        match manifest["kind"]:
            case "Distillation":
                for part in ("train", "validation"):
                    spec["data"][part]["uri"] = f"oci://{sink.repository}:{TAG}"
                spec["training"]["epochs"] = 8
                spec["gates"] = [{"metric": "ExactMatch", "min": "1%"}]
                spec["evaluation"]["samples"] = 100
            case "FineTune":
                spec["training"]["epochs"] = 3
                spec["evaluation"]["samples"] = 100
            case "EdgeDeployment" if manifest["metadata"]["name"] == "farms":
                spec["runtime"]["nodePort"] = NODE_PORT

    platform.apply(*examples(platform.cluster, smaller))
    seen = Seen()
    deadline = time.monotonic() + LIMIT
    waiting = list(CHAIN)
    while waiting:
        kind, name, type = waiting[0]
        manifest = platform.kubectl.get(kind, name)
        found = condition(manifest, type)
        assert found.get("status") != "False" or kind == "edgedeployment", found
        if found.get("status") == "True":
            waiting.pop(0)
            continue
        for job in platform.kubectl.items("jobs"):
            seen.jobs.setdefault(job["metadata"]["name"], set()).add(job["metadata"]["uid"])
        stage = _stage(platform)
        if stage and stage not in seen.takeovers:
            print(f"killing the operator while it does: {stage}")
            seen.takeovers[stage] = platform.end_leader(hard=True)
        if time.monotonic() > deadline:
            raise AssertionError(f"{kind}/{name} did not end in time\n{platform.show(kind, name)}")
        time.sleep(0.5)
    seen.resources = {(kind, name): platform.kubectl.get(kind, name) or {} for kind, name, _ in CHAIN}
    return seen


def _stage(platform: Platform) -> str:
    """The stage of the chain that is in its middle now."""
    farms = platform.status("edgedeployment", "farms")
    if farms.get("candidate"):
        return "rollout"
    for pod in platform.kubectl.items("pods", "--field-selector=status.phase=Running"):
        labels = pod["metadata"]["labels"]
        named = (labels.get("slmops.dev/kind"), labels.get("slmops.dev/role"))
        found = {
            ("Distillation", "label"): "label", ("Distillation", "train"): "train", ("FineTune", "train"): "finetune",
        }.get(named)  # fmt: skip
        if found:
            return found
        if named[0] == "QuantizedModel" and labels.get("slmops.dev/name") == "farm-irrigation":
            return "quantize"
    return ""
