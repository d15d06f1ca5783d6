"""What becomes a blob of a repository: bytes, files, layers, blobs of other repositories. Nothing goes that is there.

A blob's digest says whether it is there, so it is counted first, and what is sent is read a second time. In a repository
that is new nothing can be there: then a large blob is counted while it goes, and read once. What tells a repository that
is not new is the empty configuration, which artefacts have: it is sent before the first large blob.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from slmkit import uploads
from slmkit.access import Access
from slmkit.downloads import pieces
from slmkit.layers import Layer, Measured
from slmkit.meter import Meter
from slmkit.uploads import Blob, Uploads
from slmkit.wire import Wire

EMPTY = b"{}"
PIECE = 1 << 20


class Blobs:
    """All blobs that a run publishes."""

    def __init__(self, wire: Wire, meter: Meter) -> None:
        self._wire, self._meter, self._uploads = wire, meter, Uploads(wire, meter.advance)
        self._seen: dict[tuple[str, str], str] = {}
        """A repository that has a blob, by registry and digest."""

    def saw(self, access: Access, digest: str) -> None:
        """A repository has a blob: another one of the registry can take it over from there."""
        self._seen[access.host, digest] = access.name

    def new(self, access: Access, largest: int) -> bool:
        """Whether none of what is to be published, the largest blob of so many bytes, can be there yet. Not asked for
        small ones, nor where other repositories of the registry are known, from which they may be taken over."""
        if largest <= uploads.CHUNK or any(host == access.host for host, _ in self._seen):
            return False
        new = not self._uploads.there(access, sha256(EMPTY))
        if new:
            self.content(access, EMPTY)
        return new

    def content(self, access: Access, content: bytes) -> str:
        """Publish bytes. Returns their digest."""
        self._send(access, sha256(content), len(content), lambda: [content])
        return sha256(content)

    def file(self, access: Access, path: Path, new: bool) -> tuple[str, int]:
        """Publish a file. Returns its digest and size."""
        size = path.stat().st_size
        if new and size > uploads.CHUNK:
            return self._count(access, size, lambda: _read(path)), size
        with path.open("rb") as file:
            digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        self._send(access, digest, size, lambda: _read(path))
        return digest, size

    def layer(self, access: Access, layer: Layer, new: bool) -> Measured:
        """Publish a layer. Of a compressed one nobody knows the size beforehand, so it is measured first."""
        size = layer.plain_size
        if new and layer.compression == "None" and size > uploads.CHUNK:
            digest = self._count(access, size, layer.chunks)
            return Measured(digest, size, digest)
        measured = layer.measure()
        self._send(access, measured.digest, measured.size, layer.chunks)
        return measured

    def copy(self, there: Access, access: Access, digest: str, size: int) -> None:
        """Publish a blob of another repository: by the registry itself where it can, else through here."""
        self.saw(there, digest)
        self._send(access, digest, size, lambda: pieces(self._wire, there, digest, size, "a layer"))

    def _send(self, access: Access, digest: str, size: int, body: Callable[[], Iterable[bytes]]) -> None:
        self._meter.expect(size)
        if self._uploads.there(access, digest):
            self._meter.advance(size)
            return
        other = self._seen.get((access.host, digest), "")
        self._uploads.send(access, Blob(size, body, digest, other if other != access.name else ""))

    def _count(self, access: Access, size: int, body: Callable[[], Iterable[bytes]]) -> str:
        self._meter.expect(size)
        return self._uploads.send(access, Blob(size, body))


def sha256(content: bytes) -> str:
    """A digest."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece
