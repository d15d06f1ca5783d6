"""What the watches have told so far, small enough for tens of thousands of objects.

Bodies are pruned and kept as compressed JSON (about a tenth of the memory of dictionaries), so every read returns a
fresh copy that the caller may change. Events arrive late, twice and out of order, and a list may be older than an
event: an object never goes back to an older version, and a deleted one does not come back from an old list.

What we write ourselves is known at once (``wrote``), so that the next pass does not write it again. Somebody else's
change may hide in the same version, and its event then looks old: such a version counts as unseen until the watch
has told of it.
"""

import json
import zlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from slmops.cluster.objects import GVK, Key, Manifest, Manifests, parent_key, prune

K = TypeVar("K")
V = TypeVar("V")
Keys = list[Key]
Name = tuple[str, str]
"""Namespace ("" for cluster-scoped objects) and name."""
TOMBSTONES = 4096
"""Deletions remembered per kind; they matter only while an older list is still being read."""


@dataclass(slots=True, frozen=True)
class _Entry:
    version: str
    blob: bytes
    parent: Key | None
    refers_to: frozenset[Key]
    unseen: bool = False
    """We wrote this version, and there may be more in it than what we wrote."""


class _Store:
    """All objects of one kind."""

    __slots__ = ("children", "deleted", "entries")

    def __init__(self) -> None:
        self.entries: dict[Name, _Entry] = {}
        self.children: defaultdict[Key, set[Name]] = defaultdict(set)
        self.deleted: OrderedDict[Name, str] = OrderedDict()


class Cache:
    """Last known state of everything that is watched."""

    def __init__(self, refers_to: Callable[[GVK, Manifest], Iterable[Key]] | None = None) -> None:
        """``refers_to`` names the resources that a body refers to; it feeds ``referrers``."""
        self._stores: defaultdict[GVK, _Store] = defaultdict(_Store)
        self._referrers: defaultdict[Key, set[Key]] = defaultdict(set)
        self._refers_to = refers_to

    # --- feeding it

    def put(self, gvk: GVK, body: Manifest) -> bool:
        """Take in a body. True when something changed that the operator can see."""
        known = self._stores[gvk].entries.get(_name(body))
        if known is not None and known.unseen:
            # Also an older version tells that something happened that no pass has looked at yet.
            if not self._store(gvk, body) and _version(body) == known.version:
                self._stores[gvk].entries[_name(body)] = replace(known, unseen=False)
            return True
        return self._store(gvk, body)

    def wrote(self, gvk: GVK, body: Manifest) -> None:
        """Take in the API server's answer to our own write. Its event is news only if there may be more in it."""
        known = self._stores[gvk].entries.get(_name(body))
        if self._store(gvk, body):
            entry = self._stores[gvk].entries[_name(body)]
            ours_alone = known is not None and not known.unseen and _sans_status(known) == _sans_status(entry)
            self._stores[gvk].entries[_name(body)] = replace(entry, unseen=not ours_alone)

    def _store(self, gvk: GVK, body: Manifest) -> bool:
        store, name, version = self._stores[gvk], _name(body), _version(body)
        known = store.entries.get(name)
        if known is not None and not _newer(version, known.version):
            return False
        if known is None and name in store.deleted and not _newer(version, store.deleted[name]):
            return False
        pruned = prune(gvk, body)
        pruned["metadata"].pop("resourceVersion", None)
        blob = zlib.compress(json.dumps(pruned, separators=(",", ":")).encode(), 1)
        if known is not None and known.blob == blob:
            store.entries[name] = replace(known, version=version, unseen=False)
            return False
        refers_to = frozenset(self._refers_to(gvk, pruned)) if self._refers_to else frozenset()
        self._index(gvk, name, known, entry := _Entry(version, blob, parent_key(pruned), refers_to))
        store.entries[name] = entry
        store.deleted.pop(name, None)
        return True

    def remove(self, gvk: GVK, body: Manifest) -> bool:
        """Forget an object, given its last body. True when it was known."""
        known, version = self._stores[gvk].entries.get(_name(body)), _version(body)
        if known is not None and known.version != version and not _newer(version, known.version):
            return False  # it has been created again since
        return self._remove(gvk, _name(body), version)

    def replace(
        self, gvk: GVK, bodies: Iterable[Manifest], version: str = "", namespace: str | None = None
    ) -> Manifests:
        """Take in a complete list, of one namespace or of all; returns the bodies that changed or went away."""
        relist = Relist(self, gvk, namespace)
        changed = relist.add(bodies)
        return changed + relist.finish(version)

    def _remove(self, gvk: GVK, name: Name, version: str) -> bool:
        store = self._stores[gvk]
        store.deleted[name] = version
        store.deleted.move_to_end(name)
        while len(store.deleted) > TOMBSTONES:
            store.deleted.popitem(last=False)
        entry = store.entries.pop(name, None)
        if entry is not None:
            self._index(gvk, name, entry, None)
        return entry is not None

    def _index(self, gvk: GVK, name: Name, old: _Entry | None, new: _Entry | None) -> None:
        children = self._stores[gvk].children
        if old and old.parent and not (new and new.parent == old.parent):
            _discard(children, old.parent, name)
        if new and new.parent:
            children[new.parent].add(name)
        me = Key(gvk.kind, *name)
        before, after = (old.refers_to if old else frozenset()), (new.refers_to if new else frozenset())
        for key in before - after:
            _discard(self._referrers, key, me)
        for key in after - before:
            self._referrers[key].add(me)

    # --- asking it

    def get(self, gvk: GVK, namespace: str | None, name: str) -> Manifest | None:
        """One object, or None."""
        entry = self._stores[gvk].entries.get((namespace or "", name))
        return _body(entry) if entry else None

    def list(self, gvk: GVK, namespace: str | None = None) -> Manifests:
        """All objects of a kind, sorted by namespace and name."""
        return [_body(self._stores[gvk].entries[name]) for name in sorted(self.names(gvk, namespace))]

    def names(self, gvk: GVK, namespace: str | None = None) -> Iterator[Name]:
        """Namespace and name of all objects of a kind; reads no bodies."""
        return (name for name in tuple(self._stores[gvk].entries) if namespace is None or name[0] == namespace)

    def children(self, gvk: GVK, owner_kind: str, namespace: str, owner_name: str) -> Manifests:
        """The objects whose labels name this owner, sorted by name. The caller checks the owner's UID."""
        store = self._stores[gvk]
        names = store.children.get(Key(owner_kind, namespace, owner_name), ())
        return [_body(store.entries[name]) for name in sorted(names)]

    def referrers(self, key: Key) -> Keys:
        """The cached resources that refer to ``key``, sorted."""
        return sorted(self._referrers.get(key, ()), key=lambda item: (item.kind, item.namespace, item.name))

    def parent(self, gvk: GVK, namespace: str | None, name: str) -> Key | None:
        """The parent that a child's labels name, without reading its body."""
        entry = self._stores[gvk].entries.get((namespace or "", name))
        return entry.parent if entry else None

    def count(self, gvk: GVK) -> int:
        """How many objects of a kind are known."""
        return len(self._stores[gvk].entries)


class Relist:
    """Takes in a long list page by page, so that no more than a page of bodies is in memory."""

    def __init__(self, cache: Cache, gvk: GVK, namespace: str | None = None) -> None:
        self._cache, self._gvk, self._namespace = cache, gvk, namespace
        self._seen: set[Name] = set()

    def add(self, bodies: Iterable[Manifest]) -> Manifests:
        """A page; returns the bodies that changed."""
        changed = []
        for body in bodies:
            self._seen.add(_name(body))
            if self._cache.put(self._gvk, body):
                changed.append(body)
        return changed

    def finish(self, version: str = "") -> Manifests:
        """After the last page: what was not in it is gone, unless it is newer than the list. Returns what went."""
        store = self._cache._stores[self._gvk]
        gone = []
        for name in self._cache.names(self._gvk, self._namespace):
            entry = store.entries[name]
            if name not in self._seen and (not version or not _newer(entry.version, version)):
                gone.append(_body(entry))
                self._cache._remove(self._gvk, name, version or entry.version)
        return gone


def _name(body: Manifest) -> Name:
    metadata = body["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


def _version(body: Manifest) -> str:
    return str(body["metadata"].get("resourceVersion") or "")


def _newer(version: str, than: str) -> bool:
    """Versions are numbers that grow (KEP-5504); where one is not a number, arrival decides."""
    return int(version) > int(than) if version.isdecimal() and than.isdecimal() else version != than or not version


def _body(entry: _Entry) -> Manifest:
    body: Manifest = json.loads(zlib.decompress(entry.blob))
    body["metadata"]["resourceVersion"] = entry.version
    return body


def _sans_status(entry: _Entry) -> Manifest:
    """All but the status and the version: in an answer to our status write, what others may have changed."""
    body: Manifest = json.loads(zlib.decompress(entry.blob))
    body.pop("status", None)
    return body


def _discard(index: dict[K, set[V]], key: K, value: V) -> None:
    values = index.get(key)
    if values is not None:
        values.discard(value)
        if not values:
            del index[key]
