"""Comma-separated values (RFC 4180): the first row names the columns, an empty cell is an absent field."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from slmkit.data.limits import COLUMNS_LIMIT, LINE_LIMIT, invalid, shown
from slmkit.data.records import COLUMNS, columns
from slmops.contract import Data, ExampleFormat

csv.field_size_limit(LINE_LIMIT)
ROW_LIMIT = 16 * LINE_LIMIT
"""Bytes of a row: cells in quotes may go on over any number of lines."""


def rows(path: Path, name: str, data: Data) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(row below the names, fields) of each row that is not empty."""
    if data.format is ExampleFormat.MESSAGES:
        raise invalid(name, "a cell holds no list of messages; use format PromptCompletion, or JSON Lines or Parquet")
    with path.open("rb") as file:
        lines = _Lines(file, name)
        cells = csv.reader(lines, strict=True)
        names = _names(_next(cells, f"{name} row 0"), name, data)
        number = 0
        while (row := _next(cells, f"{name} row {number + 1}")) is not None:
            lines.row = 0
            number += 1
            if len(row) not in (0, len(names)):
                raise invalid(f"{name} row {number}", f"{len(row)} cells, while {len(names)} columns are named")
            if row:
                yield number, {column: cell or None for column, cell in zip(names, row, strict=True)}


def _names(row: list[str] | None, name: str, data: Data) -> list[str]:
    """The columns' names, among them those that have to be there."""
    names = row or []
    first = columns(data)[COLUMNS[data.format][0]]
    if first not in names:
        raise invalid(name, f"no column {first}; there are {shown(', '.join(names), 200) or 'none'}. The first row names "
                      "the columns, divided by commas")  # fmt: skip
    if len(set(names)) < len(names):
        raise invalid(name, "two columns have the same name")
    if len(names) > COLUMNS_LIMIT:
        raise invalid(name, f"more than {COLUMNS_LIMIT} columns")
    return names


def _next(cells: Iterator[list[str]], where: str) -> list[str] | None:
    try:
        return next(cells, None)
    except csv.Error as error:
        raise invalid(where, f"not CSV: {error}") from None


class _Lines:
    """The lines of a file, as text; ``row`` counts the bytes since it was last set to none."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name, self._number, self.row = file, name, 0, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(LINE_LIMIT + 1)
        if not line:
            raise StopIteration
        self._number, self.row = self._number + 1, self.row + len(line)
        where = f"{self._name} line {self._number}"
        if len(line) > LINE_LIMIT:
            raise invalid(where, f"longer than {LINE_LIMIT} bytes")
        if self.row > ROW_LIMIT:
            raise invalid(where, f"a row of more than {ROW_LIMIT} bytes")
        try:
            return line.decode("utf-8-sig" if self._number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise invalid(where, f"not UTF-8: byte {error.start + 1} is 0x{line[error.start]:02x}") from None
