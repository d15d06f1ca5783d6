"""The operator's rights against the audit log of all that ran before: this file is the last one by its name."""

import json
from collections.abc import Iterator

import pytest

from demo.steps import SYSTEM, Manifest
from tests.cluster import Cluster
from tests.e2e.chain import Seen
from tests.e2e.platform import Platform

pytestmark = pytest.mark.cluster
ACCOUNT = "slmops-operator"
USER = f"system:serviceaccount:{SYSTEM}:{ACCOUNT}"
Right = tuple[str, str, str]
"""API group, resource with its subresource, verb."""
CHILDREN = "test_what_somebody_did_to_its_children_is_mended_and_what_is_not_wanted_goes"
"""It takes their labels away: what exists where the cache does not show it is read, and applied if it is ours."""
LEFT_OUT: dict[tuple[str, str], tuple[str, str]] = {
    ("batch", "jobs"): ("get", CHILDREN),
    ("", "configmaps"): ("get patch", CHILDREN),
    ("", "persistentvolumeclaims"): ("get create patch delete", CHILDREN),
    ("", "services"): ("delete", CHILDREN),
    ("networking.k8s.io", "networkpolicies"): ("get create patch delete", CHILDREN),
    ("coordination.k8s.io", "leases"): ("create", "test_a_deleted_lease_is_made_again"),
    ("slmops.dev", "finetunes"): ("patch", "test_other_requests_are_a_breach_that_has_the_model_trained_again_once"),
    ("", "pods"): ("delete", "test_whatever_is_taken_away_the_training_learns_the_same"),
    ("apps", "daemonsets"): ("delete", "test_a_bad_model_is_stopped_at_the_first_wave_and_taken_back"),
}
"""Verbs that a chain does not use by itself, and the test that does. Nothing is exempt where that test ran."""
LEFT_OUT_RIGHTS: dict[Right, str] = {
    (*resource, verb): test for resource, (verbs, test) in LEFT_OUT.items() for verb in verbs.split()
}


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


def _not_run(request: pytest.FixtureRequest) -> set[Right]:
    """What cannot have been used, because the test that does was not chosen."""
    chosen = {getattr(item, "originalname", item.name) for item in request.session.items}
    return {right for right, test in LEFT_OUT_RIGHTS.items() if test not in chosen}


def test_the_operator_uses_every_right_that_it_has(
    platform: Platform, local: Cluster, chain: Seen, request: pytest.FixtureRequest
) -> None:
    used: set[Right] = set()
    for event in _requests(platform, local):
        what = event.get("objectRef")
        if what and event.get("responseStatus", {}).get("code", 500) not in (401, 403, 500):  # 404 is an answer too
            resource = "/".join(part for part in (what["resource"], what.get("subresource")) if part)
            used.add((what.get("apiGroup", ""), resource, event["verb"]))
            if (event["verb"], event["responseStatus"]["code"]) == ("patch", 201):
                used.add((what.get("apiGroup", ""), resource, "create"))  # an apply that made the object
    granted = _granted(platform)
    assert set(LEFT_OUT_RIGHTS) <= granted
    assert granted - used - _not_run(request) == set()


def test_the_operator_was_never_denied_anything(platform: Platform, local: Cluster, chain: Seen) -> None:
    codes = [(event["verb"], event["requestURI"], event.get("responseStatus", {}).get("code"))
             for event in _requests(platform, local)]  # fmt: skip
    assert len(codes) > 100
    assert [request for request in codes if request[2] in (401, 403)] == []
