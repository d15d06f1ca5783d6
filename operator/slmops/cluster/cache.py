"""What the watches have told so far, small enough for tens of thousands of objects.

Bodies are pruned and kept as compressed JSON, with the first body of the kind as the compressor's dictionary: that is
less than a tenth of a dictionary's memory, and cheaper than a copy. Every read returns a fresh body that the caller
may change.

Events arrive late, twice and out of order, and a list may be older than an event: an object never goes back to an
older version, and a deleted one does not come back from an old list. What we write ourselves is known at once
(``wrote``), so that the next pass does not write it again. Somebody else's change may hide in the same version, and
its event then looks old: such a version counts as unseen until the watch has told of it.
"""

import json
import sys
import zlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from slmops.cluster.objects import GVK, Key, Manifest, Manifests, parent_key, prune

Name = tuple[str, str]
"""Namespace ("" for cluster-scoped objects) and name."""
Keys = list[Key]
TOMBSTONES = 4096
"""Deletions remembered per kind; they matter only while an older list is still being read."""
WINDOW = 13
"""Bits of the compressor's window; with MEMORY it sets what each call allocates. Bodies are a few kilobytes."""
MEMORY = 6


@dataclass(slots=True, frozen=True)
class _Entry:
    version: str
    blob: bytes
    parent: Key | None
    refers_to: tuple[Key, ...]
    unseen: bool = False
    """We wrote this version, and there may be more in it than what we wrote."""


class _Store:
    """All objects of one kind."""

    __slots__ = ("children", "deleted", "dictionary", "entries")

    def __init__(self) -> None:
        self.entries: dict[Name, _Entry] = {}
        self.children: dict[Key, tuple[Name, ...]] = {}
        self.deleted: OrderedDict[Name, str] = OrderedDict()
        self.dictionary = b""

    def pack(self, body: Manifest) -> bytes:
        text = json.dumps(body, separators=(",", ":")).encode()
        self.dictionary = self.dictionary or text[: 1 << WINDOW]
        packer = zlib.compressobj(1, zlib.DEFLATED, -WINDOW, MEMORY, zdict=self.dictionary)
        return packer.compress(text) + packer.flush()

    def unpack(self, entry: _Entry) -> Manifest:
        body: Manifest = json.loads(zlib.decompressobj(-WINDOW, zdict=self.dictionary).decompress(entry.blob))
        body["metadata"]["resourceVersion"] = entry.version
        return body


class Cache:
    """Last known state of everything that is watched."""

    def __init__(self, refers_to: Callable[[GVK, Manifest], Iterable[Key]] | None = None) -> None:
        """``refers_to`` names the resources that a body refers to; it feeds ``referrers``."""
        self._stores: defaultdict[GVK, _Store] = defaultdict(_Store)
        self._referrers: defaultdict[Key, set[Key]] = defaultdict(set)
        self._refers_to = refers_to

    # --- feeding it

    def put(self, gvk: GVK, body: Manifest) -> bool:
        """Take in a body. True when there is something in it that no pass has looked at yet."""
        entries, name = self._stores[gvk].entries, _name(body)
        known = entries.get(name)
        if known is None or not known.unseen:
            return self._store(gvk, name, body)
        # Also an older version tells that something happened since the last pass.
        if not self._store(gvk, name, body) and _version(body) == known.version:
            entries[name] = replace(known, unseen=False)
        return True

    def wrote(self, gvk: GVK, body: Manifest, created: bool = False) -> None:
        """Take in the API server's answer to our own write. Its event is news only if there may be more in it, which
        can never be where we created the object.
        """
        store, name = self._stores[gvk], _name(body)
        known = store.entries.get(name)
        if self._store(gvk, name, body):
            entry = store.entries[name]
            ours_alone = known and not known.unseen and _but_status(store, known) == _but_status(store, entry)
            store.entries[name] = replace(entry, unseen=not (created or ours_alone))

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

    def _store(self, gvk: GVK, name: Name, body: Manifest) -> bool:
        store, version = self._stores[gvk], _version(body)
        known = store.entries.get(name)
        if known is not None and not _newer(version, known.version):
            return False
        if known is None and name in store.deleted and not _newer(version, store.deleted[name]):
            return False
        pruned = prune(gvk, body)
        pruned["metadata"].pop("resourceVersion", None)
        blob = store.pack(pruned)
        if known is not None and known.blob == blob:
            store.entries[name] = replace(known, version=version, unseen=False)
            return False
        refers_to = tuple(dict.fromkeys(self._refers_to(gvk, pruned))) if self._refers_to else ()
        entry = _Entry(version, blob, _interned(parent_key(pruned)), refers_to)
        self._index(gvk, name, known, entry)
        store.entries[name] = entry
        store.deleted.pop(name, None)
        return True

    def _remove(self, gvk: GVK, name: Name, version: str) -> bool:
        store = self._stores[gvk]
        if name not in store.deleted or _newer(version, store.deleted[name]):
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
        before, after = (old.parent if old else None), (new.parent if new else None)
        if before != after:
            if before:
                rest = tuple(child for child in children[before] if child != name)
                children[before] = rest
                if not rest:
                    del children[before]
            if after:
                children[after] = (*children.get(after, ()), name)
        me = Key(gvk.kind, *name)
        for key in old.refers_to if old else ():
            self._referrers[key].discard(me)
            if not self._referrers[key]:
                del self._referrers[key]
        for key in new.refers_to if new else ():
            self._referrers[key].add(me)

    # --- asking it

    def get(self, gvk: GVK, namespace: str | None, name: str) -> Manifest | None:
        """One object, or None."""
        store = self._stores[gvk]
        entry = store.entries.get((namespace or "", name))
        return store.unpack(entry) if entry else None

    def list(self, gvk: GVK, namespace: str | None = None) -> Manifests:
        """All objects of a kind, sorted by namespace and name."""
        store = self._stores[gvk]
        return [store.unpack(store.entries[name]) for name in sorted(self.names(gvk, namespace))]

    def names(self, gvk: GVK, namespace: str | None = None) -> Iterator[Name]:
        """Namespace and name of all objects of a kind; reads no bodies."""
        return (name for name in tuple(self._stores[gvk].entries) if namespace is None or name[0] == namespace)

    def children(self, gvk: GVK, owner_kind: str, namespace: str, owner_name: str) -> Manifests:
        """The objects whose labels name this owner, sorted by name. The caller checks the owner's UID."""
        store = self._stores[gvk]
        names = store.children.get(Key(owner_kind, namespace, owner_name), ())
        return [store.unpack(store.entries[name]) for name in sorted(names)]

    def parent(self, gvk: GVK, namespace: str | None, name: str) -> Key | None:
        """The parent that a child's labels name, without reading its body."""
        entry = self._stores[gvk].entries.get((namespace or "", name))
        return entry.parent if entry else None

    def referrers(self, key: Key) -> Keys:
        """The cached resources that refer to ``key``, sorted."""
        return sorted(self._referrers.get(key, ()), key=lambda item: (item.kind, item.namespace, item.name))

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
                gone.append(store.unpack(entry))
                self._cache._remove(self._gvk, name, version or entry.version)
        return gone


def _name(body: Manifest) -> Name:
    metadata = body["metadata"]
    # Names and namespaces come again and again, in children's labels and in references: one string for all of them.
    return sys.intern(metadata.get("namespace") or ""), sys.intern(metadata["name"])


def _interned(key: Key | None) -> Key | None:
    return Key(*(sys.intern(part) for part in (key.kind, key.namespace, key.name))) if key else None


def _version(body: Manifest) -> str:
    return str(body["metadata"].get("resourceVersion") or "")


def _newer(version: str, than: str) -> bool:
    """Versions are numbers that grow (KEP-5504); where one is not a number, arrival decides."""
    return int(version) > int(than) if version.isdecimal() and than.isdecimal() else version != than or not version


def _but_status(store: _Store, entry: _Entry) -> Manifest:
    """All but the status and the version: in an answer to our status write, what others may have changed."""
    body = store.unpack(entry)
    body.pop("status", None)
    body["metadata"].pop("resourceVersion")
    return body
