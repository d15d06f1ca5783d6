"""An intake, whom it woke, and objects that it is told of."""

from typing import Any

from slmops.__main__ import _references as references
from slmops.cluster.cache import Cache
from slmops.cluster.objects import GVK, MANAGED_BY, MANAGER, Key, Manifest
from slmops.intake import Intake

A, B = Key("FineTune", "farm", "a"), Key("FineTune", "farm", "b")


class Desk:
    """An intake, and whom it woke."""

    def __init__(self) -> None:
        self.cache = Cache(refers_to=references)
        self.woken: list[tuple[Key, float]] = []
        self.told: list[tuple[str, str]] = []
        self.intake = Intake(self.cache, lambda key, after: self.woken.append((key, after)), told=self._tell)
        self._versions = iter(range(10, 10**6))

    def _tell(self, kind: str, effect: str) -> None:
        self.told.append((kind, effect))

    def event(self, gvk: GVK, type: str | None, name: str, version: int | None = None, **fields: Any) -> set[Key]:
        """Tell of an event; returns whom it woke."""
        metadata = {"name": name, "resourceVersion": str(version or next(self._versions)), **fields.pop("metadata", {})}
        if gvk.namespaced:
            metadata.setdefault("namespace", "farm")
        before = len(self.woken)
        self.intake.event(gvk, type, {"apiVersion": gvk.api_version, "kind": gvk.kind, "metadata": metadata, **fields})
        return {key for key, _ in self.woken[before:]}


def owned_by(name: str, kind: str = "FineTune", **labels: str) -> Manifest:
    """Metadata of a child."""
    return {"labels": {MANAGED_BY: MANAGER, "slmops.dev/kind": kind, "slmops.dev/name": name, **labels}}


def node(ready: str = "True", beat: str = "1", **labels: str) -> dict[str, Any]:
    """A node's status, with a heartbeat."""
    condition = {"type": "Ready", "status": ready, "lastHeartbeatTime": beat}
    return {"metadata": {"labels": labels}, "status": {"conditions": [condition]}}
