"""Ways to fine-tune, on the real cluster: four bits, DoRA, packing, early stopping, learning by heart, and the same bytes
from the same seed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.assets import records
from demo.steps import Manifest, condition, wait_for
from demo.task import IRRIGATION
from slmops.contract import (
    Source,
)
from tests.e2e import toys
from tests.e2e.platform import NAMESPACE, Platform
from tests.e2e.toys import by_heart, client, dataset

pytestmark = [pytest.mark.cluster, pytest.mark.long]
SECONDS = 600

TEMPLATE = """{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}{{ eos_token }}{% endfor %}
{%- if add_generation_prompt %}[assistant]{% endif %}"""


def finetune(platform: Platform, base: str, name: str, data: str, /, **spec: Any) -> Manifest:
    training = {"epochs": 1, "maxSteps": 8, "batchSize": 8, "learningRate": 0.002} | spec.pop("training", {})
    return {
        "apiVersion": "slmops.dev/v1alpha1", "kind": "FineTune", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "base": {"uri": base},
            "data": {"train": {"uri": data}, "validationSplit": 0.2},
            "training": training,
            "evaluation": {"samples": 4, "maxNewTokens": 4},
            "output": {"repository": f"{platform.registry}/slm/methods"},
            "run": toys.ONE_AT_A_TIME,
            **spec,
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def made(platform: Platform, base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Manifest]]:
    """The FineTunes of this file, all applied at once."""
    folder = tmp_path_factory.mktemp("data")
    lessons = dataset(platform, folder, "methods", records((IRRIGATION,), 4, 80))
    noise = dataset(platform, folder, "noise", by_heart(60))
    lora = {"lora": {"rank": 4}}
    template = {"data": {"train": {"uri": lessons}, "validationSplit": 0.2, "template": TEMPLATE}}
    found = {
        manifest["metadata"]["name"]: manifest
        for manifest in (
            finetune(platform, base, "qlora", lessons, method="QLoRA", qlora={"quantType": "FP4"}, task="Extraction",
                     **lora, **template),
            finetune(platform, base, "dora", lessons, method="DoRA", **lora,
                     training={"packing": True, "maxSequenceLength": 256, "batchSize": 2, "gradientCheckpointing": True,
                               "maxSteps": 40, "epochs": 40, "evaluateEvery": 2, "precision": "FP16",
                               "earlyStopping": {"patience": 2, "minDelta": 100}}),
            finetune(platform, base, "heart", noise, method="Full",
                     training={"maxSteps": 300, "epochs": 300, "batchSize": 48, "evaluateEvery": 15, "learningRate": 0.01,
                               "scheduler": "WarmupStableDecay"}),
            finetune(platform, base, "olive", lessons, engine="Olive", **lora),
        )
    }  # fmt: skip
    platform.apply(*found.values())
    yield found
    platform.kubectl("delete", "finetunes", *found, "-n", NAMESPACE, "--ignore-not-found")


def done(platform: Platform, name: str) -> Manifest:
    """The status of a FineTune that has succeeded."""
    status: Manifest = platform.wait("finetune", name, "Succeeded", "True", SECONDS)["status"]
    return status


def adapter(platform: Platform, status: Manifest, folder: Path) -> tuple[Manifest, dict[str, Any]]:
    """(configuration, tensors as safetensors lists them) of a published adapter."""
    client(platform).pull(Source(uri=f"oci://{status['adapter']['reference']}"), folder)
    content = (folder / "adapter_model.safetensors").read_bytes()
    head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    head.pop("__metadata__", None)
    return json.loads((folder / "adapter_config.json").read_text()), head


@pytest.mark.parametrize(("name", "steps"), [("qlora", 8), ("dora", 6)])
def test_a_method_publishes_an_adapter_a_merged_model_and_its_curves(
    platform: Platform, made: dict[str, Manifest], name: str, steps: int, tmp_path: Path
) -> None:
    status = done(platform, name)
    config, tensors = adapter(platform, status, tmp_path)
    assert (config["r"], config["use_dora"]) == (4, name == "dora")
    assert any("magnitude" in tensor for tensor in tensors) == (name == "dora")
    assert {tensor["dtype"] for tensor in tensors.values()} == {"F32"}
    assert status["artifact"]["reference"] != status["adapter"]["reference"]
    assert {"model", "baseline"} <= status["evaluation"].keys()
    learned = status["learning"]
    assert learned["steps"] == steps
    assert learned["curve"][-1]["step"] == steps
    assert 0 < learned["evalLoss"] < 20
    client(platform).pull(Source(uri=f"oci://{status['logs']['reference']}"), tmp_path / "logs")
    (events,) = (tmp_path / "logs").iterdir()
    assert events.name.startswith("events.out.tfevents")
    assert b"train/loss" in events.read_bytes()


def test_the_model_of_qlora_is_in_full_precision_and_has_the_template_that_it_was_trained_with(
    platform: Platform, made: dict[str, Manifest], tmp_path: Path
) -> None:
    status = done(platform, "qlora")
    client(platform).pull(Source(uri=f"oci://{status['artifact']['reference']}"), tmp_path)
    content = (tmp_path / "model.safetensors").read_bytes()
    head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert {tensor["dtype"] for name, tensor in head.items() if name != "__metadata__"} == {"F32"}
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    assert (tmp_path / "chat_template.jinja").read_text() == TEMPLATE


def test_olive_learns_an_adapter_that_is_measured_and_merged_like_any_other(
    platform: Platform, made: dict[str, Manifest], tmp_path: Path
) -> None:
    status = done(platform, "olive")
    config, tensors = adapter(platform, status, tmp_path)
    assert (config["r"], config["use_dora"], config["base_model_name_or_path"]) == (4, False, None)
    assert len(tensors) == 2 * 7 * 2, "all linear layers of two blocks"
    assert {"model", "baseline"} <= status["evaluation"].keys()
    assert status["learning"]["steps"] == 8
    curve = [point["trainLoss"] for point in status["learning"]["curve"]]
    assert len(curve) == 8
    assert curve[-1] < curve[0]
    assert status["inputs"]["adapter"].startswith(f"oci://{platform.registry}/slm/methods@sha256:")
    jobs = platform.kubectl.items("jobs", "-l", "slmops.dev/name=olive", namespace=NAMESPACE)
    roles = {job["metadata"]["labels"]["slmops.dev/role"]: job for job in jobs}
    assert roles.keys() == {"olive", "train"}
    (container,) = roles["olive"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == platform.images["quantizer"]


def test_learning_by_heart_is_a_warning_that_names_a_remedy(platform: Platform, made: dict[str, Manifest]) -> None:
    manifest = platform.wait("finetune", "heart", "Succeeded", "True", SECONDS)
    found, learned = condition(manifest, "Trained"), manifest["status"]["learning"]
    assert (found["status"], found["reason"]) == ("True", "Overfitting"), learned
    assert f"{learned['bestEvalLoss']:.4g} after step {learned['bestStep']}" in found["message"]
    assert "spec.training.earlyStopping" in found["message"]
    assert learned["evalLoss"] > 1.05 * learned["bestEvalLoss"]
    assert learned["curve"][-1]["trainLoss"] < learned["curve"][0]["trainLoss"]


def test_early_stopping_ends_a_training_and_the_same_seed_gives_the_same_digests(
    platform: Platform, made: dict[str, Manifest]
) -> None:
    """The same resource made again: model and adapter are the same artefacts, to the last byte of their manifests."""
    first = platform.wait("finetune", "dora", "Succeeded", "True", SECONDS)
    learned = first["status"]["learning"]
    assert (learned["steps"], learned["bestStep"], learned["stoppedEarly"]) == (6, 2, True)
    assert learned["evalLoss"] == learned["bestEvalLoss"]
    assert condition(first, "Trained")["message"] == "stopped early after step 6; the weights are those of step 2"
    platform.kubectl("delete", "finetune", "dora", "-n", NAMESPACE, "--cascade=foreground")
    gone = lambda: not platform.kubectl.items("jobs", "-l", "slmops.dev/name=dora", namespace=NAMESPACE)  # noqa: E731
    wait_for("the first Job's end", gone, 60)
    platform.apply(made["dora"])
    again = done(platform, "dora")
    assert again["adapter"] == first["status"]["adapter"]
    assert again["artifact"] == first["status"]["artifact"]
    assert again["learning"] == learned
