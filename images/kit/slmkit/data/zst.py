"""JSON Lines packed with Zstandard (RFC 8878): unpacked as they are read, never to disk."""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from slmkit.data.jsonl import objects
from slmkit.data.limits import check_unpacked, invalid
from slmops.contract import Data

WINDOW_LIMIT = 128 << 20
"""Bytes that a file may ask a reader to keep in memory: what ``zstd`` itself allows unless told otherwise."""
PACKED = 1024
"""Packed bytes unpacked at a time. One byte can become 32 Ki, so this is 32 MiB at most."""


def rows(path: Path, name: str, data: Data) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(line, object) of each line that is not empty."""
    with path.open("rb") as file, io.BufferedReader(_Unpacked(file, name), 1 << 20) as lines:
        yield from objects(lines, name)


class _Unpacked(io.RawIOBase):
    """A packed file's content. The library's own reader takes a file that was cut off for a whole one."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self._library = zstandard.ZstdDecompressor(max_window_size=WINDOW_LIMIT)
        self._frame = self._library.decompressobj()
        self._begun = False
        self._ready = memoryview(b"")
        self._packed = self._unpacked = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            packed = (self._frame.unused_data if self._frame.eof else b"") or self._file.read(PACKED)
            if not packed:
                if self._begun and not self._frame.eof:
                    raise invalid(self._name, "the file is cut off")
                return 0
            if self._frame.eof:
                self._frame = self._library.decompressobj()
            self._begun = True
            self._unpack(packed)
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _unpack(self, packed: bytes) -> None:
        try:
            self._ready = memoryview(self._frame.decompress(packed))
        except zstandard.ZstdError as error:
            raise invalid(self._name, f"not Zstandard: {error}") from None
        self._packed = self._file.tell()
        self._unpacked += len(self._ready)
        check_unpacked(self._name, self._packed, self._unpacked)
