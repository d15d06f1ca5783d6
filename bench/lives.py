"""What becomes of many FineTunes, seen from outside: their phases, as a watch tells them."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from bench.api import Api, Manifest

DATA = "sha256:" + "a" * 64


def path(namespace: str, name: str = "", subresource: str = "") -> str:
    """The URL path of FineTunes."""
    parts = ("/apis/slmops.dev/v1alpha1/namespaces", namespace, "finetunes", name, subresource)
    return "/".join(part for part in parts if part)


def fine_tune(namespace: str, index: int) -> Manifest:
    """One of the many: a LoRA run on a simulated node."""
    return {
        "apiVersion": "slmops.dev/v1alpha1",
        "kind": "FineTune",
        "metadata": {"name": f"tune-{index:05}", "namespace": namespace},
        "spec": {
            "base": {"uri": f"oci://registry.example/slm/base@{DATA}"},
            "lora": {"rank": 16, "alpha": 32, "dropout": 0},
            "data": {"train": {"uri": f"oci://registry.example/slm/data/farm-{index}@{DATA}", "path": "train.jsonl"}},
            "training": {"epochs": 5, "batchSize": 32, "learningRate": 5.0e-3},
            "run": {
                "nodeSelector": {"type": "kwok"},
                "tolerations": [{"key": "type", "value": "kwok", "effect": "NoSchedule"}],
            },
            "output": {"repository": f"registry.example/slm/farm-{index}"},
        },
    }


class Lives:
    """Follows the FineTunes of a namespace from the moment that ``follow`` has begun."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api, self._namespace = api, namespace
        self._phases: dict[str, str] = {}
        self._statuses: dict[str, Manifest] = {}
        self._changed = asyncio.Event()
        self.changes = 0
        """How often a phase became another, the first one counted too. Each write is an event, so none is missed."""
        self.others: Counter[str] = Counter()
        """Writes of a status that changed no phase, by what they did change: where a figure above 1 comes from."""
        self.began: float | None = None
        """When the first phase was seen, on the monotonic clock."""
        self.listed = asyncio.Event()

    async def follow(self) -> None:
        """Watch, for ever."""
        where = path(self._namespace)
        found = await self._api.get(where + "?limit=1")
        self.listed.set()
        async for type, body in self._api.watch(where, found["metadata"]["resourceVersion"]):
            if type == "MODIFIED":
                self._see(body)

    def _see(self, body: Manifest) -> None:
        name, status = body["metadata"]["name"], body.get("status") or {}
        before, phase = self._statuses.get(name, {}), status.get("phase")
        self._statuses[name] = status
        if not phase or phase == self._phases.get(name):
            if status != before:
                self.others[_changed(before, status)] += 1
            return
        if phase == "Failed":
            raise RuntimeError(f"{name} failed: {body['status'].get('conditions')}")
        self.began = self.began or time.monotonic()
        self._phases[name] = phase
        self.changes += 1
        self._changed.set()

    async def until(self, count: int, meets: Callable[[str], bool], check: Callable[[], Any], seconds: float) -> float:
        """The moment when so many are in a phase that meets it. ``check`` is called now and then, and may raise."""
        async with asyncio.timeout(seconds):
            while sum(map(meets, self._phases.values())) < count:
                self._changed.clear()
                try:
                    await asyncio.wait_for(self._changed.wait(), 1)
                except TimeoutError:
                    check()
                await asyncio.sleep(0.02)  # counting after each event would be a load of its own
        return time.monotonic()


def _changed(before: Manifest, after: Manifest) -> str:
    """What differs, as a phase and fields; a condition by its type."""
    fields = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)} - {"conditions"}
    known = {c["type"]: c for c in before.get("conditions") or []}
    fields |= {f"condition {c['type']}" for c in after.get("conditions") or [] if c != known.get(c["type"])}
    return f"{after.get('phase')}: {', '.join(sorted(fields))}"
