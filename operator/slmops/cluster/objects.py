"""Kubernetes objects as plain dictionaries: which kinds exist, how an object is named, and when two of them differ.

Everything here is pure. The operator works on dictionaries, not on generated classes: they are what the API server
sends and takes, and server-side apply needs to tell "absent" from "default".
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

Manifest = dict[str, Any]
Manifests = list[Manifest]

GROUP = "slmops.dev"
VERSION = "v1alpha1"
MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "slmops"
"""Value of the managed-by label on every child, and the field manager of server-side apply."""
OWNER_KIND = f"{GROUP}/kind"
OWNER_NAME = f"{GROUP}/name"
"""A child names its parent in these two labels, so that an event of the child finds the parent without a read."""
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True, slots=True)
class GVK:
    """A kind that the operator reads or writes, with all that is needed to build its URL."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """The manifest's ``apiVersion``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of the collection, of an object, or of an object's subresource."""
        parts = ["/apis" if self.group else "/api", self.api_version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/".join(parts)


@dataclass(frozen=True, slots=True)
class Key:
    """Names one resource of ours. The unit that a reconcile works on."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


JOB = GVK("batch", "v1", "Job", "jobs")
POD = GVK("", "v1", "Pod", "pods")
CONFIG_MAP = GVK("", "v1", "ConfigMap", "configmaps")
DAEMON_SET = GVK("apps", "v1", "DaemonSet", "daemonsets")
SERVICE = GVK("", "v1", "Service", "services")
PERSISTENT_VOLUME_CLAIM = GVK("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
NETWORK_POLICY = GVK("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
NODE = GVK("", "v1", "Node", "nodes", namespaced=False)
LEASE = GVK("coordination.k8s.io", "v1", "Lease", "leases")
EVENT = GVK("events.k8s.io", "v1", "Event", "events")
DISTILLATION = GVK(GROUP, VERSION, "Distillation", "distillations")
FINE_TUNE = GVK(GROUP, VERSION, "FineTune", "finetunes")
QUANTIZED_MODEL = GVK(GROUP, VERSION, "QuantizedModel", "quantizedmodels")
EDGE_DEPLOYMENT = GVK(GROUP, VERSION, "EdgeDeployment", "edgedeployments")

PARENTS = (DISTILLATION, FINE_TUNE, QUANTIZED_MODEL, EDGE_DEPLOYMENT)
CHILDREN = (JOB, POD, CONFIG_MAP, DAEMON_SET, SERVICE, PERSISTENT_VOLUME_CLAIM, NETWORK_POLICY)
KNOWN = {(gvk.api_version, gvk.kind): gvk for gvk in (*PARENTS, *CHILDREN, NODE, LEASE, EVENT)}


def gvk_of(manifest: Manifest) -> GVK:
    """The kind of a manifest. An unknown one is a programming error, hence the KeyError."""
    return KNOWN[manifest["apiVersion"], manifest["kind"]]


def parent_key(manifest: Manifest) -> Key | None:
    """The resource of ours that a child belongs to, by its labels. Only a hint: ownership is proven by UID."""
    metadata = manifest.get("metadata", {})
    labels = metadata.get("labels") or {}
    kind, name = labels.get(OWNER_KIND), labels.get(OWNER_NAME)
    if not kind or not name or not metadata.get("namespace"):
        return None
    return Key(kind, metadata["namespace"], name)


# --- what is worth keeping -----------------------------------------------------------------------------------------


def prune(gvk: GVK, body: Manifest) -> Manifest:
    """What the operator ever reads of an object, as a new dictionary; the rest is most of an object's memory."""
    metadata = {key: value for key, value in body.get("metadata", {}).items() if key != "managedFields"}
    annotations = metadata.get("annotations")
    if annotations and LAST_APPLIED in annotations:
        metadata["annotations"] = {key: value for key, value in annotations.items() if key != LAST_APPLIED}
    pruned = {**body, "apiVersion": gvk.api_version, "kind": gvk.kind, "metadata": metadata}
    if gvk is POD:
        spec = body.get("spec", {})
        kept: tuple[str, ...] = ("nodeName", "readinessGates", "schedulingGates")
        # Until a DaemonSet's pod is scheduled, its affinity is what tells the node that it is meant for.
        kept += () if spec.get("nodeName") else ("affinity",)
        pruned["spec"] = {key: spec[key] for key in kept if key in spec}
        metadata.pop("finalizers", None)
    elif gvk is JOB:
        # Its template never changes, and how it counts its pods is the Job controller's own affair.
        pruned["spec"] = {key: value for key, value in body.get("spec", {}).items() if key == "suspend"}
        status = body.get("status") or {}
        pruned["status"] = {key: status[key] for key in ("conditions", "completionTime") if key in status}
    elif gvk is NODE:
        _prune_node(pruned, body)
    return pruned


def _prune_node(pruned: Manifest, body: Manifest) -> None:
    """Kubelets refresh heartbeat times all day; without them a node that did not really change compares as equal."""
    spec, status = body.get("spec", {}), body.get("status", {})
    pruned["metadata"].pop("annotations", None)
    pruned["spec"] = {key: spec[key] for key in ("unschedulable", "taints") if key in spec}
    pruned["status"] = {key: status[key] for key in ("capacity", "allocatable", "addresses") if key in status} | {
        "conditions": [
            {key: condition[key] for key in ("type", "status", "reason", "lastTransitionTime") if key in condition}
            for condition in status.get("conditions") or ()
        ],
        "nodeInfo": {
            key: value
            for key, value in (status.get("nodeInfo") or {}).items()
            if key in ("architecture", "operatingSystem", "osImage", "kernelVersion", "containerRuntimeVersion")
        },
    }


# --- comparing -----------------------------------------------------------------------------------------------------

_QUANTITY_PARENTS = frozenset({"limits", "requests", "capacity", "allocatable", "hard"})
_QUANTITY_FIELDS = frozenset({"sizeLimit", "divisor"})
_SUFFIXES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal("1e3"), "M": Decimal("1e6"), "G": Decimal("1e9"), "T": Decimal("1e12"), "P": Decimal("1e15"),
    "E": Decimal("1e18"),
    **{prefix + "i": Decimal(1024) ** power for power, prefix in enumerate("KMGTPE", start=1)},
}  # fmt: skip
_MERGE_KEYS = ("name", "type", "uid", "mountPath")
"""What identifies an element in the lists of the Kubernetes API that are maps in disguise. Not ``key``: expressions of
selectors and tolerations are replaced as a whole, so one too many is a difference."""


def quantity(value: object) -> Decimal | None:
    """The number that a resource quantity stands for (``1500m``, ``1Gi``, ``2e3``), or None where it is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value).strip()
    number, suffix = text, ""
    for length in (2, 1):
        if text[-length:] in _SUFFIXES and not text[-length:].isdigit():
            number, suffix = text[:-length], text[-length:]
            break
    try:
        result = Decimal(number)
    except InvalidOperation:
        return None
    return result * _SUFFIXES[suffix] if result.is_finite() else None


def differs(desired: Manifest, live: Manifest) -> bool:
    """Whether applying ``desired`` would change ``live``: true unless ``live`` holds all that ``desired`` sets.

    Defaults and the fields of other managers may be there besides, but in what selects pods or keeps them from traffic:
    there something that is no longer wanted has to go. An empty value equals an absent one, because the API server drops
    most of them; ``False`` and ``0`` do not, because some of them guard something.
    """
    return not _covers(live, desired)


def status_differs(desired: Manifest, live: Manifest) -> bool:
    """Whether two resources' statuses differ. Ours alone, so a field that is no longer set is a difference too."""
    return not _same(desired.get("status"), live.get("status"))


def _covers(live: object, desired: object, name: str = "", parent: str = "") -> bool:
    """``name`` is the field that holds the values, and ``parent`` the one that holds that."""
    if isinstance(desired, str) and desired == live:  # as most of what there is
        return True
    if _empty(desired):
        return True
    if isinstance(desired, dict):
        if not isinstance(live, dict):
            return False
        return all(_covers(live.get(key), value, key, name) for key, value in desired.items()) and not any(
            key in live and not _same(live[key], desired.get(key))
            for key in ("selector", "readinessGates")
            if key in desired or (key == "readinessGates" and (parent, name) == ("template", "spec"))
        )
    if isinstance(desired, list | tuple):
        return isinstance(live, list) and _covers_list(live, desired, name, parent)
    if isinstance(desired, bool) or isinstance(live, bool):
        return desired is live
    if desired == live:
        return True
    if _is_quantity(name, parent):
        number = quantity(desired)
        return number is not None and number == quantity(live)
    return False


def _covers_list(live: list[Any], desired: list[Any] | tuple[Any, ...], name: str, parent: str) -> bool:
    merge_key = next((key for key in _MERGE_KEYS if _identifies(key, live) and _identifies(key, desired)), None)
    if merge_key:
        by_key = {item[merge_key]: item for item in live}
        return all(_covers(by_key.get(item[merge_key]), item, name, parent) for item in desired)
    if name == "finalizers":
        return set(desired) <= set(live)
    return len(live) == len(desired) and all(
        _covers(mine, wanted, name, parent) for mine, wanted in zip(live, desired, strict=True)
    )


def _identifies(key: str, items: Iterable[Any]) -> bool:
    """Whether ``key`` is set in every item, with a value of its own."""
    values = [item.get(key) if isinstance(item, dict) else None for item in items]
    return all(isinstance(value, str) for value in values) and len(set(values)) == len(values)


def _is_quantity(name: str, parent: str) -> bool:
    """Quantities are compared as numbers only where the API has quantities: "1" and "1000m" are different arguments."""
    return name in _QUANTITY_FIELDS or parent in _QUANTITY_PARENTS


def without_empty(value: Manifest) -> Manifest:
    """A manifest without its empty maps and lists, at any depth; items of lists stay."""

    def kept(part: Any) -> Any:
        if isinstance(part, dict):
            parts = {key: kept(item) for key, item in part.items()}
            return {key: item for key, item in parts.items() if item not in ({}, [])}
        return [kept(item) for item in part] if isinstance(part, list) else part

    return dict(kept(value))


def _empty(value: object) -> bool:
    return not value and (value is None or isinstance(value, str | dict | list | tuple))


def _same(one: object, other: object) -> bool:
    """Whether two values are equal but for empty parts of them. Truth is not one, nor a lie zero."""
    if isinstance(one, str) and one == other:  # as most of what there is
        return True
    if isinstance(one, dict) or isinstance(other, dict):
        left, right = _parts(one), _parts(other)
        if left is None or right is None:
            return False
        return all(_same(left.get(key), right.get(key)) for key in left.keys() | right.keys())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if _empty(one) or _empty(other):
        return _empty(one) and _empty(other)
    return one == other and (type(one) is bool) is (type(other) is bool)


def _parts(value: object) -> dict[str, Any] | None:
    """A map; an empty value is one without keys, and anything else is none."""
    if isinstance(value, dict):
        return value
    return {} if _empty(value) else None
