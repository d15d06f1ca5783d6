"""Records on disk, in our own form, to be read again and again."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import TypeAdapter

from slmkit.data import Example

T = TypeVar("T")


class Lines(Generic[T]):
    """What ``write`` was given, in its order: a line of JSON each, so that the number of them costs no memory."""

    def __init__(self, type: type[T], path: Path) -> None:
        self._form, self._path = TypeAdapter(type), path
        self._count = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")

    def write(self, items: Iterable[T]) -> None:
        """Append them as they come."""
        with self._path.open("ab") as file:
            for item in items:
                file.write(self._form.dump_json(item) + b"\n")
                self._count += 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[T]:
        with self._path.open("rb") as file:
            for line in file:
                yield self._form.validate_json(line)


class Spool(Lines[Example]):
    """Records."""

    def __init__(self, path: Path) -> None:
        super().__init__(Example, path)
