"""Reproducible image layers: the same files give the same bytes, whoever builds them, whenever.

Tar in the plainest form: sorted names, zero times, root owner, fixed modes. By default it is not compressed: weights
hardly compress, and an uncompressed layer's digest is its diff id. A layer is streamed: it is never in memory, nor a
second time on disk. So a compressed one is compressed twice, once for its digest and once on its way.
"""

import hashlib
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

CHUNK = 1 << 20
MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar"
MEDIA_TYPE_ZSTD = f"{MEDIA_TYPE}+zstd"
LEVEL = 3
"""Zstandard's own default. Higher ones cost many times the time for some percent of weights' bytes."""
Compression = Literal["None", "Zstd"]


class Measured(NamedTuple):
    """What a manifest and an image's configuration say of a layer."""

    digest: str
    """Of the bytes that are pushed."""
    size: int
    diff_id: str
    """Of the plain tar."""


@dataclass(frozen=True)
class Layer:
    """Files by their absolute path in the image."""

    files: Mapping[str, Path]
    title: str = ""
    compression: Compression = "None"

    @property
    def media_type(self) -> str:
        """As the OCI image specification names it."""
        return MEDIA_TYPE if self.compression == "None" else MEDIA_TYPE_ZSTD

    def chunks(self) -> Iterator[bytes]:
        """The bytes that are pushed."""
        return self._tar() if self.compression == "None" else _packed(self._tar())

    @property
    def plain_size(self) -> int:
        """Bytes of the plain tar; no file is read for it."""
        return sum(len(part) if isinstance(part, bytes) else part.stat().st_size for part in self._parts())

    def measure(self) -> Measured:
        """Digests and size, in one pass."""
        plain, pushed, size = hashlib.sha256(), hashlib.sha256(), 0
        if self.compression == "None":
            pushed = plain
            size = sum(map(len, _hashed(self._tar(), plain)))
        else:
            size = sum(map(len, _hashed(_packed(_hashed(self._tar(), plain)), pushed)))
        return Measured(f"sha256:{pushed.hexdigest()}", size, f"sha256:{plain.hexdigest()}")

    def _tar(self) -> Iterator[bytes]:
        for part in self._parts():
            if isinstance(part, bytes):
                yield part
                continue
            with part.open("rb") as file:
                while chunk := file.read(CHUNK):
                    yield chunk

    def _parts(self) -> Iterator[bytes | Path]:
        """Headers, fillings, and between them the files whose content is meant."""
        for folder in self._folders():
            info = tarfile.TarInfo(f"{folder}/")
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            yield info.tobuf(tarfile.USTAR_FORMAT)
        for name in sorted(self.files):
            path = self.files[name]
            info = tarfile.TarInfo(name.lstrip("/"))
            info.size, info.mode = path.stat().st_size, 0o644
            yield info.tobuf(tarfile.GNU_FORMAT)
            yield path
            yield bytes(-info.size % tarfile.BLOCKSIZE)
        yield bytes(2 * tarfile.BLOCKSIZE)

    def _folders(self) -> list[str]:
        found = {
            str(parent)
            for name in self.files
            for parent in PurePosixPath(name.lstrip("/")).parents
            if str(parent) != "."
        }
        return sorted(found)


def _hashed(chunks: Iterable[bytes], sha: "hashlib._Hash") -> Iterator[bytes]:
    for chunk in chunks:
        sha.update(chunk)
        yield chunk


def _packed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """One frame of Zstandard (RFC 8878) by one thread, with nothing in it of where and when: the same version of the
    library makes the same bytes of the same bytes."""
    import zstandard  # it is in the images that make something

    packer = zstandard.ZstdCompressor(level=LEVEL, threads=0, write_checksum=False).compressobj()
    for chunk in chunks:
        if packed := packer.compress(chunk):
            yield packed
    yield packer.flush()
