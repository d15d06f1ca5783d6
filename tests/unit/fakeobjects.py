"""The objects of a cluster and the watches on them, as an API server keeps them: versions, UIDs, history, streams."""

import asyncio
import contextlib
import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from slmops.cluster.objects import GVK, PARENTS, Manifest
from tests.unit.copies import fresh


def line(event: Any) -> bytes:
    """A watch event as the API server writes it."""
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


@dataclass
class Stream:
    """An open watch: what it selects, and the lines that it has still to get; None ends it."""

    selected: Callable[[Manifest], bool]
    lines: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)
    frozen: bool = False


class Objects:
    """What there is, what it was, and who watches."""

    def __init__(self) -> None:
        self.objects: dict[GVK, dict[tuple[str, str], Manifest]] = defaultdict(dict)
        self.version = 99
        self.oldest = 0
        """Versions below this are compacted: watching from there is 410 Gone."""
        self.applied: dict[tuple[GVK, tuple[str, str], str, str], Manifest] = {}
        """What each manager has applied last, by kind, key, manager and subresource."""
        self._history: dict[GVK, list[tuple[int, str, Manifest, Manifest | None]]] = defaultdict(list)
        self._streams: dict[GVK, list[Stream]] = defaultdict(list)
        self._version = itertools.count(100)
        self._uid = itertools.count(1)

    # --- what happens in the cluster without us

    def put(self, gvk: GVK, name: str, namespace: str = "farm", quiet: bool = False, **fields: Any) -> Manifest:
        """Create or change an object; ``quiet`` keeps its event from the watches."""
        key = (namespace if gvk.namespaced else "", name)
        old = self.objects[gvk].get(key)
        fields = fresh(fields)
        metadata = {**(old or {}).get("metadata", {}), **fields.pop("metadata", {}), "name": name}
        if gvk.namespaced:
            metadata["namespace"] = namespace
        body = {**(old or {}), **fields, "apiVersion": gvk.api_version, "kind": gvk.kind, "metadata": metadata}
        return self.record(gvk, "MODIFIED" if old else "ADDED", key, body, quiet)

    def drop(self, gvk: GVK, name: str, namespace: str = "farm", quiet: bool = False) -> None:
        """Delete an object."""
        key = (namespace if gvk.namespaced else "", name)
        self.record(gvk, "DELETED", key, self.objects[gvk][key], quiet)

    def get(self, gvk: GVK, name: str, namespace: str = "farm") -> Manifest:
        """A copy of an object."""
        return fresh(self.objects[gvk][namespace if gvk.namespaced else "", name])

    def all(self, gvk: GVK) -> list[Manifest]:
        """Copies of all objects of a kind."""
        return fresh(list(self.objects[gvk].values()))

    def record(self, gvk: GVK, type: str, key: tuple[str, str], body: Manifest, quiet: bool = False) -> Manifest:
        """Make a change, and tell the watches of it unless it is ``quiet``."""
        self.version = next(self._version)
        old = self.objects[gvk].pop(key, None)
        body = fresh(body)
        metadata = body["metadata"]
        metadata["resourceVersion"] = str(self.version)
        metadata.setdefault("uid", f"uid-{next(self._uid)}")
        if gvk in PARENTS:
            generation = old["metadata"]["generation"] if old else 0
            metadata["generation"] = generation + (old is None or old.get("spec") != body.get("spec"))
        if type == "DELETED":
            self.applied = {known: value for known, value in self.applied.items() if known[:2] != (gvk, key)}
        else:
            self.objects[gvk][key] = body
        if not quiet:
            self._history[gvk].append((self.version, type, body, old))
            for stream in self._streams[gvk]:
                tell(stream, type, body, old)
        return fresh(body)

    # --- what happens to the watches

    def send(self, gvk: GVK, *parts: bytes) -> None:
        """Write something on the open watches of a kind, in separate chunks."""
        for stream in self._streams[gvk]:
            for part in parts:
                stream.lines.put_nowait(part)

    def send_error(self, gvk: GVK, code: int) -> None:
        """An error event, as the API server sends when something is wrong with a watch."""
        error = {"kind": "Status", "apiVersion": "v1", "code": code, "reason": "x", "message": "x"}
        self.send(gvk, line({"type": "ERROR", "object": error}))

    def compact(self) -> None:
        """Forget all history and break all streams: whoever watches has to list again."""
        self.version = next(self._version)
        self.oldest = self.version
        self._history.clear()
        self.cut()

    def cut(self) -> None:
        """End all streams."""
        for streams in self._streams.values():
            for stream in streams:
                stream.lines.put_nowait(None)

    def freeze(self) -> None:
        """From now on nothing comes out of the watches that are open, though their connections stay."""
        for streams in self._streams.values():
            for stream in streams:
                stream.frozen = True

    def streams(self, gvk: GVK) -> int:
        """How many watches of a kind are open."""
        return len(self._streams[gvk])

    @contextlib.contextmanager
    def watched(self, gvk: GVK, selected: Callable[[Manifest], bool], since: int) -> Iterator[Stream]:
        """A watch that gets what has happened after a version, and what happens from now on."""
        stream = Stream(selected)
        for version, type, body, old in self._history[gvk]:
            if version > since:
                tell(stream, type, body, old)
        self._streams[gvk].append(stream)
        try:
            yield stream
        finally:
            self._streams[gvk].remove(stream)


def tell(stream: Stream, type: str, body: Manifest, old: Manifest | None) -> None:
    """Tell a watch of a change, as its selector sees it: what is no longer selected is deleted, for this watch."""
    before, after = old is not None and stream.selected(old), type != "DELETED" and stream.selected(body)
    if before and not after:
        last = {**(old or {}), "metadata": {**(old or {})["metadata"]}}
        last["metadata"]["resourceVersion"] = body["metadata"]["resourceVersion"]
        stream.lines.put_nowait(line({"type": "DELETED", "object": last}))
    elif after:
        stream.lines.put_nowait(line({"type": "MODIFIED" if before else "ADDED", "object": body}))
