"""What was seen before, on disk: SQLite as a set and as an index."""

import hashlib
import json
import sqlite3
from pathlib import Path

from slmkit.data import Example

CACHE_KIB = 4 << 10
"""Memory for the pages that are in use."""


def key(example: Example) -> bytes:
    """16 bytes that stand for a record's prompt, or for the whole of a plain text."""
    content = example.completion if example.plain else list(example.prompt)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()[:16]


def database(path: Path) -> sqlite3.Connection:
    """An empty database for one run: nobody needs it when the run is over, so nothing waits for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    made = sqlite3.connect(path, isolation_level=None)
    for setting in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{CACHE_KIB}", "locking_mode=EXCLUSIVE"):
        made.execute(f"PRAGMA {setting}")
    made.execute("BEGIN")
    return made


class Seen:
    """A set of keys."""

    def __init__(self, path: Path) -> None:
        self._database = database(path)
        self._database.execute("CREATE TABLE seen (key BLOB PRIMARY KEY) WITHOUT ROWID")

    def add(self, key: bytes) -> bool:
        """Whether it is new."""
        return self._database.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,)).rowcount == 1

    def __contains__(self, key: bytes) -> bool:
        return self._database.execute("SELECT 1 FROM seen WHERE key = ?", (key,)).fetchone() is not None

    def close(self) -> None:
        """Forget all."""
        self._database.close()
