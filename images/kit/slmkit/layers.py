"""Reproducible image layers: the same files give the same bytes, whoever builds them, whenever.

Tar in the plainest form: sorted names, zero times, root owner, fixed modes, no compression (weights hardly compress, and
an uncompressed layer's digest is its diff id). A layer is streamed: it is never in memory, nor a second time on disk.
"""

import hashlib
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

CHUNK = 1 << 20
MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class Layer:
    """Files by their absolute path in the image."""

    files: Mapping[str, Path]
    title: str = ""

    def chunks(self) -> Iterator[bytes]:
        """The tar's bytes."""
        for folder in self._folders():
            info = tarfile.TarInfo(f"{folder}/")
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            yield info.tobuf(tarfile.USTAR_FORMAT)
        for name in sorted(self.files):
            path = self.files[name]
            info = tarfile.TarInfo(name.lstrip("/"))
            info.size, info.mode = path.stat().st_size, 0o644
            yield info.tobuf(tarfile.GNU_FORMAT)
            with path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    yield chunk
            if rest := info.size % tarfile.BLOCKSIZE:
                yield bytes(tarfile.BLOCKSIZE - rest)
        yield bytes(2 * tarfile.BLOCKSIZE)

    def _folders(self) -> list[str]:
        found = {
            str(parent)
            for name in self.files
            for parent in PurePosixPath(name.lstrip("/")).parents
            if str(parent) != "."
        }
        return sorted(found)

    def digest(self) -> tuple[str, int]:
        """SHA-256 and size, in one pass."""
        sha, size = hashlib.sha256(), 0
        for chunk in self.chunks():
            sha.update(chunk)
            size += len(chunk)
        return f"sha256:{sha.hexdigest()}", size
