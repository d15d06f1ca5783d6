"""Adapters of a FineTune beside a model in four bits, on the real cluster: one image, each request chooses; a changed one
changes its own layer, and a hostile one is never loaded."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.steps import Manifest, condition, wait_for
from slmkit.layers import Layer
from slmkit.lineage import walk
from slmkit.registry import Registry
from slmops import contract
from slmops.contract import Sink
from tests.e2e import toys
from tests.e2e.platform import NAMESPACE, Platform
from tests.e2e.test_adapters import finetune, layers
from tests.unit.images.adapterbytes import adaptable, adapter, beside

pytestmark = pytest.mark.cluster
SECONDS = 600
NAME, TUNED = "served", "served-skills"
POOLS = [{"name": "farms", "selector": {"matchLabels": {"pool": "farms"}}}]


def resource(kind: str, name: str, **spec: Any) -> Manifest:
    meta = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "slmops.dev/v1alpha1", "kind": kind, "metadata": meta, "spec": spec}


@pytest.fixture(scope="module")
def data(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Addresses of records, by the name of the adapter that is to learn from them."""
    return toys.two_tasks(platform, tmp_path_factory.mktemp("served"), "served")


@pytest.fixture(scope="module")
def skills(platform: Platform, base: str, data: dict[str, str]) -> Iterator[Manifest]:
    """A FineTune of two adapters, a QuantizedModel that has both beside its base, and where it is served."""
    tuned = finetune(platform, TUNED, base, data)
    quantized = resource(
        "QuantizedModel", NAME, model={"uri": base}, variants=[{"name": "cpu-int4", "embeddings": True}],
        adapters=[{"name": "irrigation", "fineTune": {"name": TUNED, "adapter": "irrigation"}},
                  {"name": "noise", "fineTune": {"name": TUNED, "adapter": "noise"}}],
        run={"nodeSelector": {"pool": "gpu"}, "retries": 0},
        output={"repository": f"{platform.registry}/slm/served"},
    )  # fmt: skip
    edge = resource("EdgeDeployment", NAME, model={"quantizedModel": {"name": NAME}}, pools=POOLS)
    platform.apply(quantized, edge, tuned)  # before there is anything that they refer to
    yield tuned
    for kind, name in (("edgedeployment", NAME), ("quantizedmodel", NAME), ("finetune", TUNED)):
        platform.kubectl("delete", kind, name, "-n", NAMESPACE, "--ignore-not-found")


def built(platform: Platform) -> Manifest:
    """The variant's status, once it is built from what the FineTune has now."""
    status = platform.wait("quantizedmodel", NAME, "Succeeded", "True", SECONDS)["status"]
    (variant,) = status["variants"]
    return {**variant, "inputs": status["inputs"]}


def servers(platform: Platform) -> list[Manifest]:
    return platform.kubectl.items("pods", "-l", f"slmops.dev/name={NAME},slmops.dev/role=serve", namespace=NAMESPACE)


def address(platform: Platform) -> str:
    return f"http://{servers(platform)[0]['status']['podIP']}:8080"


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def embedded(base: str, model: str) -> list[float]:
    body = json.dumps({"model": model, "input": "open the gate"}).encode()
    request = urllib.request.Request(f"{base}/v1/embeddings", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return list(json.load(answer)["data"][0]["embedding"])


def test_an_image_holds_the_model_and_a_layer_for_each_adapter(platform: Platform, skills: Manifest) -> None:
    variant = built(platform)
    tuned = platform.wait("finetune", TUNED, "Succeeded", "True", SECONDS)["status"]
    references = {row["name"]: row["reference"] for row in tuned["adapters"]}
    found = layers(platform, variant["reference"])
    assert list(found) == ["weights", "settings", "adapter.irrigation", "adapter.noise", "adapters", "graph"]
    for row in variant["adapters"]:
        assert row["layer"] == found[f"adapter.{row['name']}"]
        assert row["similarity"] > 0.9
        assert variant["inputs"][f"adapter.{row['name']}"] == f"oci://{references[row['name']]}"
    client = Registry(contract.Registry(plain_http=platform.cluster.plain_http))
    links = {(link.depth, link.role): link.uri for link in walk(client, variant["reference"])}
    assert links[1, "adapter.noise"] == f"oci://{references['noise']}"
    assert links[2, "base"] == links[1, "model"]


def test_each_request_chooses_its_adapter(platform: Platform, skills: Manifest) -> None:
    platform.wait("edgedeployment", NAME, "Ready", "True", SECONDS)
    base = address(platform)
    cards = json.loads(read(f"{base}/v1/models"))["data"]
    wanted = [(NAME, None), (f"{NAME}:irrigation", NAME), (f"{NAME}:noise", NAME)]
    assert [(card["id"], card.get("parent")) for card in cards] == wanted
    for model, _ in wanted:
        assert platform.chat(base, "hello", model)["model"] == model
    vectors = [embedded(base, model) for model in (NAME, NAME, f"{NAME}:noise")]
    assert vectors[0] == vectors[1] != vectors[2], "each adapter has its own"
    with pytest.raises(urllib.error.HTTPError) as refused:
        platform.chat(base, "hello", f"{NAME}:barn")
    assert refused.value.code == 404
    assert json.load(refused.value)["error"]["code"] == "model_not_found"
    assert 'slmops_runtime_adapter_answers_total{adapter="noise"} 1.0' in read(f"{base}/metrics")


def test_a_pool_answers_with_its_own_adapter_and_settings(platform: Platform, skills: Manifest) -> None:
    first = platform.wait("edgedeployment", NAME, "Ready", "True", SECONDS)["status"]["stable"]["revision"]
    own = {"adapter": "noise", "generation": {"temperature": 0, "maxLength": 128}}
    platform.patch("edgedeployment", NAME, {"pools": [POOLS[0] | own]})

    def other() -> bool:
        found = platform.status("edgedeployment", NAME)
        return found["stable"]["revision"] != first and not found.get("candidate")

    wait_for("another revision", other, SECONDS, lambda: platform.show("edgedeployment", NAME))
    wait_for("the old servers to go", lambda: first not in str(servers(platform)), 60)
    base = address(platform)
    said = [platform.chat(base, "hello", model)["choices"] for model in (NAME, NAME, f"{NAME}:noise")]
    assert said[0] == said[1] == said[2], "the likeliest token, of that adapter"
    assert 'slmops_runtime_adapter_answers_total{adapter="noise"} 3.0' in read(f"{base}/metrics")
    with pytest.raises(urllib.error.HTTPError) as refused:
        platform.chat(base, "hello " * 200, NAME)
    assert "maximum context length is 128 tokens" in json.load(refused.value)["error"]["message"]
    platform.patch("edgedeployment", NAME, {"pools": [POOLS[0] | {"adapter": "barn"}]})
    found = condition(platform.wait("edgedeployment", NAME, "InputsResolved", "False", 60), "InputsResolved")
    assert found["reason"] == "UnknownAdapter"
    assert "has no adapter barn, it has irrigation, noise" in found["message"]
    platform.patch("edgedeployment", NAME, {"pools": POOLS})


def test_a_changed_adapter_changes_its_own_layer_alone(platform: Platform, skills: Manifest) -> None:
    before = built(platform)
    skills["spec"]["adapters"][1]["lora"]["rank"] = 6
    platform.apply(skills)

    def anew() -> bool:
        row = (platform.kubectl.get("quantizedmodel", NAME) or {})["status"]["variants"][0]
        return row.get("phase") == "Ready" and row.get("reference") != before["reference"]

    wait_for("the image with the changed adapter", anew, SECONDS, lambda: platform.show("quantizedmodel", NAME))
    first, second = layers(platform, before["reference"]), layers(platform, built(platform)["reference"])
    assert {title for title in second if second[title] != first[title]} == {"adapter.noise", "adapters"}


def test_a_forged_adapter_is_refused_before_any_server_has_it(platform: Platform, tmp_path: Path) -> None:
    name = "hostile-adapter"
    (tmp_path / "model.onnx").write_bytes(adaptable(width=4))
    (tmp_path / "genai_config.json").write_text(json.dumps({"model": {"decoder": {"filename": "model.onnx"}}}))
    beside(tmp_path, {"forged": adapter(width=2)})
    files = {f"/models/{name}/{path.relative_to(tmp_path)}": path for path in tmp_path.rglob("*") if path.is_file()}
    client = Registry(contract.Registry(plain_http=platform.cluster.plain_http))
    sink = Sink(repository=f"{platform.registry}/slm/{name}")
    image = client.push_image(sink, [Layer(files)], {}, architecture="amd64")
    platform.apply(resource("EdgeDeployment", name, model={"image": image.reference}, pools=POOLS))
    found = condition(platform.wait("edgedeployment", name, "Promoted", "False", SECONDS), "Promoted")
    assert found["reason"] == "UnsafeSource", found
    assert "forged.onnx_adapter: q.lora_A.weight has another shape than the model's input" in found["message"]
    platform.kubectl("delete", "edgedeployment", name, "-n", NAMESPACE)
