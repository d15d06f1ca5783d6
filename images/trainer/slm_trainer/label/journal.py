"""Finished answers, one JSON object a line, appended as they come.

A run that is killed finds them again and asks for the rest only: no finished request is repeated, no answer paid twice.
Answers stay on disk and only their places in memory, so that a large data set does not need its size in memory.
"""

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Self

from slm_trainer.label.answers import Answer

FIELDS = [field.name for field in fields(Answer)]
BROKEN = (ValueError, KeyError, TypeError, RecursionError)
"""What reading a line that is no answer raises."""
log = logging.getLogger("slm_trainer.label")


class Journal:
    """The journal in a file; a context manager. One process writes it (see slmkit.hold), and only at
    its end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[str, tuple[int, int]] = {}
        """(offset, length) of each answer's line, by the question's key."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._synced = self._end = self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.sync()
        os.close(self._file)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def get(self, key: str) -> Answer | None:
        """The answer to a question; None: there is none yet."""
        place = self._places.get(key)
        if place is None:
            return None
        offset, length = place
        try:
            found, answer = _answer(os.pread(self._file, length, offset))
        except BROKEN:
            return None
        # On a file system without locks somebody else may have written in between, and another's answer is worse than
        # none.
        return answer if found == key else None

    def add(self, key: str, answer: Answer) -> None:
        """Keep an answer. From here on it outlives this process; its node as soon as ``sync`` has run."""
        line = json.dumps({"key": key} | {name: getattr(answer, name) for name in FIELDS}).encode() + b"\n"
        written = 0
        while written < len(line):
            written += os.write(self._file, line[written:])
        self._places[key] = (self._end, len(line))
        self._end += len(line)

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
                key, _ = _answer(line)
                self._places[key] = (end, len(line))
            except BROKEN:
                broken += 1
            end += len(line)
        if broken:
            log.warning("lines of the journal cannot be read", extra={"lines": broken})
        return end

    def _lines(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            yield from file


def _answer(line: bytes) -> tuple[str, Answer]:
    """A line's key and answer. Raises ValueError, KeyError, TypeError where it is none."""
    record = json.loads(line)
    key = record.pop("key")
    answer = Answer(**record)
    if not isinstance(key, str) or not isinstance(answer.text, str):
        raise TypeError
    return key, answer
