"""What an API server computes: its discovery, and what server-side apply makes of an object.

A field that a manager set before and does not set any more goes away; fields of others stay. Lists are replaced as a
whole, but for conditions, which are a map by type.
"""

from collections.abc import Iterable
from typing import Any

from slmops.cluster.objects import GVK
from tests.unit.copies import fresh

Object = dict[str, Any]
SEEN_BY_KOPF = (
    GVK("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False),
    GVK("", "v1", "Namespace", "namespaces", namespaced=False),
)
"""kopf wants to know of these, though it reads none of them here."""


def applied(live: Object, wanted: Object, before: Object) -> Object:
    """``live`` after a manager applied ``wanted``, who had applied ``before``."""
    result = fresh(live)
    _drop(result, before, wanted)
    return merged(result, fresh(wanted))


def merged(target: Any, patch: Any) -> Any:
    """A merge patch: null removes. Changes ``target``."""
    if not isinstance(patch, dict) or not isinstance(target, dict):
        return patch
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif key == "conditions" and isinstance(target.get(key), list):
            rest = [item for item in target[key] if item["type"] not in {new["type"] for new in value}]
            target[key] = rest + value
        else:
            target[key] = merged(target.get(key), value)
    return target


def _drop(target: Object, before: Object, wanted: Object) -> None:
    for key, value in before.items():
        old, new = target.get(key), wanted.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            _drop(old, value, new if isinstance(new, dict) else {})
            if not old and key not in wanted:
                del target[key]
        elif key == "conditions" and isinstance(old, list):
            gone = {item["type"] for item in value} - {item["type"] for item in new or ()}
            target[key] = [item for item in old if item["type"] not in gone]
            if not target[key]:
                del target[key]
        elif key not in wanted:
            target.pop(key, None)


def discovery(served: Iterable[GVK], parts: list[str]) -> Any:
    """The answer to a path of discovery: which groups there are, or which kinds a group has; None for other paths."""
    groups = {gvk.group: gvk.version for gvk in served} | {"apiextensions.k8s.io": "v1"}
    if parts == ["api"]:
        return {"versions": ["v1"]}
    if parts == ["apis"]:
        versions = {group: {"version": version} for group, version in groups.items() if group}
        return {"groups": [{"name": g, "versions": [v], "preferredVersion": v} for g, v in versions.items()]}
    group = "" if parts[:1] == ["api"] else parts[1]
    expected = ["api", "v1"] if not group else ["apis", group, groups.get(group)]
    if parts != expected:
        return None
    verbs = ["list", "watch", "get", "patch", "create", "update", "delete"]
    resources = [
        {"name": gvk.plural, "singularName": "", "kind": gvk.kind, "namespaced": gvk.namespaced, "verbs": verbs}
        for gvk in (*served, *SEEN_BY_KOPF)
        if gvk.group == group
    ]
    return {"kind": "APIResourceList", "resources": resources}
