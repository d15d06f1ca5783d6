"""What people do to the objects that the operator has made: it is mended, without a second Job beside the first."""

import json

import pytest

from demo.steps import Manifest, wait_for
from tests.e2e.platform import NAMESPACE, Platform

pytestmark = pytest.mark.cluster
NAME = "disturbed"
KINDS = ("configmap", "job", "persistentvolumeclaim", "service", "networkpolicy")
MINE = ("-l", f"slmops.dev/name={NAME}")
MANAGED_BY = "app.kubernetes.io/managed-by"


def finetune(platform: Platform) -> Manifest:
    """One that has a child of every kind, and whose pods no node takes."""
    return {
        "apiVersion": "slmops.dev/v1alpha1", "kind": "FineTune", "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "base": {"uri": f"oci://{platform.registry}/slm/teacher:v1"},
            "data": {"train": {"uri": f"oci://{platform.registry}/slm/data/none:v1"}},
            "run": {"nodes": 2, "volume": {"size": "10Mi"}, "egress": [], "nodeSelector": {"pool": "nowhere"}},
            "output": {"repository": f"{platform.registry}/slm/{NAME}"},
        },
    }  # fmt: skip


def test_what_somebody_did_to_its_children_is_mended_and_what_is_not_wanted_goes(platform: Platform) -> None:
    kubectl = platform.kubectl

    def children(*kinds: str) -> list[Manifest]:
        return kubectl.items(",".join(kinds or KINDS), *MINE)

    def show() -> str:
        return platform.show("finetune", NAME)

    platform.apply(finetune(platform))
    wait_for("a child of each kind", lambda: len(children()) == len(KINDS), 60, show)
    before = {child["kind"].lower(): child["metadata"] for child in children()}
    assert set(before) == set(KINDS)
    for kind, meta in before.items():
        # The operator does not see it any more: it finds it when it makes it again, and by its owner that it is its own.
        kubectl("label", kind, meta["name"], "-n", NAMESPACE, f"{MANAGED_BY}-")
        wait_for(f"the label of the {kind}", lambda kind=kind: any(
            child["metadata"]["labels"].get(MANAGED_BY) == "slmops" for child in children(kind)
        ), 60, show)  # fmt: skip
    assert {child["kind"].lower(): child["metadata"]["uid"] for child in children()} == {
        kind: meta["uid"] for kind, meta in before.items()
    }
    policy = ("networkpolicy", before["networkpolicy"]["name"], "-n", NAMESPACE)
    wanted = kubectl.get(*policy[:2])
    assert wanted is not None
    kubectl("patch", *policy, "--type=merge", "-p", json.dumps({"spec": {"egress": [{}]}}))
    wait_for("the policy as it was", lambda: (kubectl.get(*policy[:2]) or {}).get("spec") == wanted["spec"], 60, show)
    platform.patch("finetune", NAME, {"run": {"nodes": 1, "volume": None, "egress": None}})
    old = {meta["uid"] for meta in before.values()}

    def replaced() -> bool:
        found = children()
        return {m["kind"] for m in found} == {"ConfigMap", "Job"} and not old & {m["metadata"]["uid"] for m in found}

    wait_for("another Job, with its ConfigMap alone", replaced, 60, show)
    kubectl("delete", "finetune", NAME, "-n", NAMESPACE)
