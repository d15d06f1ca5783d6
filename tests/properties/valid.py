"""What every plan must be, whatever it is for."""

import json
import re
from typing import Any

from slmops.api.resource import Resource
from slmops.cluster.objects import CHILDREN, OWNER_KIND, OWNER_NAME
from slmops.state import LABEL_MANAGED_BY, Manifest, Plan

NAME = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
LABEL = r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
KINDS = {gvk.kind: gvk.api_version for gvk in CHILDREN}


def check_plan(plan: Plan, resource: Resource[Any, Any]) -> None:
    """Names, owners, labels, pods; nothing twice; nothing removed or changed that is not ours."""
    names = [(child["kind"], child["metadata"]["name"]) for child in plan.apply]
    assert len(names) == len(set(names)), "a child twice"
    gone = [(child["kind"], child["metadata"]["name"]) for child in plan.remove]
    assert not set(names) & set(gone), "applied and removed"
    for child in plan.apply:
        check_child(child, resource)
    json.dumps([*plan.apply, *(dict(a) for _, a in plan.annotate), *(dict(c) for _, c in plan.pod_conditions)])


def check_child(child: Manifest, resource: Resource[Any, Any]) -> None:
    """One child."""
    meta = child["metadata"]
    assert child["apiVersion"] == KINDS[child["kind"]]
    parts = [meta["name"]] if child["kind"] == "Service" else meta["name"].split(".")  # of a class: POOL.CLASS
    assert all(re.fullmatch(NAME, part) for part in parts), meta["name"]
    assert len(meta["name"]) <= 63
    assert meta["namespace"] == resource.metadata.namespace
    assert meta["ownerReferences"] == [resource.owner_reference()]
    _labels(meta["labels"])
    assert meta["labels"][LABEL_MANAGED_BY] == "slmops"
    assert meta["labels"][OWNER_KIND] == resource.kind()
    assert meta["labels"][OWNER_NAME] == resource.metadata.name
    template = child.get("spec", {}).get("template")
    if template:
        _labels(template["metadata"]["labels"])
        selector = child["spec"].get("selector", {}).get("matchLabels", {})
        assert selector.items() <= template["metadata"]["labels"].items()
        check_pod(template["spec"])


def check_pod(spec: Manifest) -> None:
    """Pod Security *restricted*, and no way to the API server."""
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    volumes = {volume["name"] for volume in spec["volumes"]}
    assert len(volumes) == len(spec["volumes"]), "two volumes of one name"
    for volume in spec["volumes"]:
        assert len(volume) == 2
        assert volume.keys() - {"name"} <= {"configMap", "emptyDir", "secret", "persistentVolumeClaim", "image"}
    containers = [*spec["containers"], *spec.get("initContainers", ())]
    for container in containers:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert len(mounts) == len(set(mounts)), "two mounts at one path"
        assert "memory" in container["resources"]["limits"]
    assert {mount["name"] for container in containers for mount in container["volumeMounts"]} == volumes


def _labels(labels: Manifest) -> None:
    for value in labels.values():
        assert re.fullmatch(LABEL, value), value
        assert len(value) <= 63
