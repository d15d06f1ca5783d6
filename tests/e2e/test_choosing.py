"""Variant Auto on the cluster: each class of hardware is measured with each variant, and serves what was best there."""

from collections.abc import Iterator

import pytest

from demo.steps import Manifest, condition, wait_for
from tests.e2e.chain import Seen
from tests.e2e.platform import NAMESPACE, Platform, deployment

pytestmark = pytest.mark.cluster
NAME, PORT = "choosy", 8121


@pytest.fixture
def chosen(platform: Platform, chain: Seen) -> Iterator[Manifest]:
    """An EdgeDeployment of both variants, once it serves."""
    chain.images("farm-irrigation")
    manifest = deployment(NAME, "", PORT, {"maxUnavailable": 2})
    data = {"uri": f"oci://{platform.registry}/slm/data/irrigation-benchmark:v1"}
    manifest["spec"] |= {
        "model": {"quantizedModel": {"name": "farm-irrigation"}},
        "pools": [{"name": "farms", "selector": {"matchLabels": {"pool": "farms"}}, "variant": "Auto"}],
        "benchmark": {"data": data, "rounds": 2, "warmup": 1, "prompts": 4, "maxNoise": "100%"},
        "gates": [{"metric": "ErrorRate", "max": 0}],
    }
    platform.apply(manifest)
    wait_for(f"{NAME} to serve", lambda: platform.status("edgedeployment", NAME).get("phase") == "Ready", 300,
             lambda: platform.show("edgedeployment", NAME))  # fmt: skip
    yield platform.status("edgedeployment", NAME)
    platform.kubectl("delete", "edgedeployment", NAME, "-n", NAMESPACE, "--ignore-not-found")


def test_each_class_serves_what_was_measured_to_be_best_there(
    platform: Platform, chain: Seen, chosen: Manifest
) -> None:
    images = chain.images("farm-irrigation")
    choices = {choice["hardware"]: choice for choice in chosen["choices"]}
    assert len(choices) == 2, "the edge nodes differ"
    for choice in choices.values():
        assert set(choice["speeds"]) == set(images), choice
        assert all(speed > 0 for speed in choice["speeds"].values())
        assert choice["image"] == images[choice["variant"]]
    assert {pool["name"] for pool in chosen["pools"]} == {f"farms.{hardware}" for hardware in choices}
    served: dict[str, set[str]] = {}
    for pod in platform.kubectl.items("pods", "-l", f"slmops.dev/name={NAME},slmops.dev/role=serve"):
        assert condition(pod, "Ready")["status"] == "True"
        (image,) = [v["image"]["reference"] for v in pod["spec"]["volumes"] if "image" in v]
        served.setdefault(pod["metadata"]["labels"]["slmops.dev/pool"], set()).add(image)
    assert served == {f"farms.{hardware}": {choice["image"]} for hardware, choice in choices.items()}
    left = platform.kubectl.items("jobs", "-l", f"slmops.dev/name={NAME},slmops.dev/role=choose")
    assert left == [], "what was chosen is in the status"
