"""Strategies on the cluster: one write switches all requests, and another one back; a node that holds one server only."""

import json
import threading
import urllib.request
from collections.abc import Iterator

import pytest

from demo.steps import Manifest, wait_for
from tests.e2e.chain import Seen
from tests.e2e.platform import NAMESPACE, Platform, deployment

pytestmark = pytest.mark.cluster
NAME, PORT, SINGLE = "two-colours", 30091, "one-at-a-time"


@pytest.fixture(scope="module")
def images(platform: Platform, chain: Seen) -> Iterator[list[str]]:
    """Two model images."""
    yield list(chain.images("farm-irrigation").values())
    platform.kubectl("delete", "edgedeployment", NAME, SINGLE, "-n", NAMESPACE, "--ignore-not-found")


def deployed(image: str) -> Manifest:
    return deployment(NAME, image, 8091, {"type": "BlueGreen", "maxUnavailable": 2, "hold": "1h"}, nodePort=PORT)


def status(platform: Platform) -> Manifest:
    return platform.status("edgedeployment", NAME)


def revision(platform: Platform, role: str) -> str:
    return str((status(platform).get(role) or {}).get("revision"))


class Client:
    """Asks the Service which revision answers, all the time."""

    def __init__(self, platform: Platform) -> None:
        (address,) = [
            found["address"]
            for found in (platform.kubectl.get("node", "edge1") or {})["status"]["addresses"]
            if found["type"] == "InternalIP"
        ]
        self._url = f"http://{address}:{PORT}/v1/models"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answers: list[str] = []

    def __enter__(self) -> "Client":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            try:
                with urllib.request.urlopen(self._url, timeout=5) as answer:
                    self.answers.append(json.load(answer)["data"][0]["revision"])
            except OSError as error:
                self.answers.append(f"failed: {error}")


def test_all_requests_go_to_one_revision_and_are_switched_and_switched_back_at_once(
    platform: Platform, images: list[str]
) -> None:
    platform.apply(deployed(images[0]))
    wait_for("the first one serves", lambda: status(platform).get("phase") == "Ready", 180,
             lambda: platform.show("edgedeployment", NAME))  # fmt: skip
    blue = revision(platform, "stable")
    with Client(platform) as client:
        wait_for("an answer", lambda: client.answers[-1:] == [blue], 30, lambda: str(client.answers[-5:]))
        platform.apply(deployed(images[1]))
        wait_for("a candidate", lambda: revision(platform, "candidate") not in ("None", blue), 30)
        green = revision(platform, "candidate")
        wait_for("the switch", lambda: client.answers[-1] == green, 240, lambda: platform.show("edgedeployment", NAME))
        platform.annotate("edgedeployment", NAME, abort=green)
        wait_for("the switch back", lambda: client.answers[-1] == blue, 10, lambda: str(client.answers[-20:]))
        wait_for("its end", lambda: status(platform).get("phase") == "Degraded", 60)
    turns = [now for before, now in zip([None, *client.answers], client.answers, strict=False) if now != before]
    assert turns == [blue, green, blue], "no request failed, and none went astray"


def test_a_node_that_holds_one_server_never_has_two(platform: Platform, images: list[str]) -> None:
    def one_at_a_time(image: str) -> Manifest:
        made = deployment(SINGLE, image, 8092, {"cutOver": "StopThenDownload"})
        data = {"uri": f"oci://{platform.registry}/slm/data/irrigation-benchmark:v1"}
        made["spec"] |= {
            "benchmark": {"data": data, "rounds": 2, "warmup": 1, "prompts": 4, "maxNoise": "100%"},
            "gates": [{"metric": "TokensPerSecond", "maxRegression": "99%"}, {"metric": "ErrorRate", "max": 0}],
        }
        return made

    def serves(image: str) -> bool:
        told = platform.status("edgedeployment", SINGLE)
        return told.get("phase") == "Ready" and image in str((told.get("stable") or {}).get("images"))

    def show() -> str:
        return platform.show("edgedeployment", SINGLE)

    platform.apply(one_at_a_time(images[0]))
    wait_for("the first one serves", lambda: serves(images[0]), 240, show)
    platform.apply(one_at_a_time(images[1]))
    most = 0

    def done() -> bool:
        nonlocal most
        pods = platform.kubectl.items("pods", "-l", f"slmops.dev/name={SINGLE},slmops.dev/role=serve")
        running = [pod["spec"].get("nodeName") for pod in pods if not pod["metadata"].get("deletionTimestamp")]
        most = max(most, *(running.count(node) for node in running), 0)
        return serves(images[1])

    wait_for("the second one serves", done, 300, show, pause=0.3)
    assert most == 1
    gates = [
        gate
        for pool in platform.status("edgedeployment", SINGLE)["pools"]
        for c in pool["classes"]
        for gate in c["gates"]
    ]
    assert any("measured before it was stopped" in (gate.get("interval") or "") for gate in gates), gates
