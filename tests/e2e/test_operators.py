"""The operator's replicas: who leads, how they are confined, and that they have the rights they use and no other."""

import json
from collections.abc import Iterator

import pytest

from demo.steps import SYSTEM, Manifest, wait_for
from tests.cluster import Cluster
from tests.e2e.chain import Seen
from tests.e2e.platform import LEASE, NAMESPACE, Platform

pytestmark = pytest.mark.cluster
ACCOUNT = "slmops-operator"
USER = f"system:serviceaccount:{SYSTEM}:{ACCOUNT}"
Right = tuple[str, str, str]
"""API group, resource with its subresource, verb."""
EXISTS = (
    "what exists where the cache did not show it is read, and applied if it is ours: a leader was killed in between"
)
RARE: dict[Right, str] = {
    ("batch", "jobs", "get"): EXISTS,
    ("", "configmaps", "get"): EXISTS,
    ("", "configmaps", "patch"): EXISTS,
    ("", "persistentvolumeclaims", "get"): EXISTS,
    ("", "persistentvolumeclaims", "patch"): EXISTS,
    ("", "persistentvolumeclaims", "create"): "run.volume: test_resume has one, a chain has none",
    ("", "persistentvolumeclaims", "delete"): "run.volume: test_resume has one, a chain has none",
    ("", "services", "delete"): "run.nodes: a training on several nodes that is no longer wanted",
    ("networking.k8s.io", "networkpolicies", "get"): EXISTS,
    ("networking.k8s.io", "networkpolicies", "create"): "run.egress: test_trust has one, a chain has none",
    ("networking.k8s.io", "networkpolicies", "patch"): "run.egress: a policy that somebody changed is mended",
    ("networking.k8s.io", "networkpolicies", "delete"): "run.egress: a list that is not wanted any more",
    ("coordination.k8s.io", "leases", "create"): "the chart brings the Lease; one that is deleted is made anew",
    ("apps", "daemonsets", "delete"): "a revision that was rolled back: test_chain has one, a chain has none",
}
"""Rights that a chain does not use by itself, and what they are for."""


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
        assert pod["spec"]["automountServiceAccountToken"] is False, pod["metadata"]["name"]
        assert not [v for v in pod["spec"]["volumes"] if "projected" in v or "hostPath" in v], pod["metadata"]["name"]


# --- rights


def _granted(platform: Platform) -> set[Right]:
    """All that any role bound to the operator's account allows."""
    kubectl = platform.kubectl
    found: set[Right] = set()
    for binding in kubectl.items("rolebindings,clusterrolebindings", "-A"):
        subjects = [(s["kind"], s.get("namespace"), s["name"]) for s in binding.get("subjects") or []]
        if ("ServiceAccount", SYSTEM, ACCOUNT) not in subjects:
            continue
        role = kubectl.get(
            binding["roleRef"]["kind"], binding["roleRef"]["name"], binding["metadata"].get("namespace", "")
        )
        assert role is not None, binding["roleRef"]
        for rule in role["rules"]:
            found |= {(g, r, v) for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}
    return found


def _requests(platform: Platform, local: Cluster) -> Iterator[Manifest]:
    """What the operator asked of the API server since the tests began, as the audit log has it."""
    begun = platform.begun.isoformat(timespec="microseconds")
    for file in sorted(local.audit_log.parent.glob("audit*.log")):
        with file.open() as lines:
            for line in lines:
                if USER in line:
                    event = json.loads(line)
                    if event["user"]["username"] == USER and event["requestReceivedTimestamp"] >= begun:
                        yield event


def test_the_operator_uses_every_right_that_it_has(platform: Platform, local: Cluster, chain: Seen) -> None:
    used: set[Right] = set()
    for event in _requests(platform, local):
        what = event.get("objectRef")
        if what and event.get("responseStatus", {}).get("code", 500) not in (401, 403, 500):  # 404 is an answer too
            resource = "/".join(part for part in (what["resource"], what.get("subresource")) if part)
            used.add((what.get("apiGroup", ""), resource, event["verb"]))
            if (event["verb"], event["responseStatus"]["code"]) == ("patch", 201):
                used.add((what.get("apiGroup", ""), resource, "create"))  # an apply that made the object
    granted = _granted(platform)
    assert set(RARE) <= granted
    assert granted - used - set(RARE) == set()


def test_the_operator_was_never_denied_anything(platform: Platform, local: Cluster, chain: Seen) -> None:
    codes = [(event["verb"], event["requestURI"], event.get("responseStatus", {}).get("code"))
             for event in _requests(platform, local)]  # fmt: skip
    assert len(codes) > 100
    assert [request for request in codes if request[2] in (401, 403)] == []
