"""Two adapters on one base, on the real cluster: side by side, each measured on its own records and on the base's, one
image with a layer of each, and a change of one that touches that one alone; the same learned by Olive."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.steps import Manifest, wait_for
from slmkit.lineage import walk
from slmkit.registry import Registry
from slmops import contract
from slmops.contract import Source
from tests.e2e import toys
from tests.e2e.platform import NAMESPACE, Platform

pytestmark = [pytest.mark.cluster, pytest.mark.long]
SECONDS = 600
NAME = "skills"


@pytest.fixture(scope="module")
def data(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Addresses of records, by the name of the adapter that is to learn from them."""
    return toys.two_tasks(platform, tmp_path_factory.mktemp("adapters"), "adapters")


def finetune(platform: Platform, name: str, base: str, data: dict[str, str], /, **spec: Any) -> Manifest:
    """Both adapters, side by side."""
    return {
        "apiVersion": "slmops.dev/v1alpha1", "kind": "FineTune", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "base": {"uri": base},
            "adapters": [adapter("irrigation", data["irrigation"], 2), adapter("noise", data["noise"], 4)],
            "parallelism": 2,
            "training": {"maxSteps": 8, "learningRate": 0.002},
            "evaluation": {"samples": 4, "maxNewTokens": 4},
            "output": {"repository": f"{platform.registry}/slm/adapters"},
            "run": toys.A_CORE_EACH,
            **spec,
        },
    }  # fmt: skip


def adapter(name: str, data: str, rank: int) -> dict[str, Any]:
    return {"name": name, "data": {"train": {"uri": data}, "validationSplit": 0.2}, "lora": {"rank": rank}}


@pytest.fixture(scope="module")
def skills(platform: Platform, base: str, data: dict[str, str]) -> Iterator[Manifest]:
    """The FineTune, applied."""
    made = finetune(platform, NAME, base, data, baseTask={"uri": data["irrigation"]})
    platform.apply(made)
    yield made
    platform.kubectl("delete", "finetune", NAME, "-n", NAMESPACE, "--ignore-not-found")


def jobs(platform: Platform, name: str = NAME) -> dict[str, Manifest]:
    """The Jobs by role."""
    found = platform.kubectl.items("jobs", "-l", f"slmops.dev/name={name}", namespace=NAMESPACE)
    return {job["metadata"]["labels"]["slmops.dev/role"]: job for job in found}


def layers(platform: Platform, reference: str) -> dict[str, str]:
    """Digests of an image's layers by title."""
    client = Registry(contract.Registry(plain_http=platform.cluster.plain_http))
    manifest = client.look(reference).manifest
    return {layer["annotations"]["org.opencontainers.image.title"]: layer["digest"] for layer in manifest["layers"]}


def test_adapters_train_side_by_side_and_each_is_measured_published_and_a_layer_of_one_image(
    platform: Platform, skills: Manifest
) -> None:
    wait_for("both trainings", lambda: {"train-irrigation", "train-noise"} <= jobs(platform).keys(), 60)
    status = platform.wait("finetune", NAME, "Succeeded", "True", SECONDS)["status"]
    assert status["ready"] == "2/2"
    by_name = {row["name"]: row for row in status["adapters"]}
    assert by_name.keys() == {"irrigation", "noise"}
    for row in by_name.values():
        figures = row["evaluation"]
        assert {"model", "baseline", "baseTask", "baseTaskBefore", "comparison"} == figures.keys()
        lost = figures["baseTaskBefore"]["ExactMatch"] - figures["baseTask"]["ExactMatch"]
        assert figures["comparison"]["Forgetting"] == pytest.approx(lost, abs=1e-3)
        assert row["learning"]["steps"] == 8
    found = layers(platform, status["image"]["reference"])
    assert found == {name: layers(platform, row["layer"])[name] for name, row in by_name.items()}
    client = Registry(contract.Registry(plain_http=platform.cluster.plain_http))
    links = {(link.depth, link.role): link.uri for link in walk(client, status["image"]["reference"])}
    assert links[1, "adapter.noise"] == f"oci://{by_name['noise']['reference']}"
    assert links[2, "base"] == skills["spec"]["base"]["uri"]
    said = platform.kubectl("get", "finetune", NAME, "-n", NAMESPACE, "-o", "wide")
    assert "2/2" in said


def test_a_change_of_one_trains_that_one_alone_and_changes_its_layer_alone(
    platform: Platform, skills: Manifest
) -> None:
    before = platform.wait("finetune", NAME, "Succeeded", "True", SECONDS)["status"]
    old = jobs(platform)
    skills["spec"]["adapters"][1]["lora"]["rank"] = 6
    platform.apply(skills)
    generation = (platform.kubectl.get("finetune", NAME) or {})["metadata"]["generation"]

    def trained_anew() -> bool:
        status = (platform.kubectl.get("finetune", NAME) or {})["status"]
        found = platform.condition("finetune", NAME, "Succeeded")
        return bool(status["observedGeneration"] == generation and found.get("status") == "True")

    wait_for("the changed adapter", trained_anew, SECONDS, lambda: platform.show("finetune", NAME))
    after = (platform.kubectl.get("finetune", NAME) or {})["status"]
    new = jobs(platform)
    assert uid(new["train-irrigation"]) == uid(old["train-irrigation"])
    assert uid(new["train-noise"]) != uid(old["train-noise"])
    first, second = layers(platform, before["image"]["reference"]), layers(platform, after["image"]["reference"])
    assert first["irrigation"] == second["irrigation"]
    assert first["noise"] != second["noise"]
    assert before["adapters"][0] == after["adapters"][0]


def test_olive_learns_each_adapter_and_each_is_measured_and_published_as_a_layer_of_its_own(
    platform: Platform, base: str, data: dict[str, str], tmp_path: Path
) -> None:
    name = "olive-skills"
    platform.apply(finetune(platform, name, base, data, engine="Olive", evaluation={"samples": 2, "maxNewTokens": 2}))
    status = platform.wait("finetune", name, "Succeeded", "True", SECONDS)["status"]
    assert status["ready"] == "2/2"
    made = jobs(platform, name)
    assert made.keys() == {"olive-irrigation", "train-irrigation", "olive-noise", "train-noise", "join"}
    for role, job in made.items():
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert container["image"] == platform.images["quantizer" if role.startswith("olive-") else "trainer"]
    client = Registry(contract.Registry(plain_http=platform.cluster.plain_http))
    by_name = {row["name"]: row for row in status["adapters"]}
    for each, rank in {"irrigation": 2, "noise": 4}.items():
        row = by_name[each]
        assert row["learning"]["steps"] == 8
        assert {"model", "baseline"} <= row["evaluation"].keys()
        assert row["inputs"]["train"] == data[each]
        assert row["inputs"]["adapter"].startswith(f"oci://{platform.registry}/slm/adapters@sha256:")
        client.pull(Source(uri=f"oci://{row['reference']}"), tmp_path / each)
        assert json.loads((tmp_path / each / "adapter_config.json").read_text())["r"] == rank
    found = layers(platform, status["image"]["reference"])
    assert found == {each: layers(platform, row["layer"])[each] for each, row in by_name.items()}
    assert len(set(found.values())) == 2
    platform.kubectl("delete", "finetune", name, "-n", NAMESPACE)


def uid(job: Manifest) -> str:
    return str(job["metadata"]["uid"])
