"""Records on disk, in our own form, to be read again and again."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from slmkit.data import Example


class Spool:
    """The records that ``write`` was given, in their order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")

    def write(self, examples: Iterable[Example]) -> None:
        """Append records as they come."""
        with self._path.open("a", encoding="utf-8") as file:
            for example in examples:
                record = [example.prompt, example.completion, example.category, example.rejected, example.origin]
                file.write(json.dumps(record) + "\n")
                self._count += 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Example]:
        with self._path.open(encoding="utf-8") as file:
            for line in file:
                prompt, *rest = json.loads(line)
                yield Example(tuple(prompt), *rest)
