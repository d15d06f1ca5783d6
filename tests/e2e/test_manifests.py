"""What users write: the examples are accepted, and bad manifests are refused in words that name field and remedy."""

import json
import subprocess
from typing import Any

import pytest

from demo.steps import EXAMPLES
from tests.e2e.bad_manifests import CASES, CHANGES, FINETUNE, REFUSALS, TEXTS, changed
from tests.e2e.platform import NAMESPACE, Platform, examples

pytestmark = pytest.mark.cluster


def _apply(platform: Platform, manifest: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    kubectl = platform.kubectl
    command = [kubectl.cluster.bin("kubectl"), "--kubeconfig", kubectl.cluster.kubeconfig, "apply", "--dry-run=server",
               "-f", "-"]  # fmt: skip
    return subprocess.run(command, input=json.dumps(manifest), capture_output=True, text=True, check=False)


def _example(platform: Platform, named: tuple[str, str], changes: dict[str, Any]) -> dict[str, Any]:
    """An example by kind and name, called "bad" now, with the changes made."""
    found = (m for m in examples(platform.cluster) if (m["kind"], m["metadata"]["name"]) == named)
    return changed(next(found), {"metadata.name": "bad"} | changes)


def test_every_example_is_accepted(platform: Platform) -> None:
    found = [*examples(platform.cluster), *examples(platform.cluster, folder=EXAMPLES / "more")]
    assert {m["kind"] for m in found} == {"Distillation", "FineTune", "QuantizedModel", "EdgeDeployment"}
    for manifest in found:
        done = _apply(platform, manifest)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "changes",
    [
        {"spec.loss": {"type": "Contrastive"}, "spec.data.train.format": "PromptCompletion", "spec.run.nodes": 2},
        TEXTS | {"spec.gates": [{"metric": "Perplexity", "max": 100}], "spec.evaluation": {"metrics": ["Perplexity"]}},
        TEXTS | {"spec.evaluation": {"data": {"uri": "oci://registry.example/slm/data:v1"}, "metrics": ["F1"]}},
    ],
    ids=["pairs of answers on two nodes", "texts measured by their loss", "texts learned, and answers judged"],
)
def test_what_goes_together_is_accepted(platform: Platform, changes: dict[str, Any]) -> None:
    done = _apply(platform, _example(platform, FINETUNE, changes))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", CASES)
def test_a_bad_manifest_is_refused(platform: Platform, name: str) -> None:
    example, changes = CASES[name]
    manifest = _example(platform, example, changes)
    done = _apply(platform, manifest)
    assert done.returncode == 1
    assert _told(done.stderr, manifest) == REFUSALS[name]


@pytest.mark.parametrize("name", CHANGES)
def test_what_cannot_change_is_refused(platform: Platform, name: str) -> None:
    example, first, then = CHANGES[name]
    manifest = _example(platform, example, first)
    platform.apply(manifest)
    try:
        done = _apply(platform, changed(manifest, then))
    finally:
        platform.kubectl("delete", manifest["kind"], "bad", "-n", NAMESPACE)
    assert done.returncode == 1
    assert _told(done.stderr, manifest) == REFUSALS[name]


def _told(stderr: str, manifest: dict[str, Any]) -> str:
    """The API server's words, less what is the same in all."""
    preamble = f'The {manifest["kind"]} "{manifest["metadata"]["name"]}" is invalid:'
    lines = [line.strip(" *") for line in stderr.replace(preamble, "").splitlines()]
    return "\n".join(line for line in lines if line and "some validation rules were not checked" not in line)


def test_explain_reads_well(platform: Platform) -> None:
    text = platform.kubectl("explain", "edgedeployment.spec.strategy.waves")
    assert "Steps of the rollout" in text
    assert "Nodes of each pool that have the candidate at the end of the wave" in " ".join(text.split())


def test_short_names_and_the_category_work(platform: Platform) -> None:
    for short in ("distill", "ft", "qm", "edge", "slm"):
        platform.kubectl("get", short, "-n", platform.kubectl.namespace)
