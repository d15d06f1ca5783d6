"""The operator's replicas: who leads, and how they and the pods of their Jobs are confined."""

import pytest

from demo.steps import SYSTEM, Manifest, wait_for
from tests.e2e.chain import Seen
from tests.e2e.platform import LEASE, NAMESPACE, Platform

pytestmark = pytest.mark.cluster


def test_of_two_replicas_one_leads(platform: Platform) -> None:
    pods = platform.settle()
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2, "both on one node"
    leading = [pod["metadata"]["name"] for pod in pods if platform.metrics(pod)["slmops_leader"]]
    assert leading == [platform.leader()["metadata"]["name"]]


def test_a_leader_that_is_told_to_stop_hands_over_at_once(platform: Platform) -> None:
    platform.settle()
    pod = platform.leader()["metadata"]["name"]

    def ended() -> Manifest:
        """How the container ended last."""
        found = platform.kubectl.get("pod", pod, SYSTEM) or {}
        return dict(found["status"]["containerStatuses"][0]["lastState"].get("terminated") or {})

    before = ended()
    assert platform.end_leader(hard=False) <= 3
    wait_for("the container's end in its pod's status", lambda: ended() != before, 30)
    assert ended()["exitCode"] == 0


def test_a_leader_that_is_killed_is_replaced(platform: Platform) -> None:
    platform.settle()
    assert platform.end_leader(hard=True) <= 15
    platform.settle()


def test_a_deleted_lease_is_made_again(platform: Platform) -> None:
    before = (platform.kubectl.get("lease", LEASE, SYSTEM) or {})["metadata"]["uid"]
    platform.kubectl("delete", "lease", LEASE, "-n", SYSTEM)
    wait_for("a Lease with a holder", lambda: bool(platform.lease().get("holderIdentity")), 30)
    assert (platform.kubectl.get("lease", LEASE, SYSTEM) or {})["metadata"]["uid"] != before
    assert platform.leader()


def test_every_pod_of_ours_is_as_restricted_as_can_be(platform: Platform, chain: Seen) -> None:
    """Namespaces that enforce *restricted* let them in; the rest is ours to see to."""
    for namespace in (NAMESPACE, SYSTEM):
        found = platform.kubectl.get("namespace", namespace) or {}
        assert found["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    workers = platform.kubectl.items("pods", "-l", "app.kubernetes.io/managed-by=slmops")
    roles = {pod["metadata"]["labels"]["slmops.dev/role"].partition("-")[0] for pod in workers}
    assert {"label", "train", "q", "serve"} <= roles, roles
    for pod in workers + platform.operators():
        where, spec = pod["metadata"]["name"], pod["spec"]
        (container,) = spec["containers"]
        assert not spec.get("initContainers"), where
        assert container["securityContext"]["readOnlyRootFilesystem"], where
        assert "@sha256:" in container["image"], where
        assert container["resources"]["limits"]["memory"], where
        assert not container.get("env"), where
    for pod in workers:
        where, volumes = pod["metadata"]["name"], pod["spec"]["volumes"]
        assert pod["spec"]["automountServiceAccountToken"] is False, where
        assert not [volume for volume in volumes if "hostPath" in volume], where
        for projected in (volume["projected"] for volume in volumes if "projected" in volume):
            (token,) = projected["sources"]  # who signs as a service account has one that the API server does not take
            assert token["serviceAccountToken"]["audience"] == "sigstore", where
