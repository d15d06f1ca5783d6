"""Encoded records on disk: written once, one after the other, then read by number in any order.

Memory hardly grows with the data: what was read lately is in the system's cache, which gives it back when it is needed.
"""

import hashlib
import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self, overload

import numpy as np
from numpy.typing import NDArray

TOKEN = np.dtype("<u4")
ENTRY = np.dtype([("end", "<u8"), ("start", "<u4")])
"""Of each record: where its tokens end, counted from the beginning of the file, and where its answer begins."""
BLOCK = 1 << 20
"""Bytes of tokens that are read at a time, where no record is asked for."""


@dataclass(frozen=True)
class Record:
    """One record as tokens; the answer begins at ``start``."""

    tokens: list[int]
    start: int


class TokenStore(Sequence[Record]):
    """The records in a folder that a ``Writer`` made. Twelve bytes a record are in memory, the tokens are not."""

    def __init__(self, folder: Path) -> None:
        self._entries = np.fromfile(folder / "entries", ENTRY)
        self._tokens = os.open(folder / "tokens", os.O_RDONLY)
        weakref.finalize(self, os.close, self._tokens)

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        begin = int(self._entries["end"][number - 1]) if number else 0
        entry = self._entries[number]
        count = int(entry["end"]) - begin
        read = os.pread(self._tokens, count * TOKEN.itemsize, begin * TOKEN.itemsize)
        return Record(np.frombuffer(read, TOKEN, count).tolist(), int(entry["start"]))

    @property
    def lengths(self) -> NDArray[np.uint32]:
        """Tokens of each record."""
        ends = self._entries["end"]
        made = np.empty(len(ends), np.uint32)
        made[:1] = ends[:1]
        np.subtract(ends[1:], ends[:-1], out=made[1:], casting="unsafe")  # no copy of the ends on the way
        return made

    def content(self) -> Iterator[bytes | memoryview]:
        """All that the records are, as bytes in blocks: their entries, which say how many tokens follow, and the tokens."""
        yield self._entries.view(np.uint8).data
        begin = 0
        while block := os.pread(self._tokens, BLOCK, begin):
            yield block
            begin += len(block)

    @property
    def answers(self) -> int:
        """Tokens of all answers together: what is learned."""
        return int(self.lengths.sum(dtype=np.int64) - self._entries["start"].sum(dtype=np.int64))


class Writer:
    """Appends records. A context manager; the store can be read once it is left."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._end = 0

    def __enter__(self) -> Self:
        self._tokens: BinaryIO = (self.folder / "tokens").open("wb")
        self._entries: BinaryIO = (self.folder / "entries").open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        self._tokens.close()
        self._entries.close()

    def extend(self, records: Iterable[Record]) -> None:
        """Append records."""
        for record in records:
            self._tokens.write(np.asarray(record.tokens, TOKEN).tobytes())
            self._end += len(record.tokens)
            self._entries.write(np.array((self._end, record.start), ENTRY).tobytes())


def lengths(records: Sequence[Record]) -> NDArray[np.uint32]:
    """Tokens of each record, without looking at the tokens where they are on disk."""
    if isinstance(records, TokenStore):
        return records.lengths
    return np.fromiter((len(record.tokens) for record in records), np.uint32, len(records))


def digest(records: Sequence[Record]) -> str:
    """A SHA-256 of all tokens, and of where the answers begin; of pairs, of both answers. The same wherever the records
    lie."""
    whole = hashlib.sha256()
    for part in (getattr(records, "better", records), getattr(records, "worse", ())):
        whole.update(len(part).to_bytes(8, "little"))
        for block in part.content() if isinstance(part, TokenStore) else _content(part):
            whole.update(block)
    return whole.hexdigest()


def _content(records: Sequence[Record]) -> Iterator[bytes | memoryview]:
    """What a store of these records has as its content."""
    entries = np.empty(len(records), ENTRY)
    entries["end"] = np.cumsum(lengths(records), dtype=np.uint64)
    entries["start"] = [record.start for record in records]
    yield entries.view(np.uint8).data
    for record in records:
        yield np.asarray(record.tokens, TOKEN).tobytes()
