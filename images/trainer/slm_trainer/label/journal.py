"""Finished answers, one JSON object a line, appended as they come.

A run that is killed finds them again and asks for the rest only: no finished request is repeated, no answer paid twice.
Answers stay on disk, and an index of their places too: memory does not grow with the data.
"""

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from slm_trainer.dataset.seen import database
from slm_trainer.label.answers import Answer

FIELDS = [field.name for field in fields(Answer)]
BROKEN = (ValueError, KeyError, TypeError, RecursionError)
"""What reading a line that is no answer raises."""
log = logging.getLogger("slm_trainer.label")


class Journal:
    """The journal in a file; a context manager. One process writes it (see slmkit.hold), and only at its end.

    ``index``: where to note, for this process, at which place of the file each answer is; beside it when absent.
    """

    def __init__(self, path: Path, index: Path | None = None) -> None:
        self._path = path
        self._index = database(index or path.with_suffix(".index"))
        self._index.execute("CREATE TABLE places (key TEXT PRIMARY KEY, start INTEGER, length INTEGER) WITHOUT ROWID")
        self._spent: dict[str, tuple[int, int]] = {}
        """Tokens read and written for answers of no use, by the question's key."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._synced = self._end = self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.sync()
        os.close(self._file)
        self._index.close()

    def __contains__(self, key: str) -> bool:
        return self._place(key) is not None

    def get(self, key: str) -> Answer | None:
        """The answer to a question; None: there is none yet."""
        place = self._place(key)
        if place is None:
            return None
        start, length = place
        try:
            of, found = _record(os.pread(self._file, length, start))
        except BROKEN:
            return None
        # On a file system without locks somebody else may have written in between, and another's answer is worse than
        # none.
        return found if of == key and isinstance(found, Answer) else None

    def add(self, key: str, answer: Answer) -> None:
        """Keep an answer. From here on it outlives this process; its node as soon as ``sync`` has run."""
        place = self._end
        self._append({"key": key} | {name: getattr(answer, name) for name in FIELDS})
        self._note(key, place, self._end - place)

    def spend(self, key: str, read: int, written: int) -> None:
        """Note tokens that were paid for an answer of no use."""
        if read or written:
            self._append({"key": key, "spent": [read, written]})
            self._add_up(key, read, written)

    def spent(self, key: str) -> tuple[int, int]:
        """Tokens (read, written) that went into answers of no use to a question."""
        return self._spent.get(key, (0, 0))

    @property
    def dirty(self) -> bool:
        """Whether there is anything to sync."""
        return self._synced < self._end

    def sync(self) -> None:
        """Bring to the disk what was added. May take as long as the disk takes: not for an event loop."""
        if self._synced < (end := self._end):
            os.fsync(self._file)
            self._synced = end

    def _read(self) -> int:
        """Note where answers lie. What a killed process left half written is cut off: the next line begins there."""
        end, broken = 0, 0
        for line in self._lines():
            if not line.endswith(b"\n"):
                log.warning("the journal's last line is torn", extra={"bytes": len(line)})
                os.ftruncate(self._file, end)
                break
            try:
                key, found = _record(line)
                if isinstance(found, Answer):
                    self._note(key, end, len(line))
                else:
                    self._add_up(key, *found)
            except BROKEN:
                broken += 1
            end += len(line)
        if broken:
            log.warning("lines of the journal cannot be read", extra={"lines": broken})
        return end

    def _place(self, key: str) -> tuple[int, int] | None:
        found: tuple[int, int] | None = self._index.execute(
            "SELECT start, length FROM places WHERE key = ?", (key,)
        ).fetchone()
        return found

    def _note(self, key: str, start: int, length: int) -> None:
        self._index.execute("INSERT OR REPLACE INTO places VALUES (?, ?, ?)", (key, start, length))

    def _append(self, record: dict[str, Any]) -> None:
        line = json.dumps(record).encode() + b"\n"
        written = 0
        while written < len(line):
            written += os.write(self._file, line[written:])
        self._end += len(line)

    def _add_up(self, key: str, read: int, written: int) -> None:
        before = self.spent(key)
        self._spent[key] = (before[0] + read, before[1] + written)

    def _lines(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            yield from file


def _record(line: bytes) -> tuple[str, Answer | tuple[int, int]]:
    """A line's key, and its answer or what was spent on none. Raises ValueError, KeyError, TypeError where it has none."""
    record = json.loads(line)
    key = record.pop("key")
    if not isinstance(key, str):
        raise TypeError
    if "spent" in record:
        read, written = record["spent"]
        if not isinstance(read, int) or not isinstance(written, int):
            raise TypeError
        return key, (read, written)
    answer = Answer(**record)
    if not isinstance(answer.text, str):
        raise TypeError
    return key, answer
