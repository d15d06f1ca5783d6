"""What the pages of a Parquet file say of themselves, one by one and unread: how long they are, and become.

A file's footer says so for all pages together. Nothing compares the two, and readers set aside what the pages say, so a
bomb only has to be silent about it in the footer. https://github.com/apache/parquet-format: a page is a header (Thrift's
compact protocol) and its content.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

DEPTH, FIELDS, LONGEST = 8, 32, 10
"""Of structures in a header; fields of one; bytes of a number."""
TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, STRUCT = *range(1, 9), 12
DATA, DATA_2, DICTIONARY = 5, 8, 7
ENCODING = {DATA: 2, DATA_2: 4, DICTIONARY: 2}
"""Where the header of a page's content is, by what it is, and where the encoding is in there."""
DELTA_BYTE_ARRAY = 7


class NotAPage(Exception):  # noqa: N818  (it is what was found)
    """Where a page's header should be is something else."""


class Page(NamedTuple):
    """A page: bytes as it lies there, bytes once it is unpacked, values, and how they are written."""

    packed: int
    unpacked: int
    values: int
    encoding: int | None


def pages(file: BinaryIO, begin: int, values: int) -> Iterator[Page]:
    """The pages of a column from ``begin`` on, until there were so many values. Raises NotAPage for what is none."""
    while values > 0:
        file.seek(begin)
        header = _struct(file)
        packed, unpacked = _number(header.get(3)), _number(header.get(2))
        begin = file.tell() + packed
        kind = next((kind for kind in ENCODING if isinstance(header.get(kind), dict)), None)
        count = 0 if kind is None else _number(header[kind].get(1))
        yield Page(packed, max(packed, unpacked), count, header[kind].get(ENCODING[kind]) if kind else None)
        values -= 0 if kind == DICTIONARY else count


def _struct(file: BinaryIO, depth: int = 0) -> dict[int, Any]:
    """Fields by number; numbers and structures alone, all else is skipped."""
    if depth > DEPTH:
        raise NotAPage("a page's header is too deep")
    found: dict[int, Any] = {}
    number = 0
    for _ in range(FIELDS):
        kind = _byte(file)
        if not kind:
            return found
        number = number + (kind >> 4) if kind >> 4 else _signed(file)
        found[number] = _value(file, kind & 15, depth)
    raise NotAPage("a page's header has too many fields")


def _value(file: BinaryIO, kind: int, depth: int) -> Any:
    if kind in (TRUE, FALSE):
        return None
    if kind == BYTE:
        return _byte(file)
    if kind in (I16, I32, I64):
        return _signed(file)
    if kind == STRUCT:
        return _struct(file, depth + 1)
    if kind in (DOUBLE, BINARY):
        file.seek(8 if kind == DOUBLE else _unsigned(file), 1)
        return None
    raise NotAPage("a page's header is not understood")  # it has neither lists nor maps


def _signed(file: BinaryIO) -> int:
    number = _unsigned(file)
    return (number >> 1) ^ -(number & 1)


def _unsigned(file: BinaryIO) -> int:
    number = 0
    for at in range(LONGEST):
        byte = _byte(file)
        number |= (byte & 127) << 7 * at
        if byte < 128:
            return number
    raise NotAPage("a number of a page's header is too long")


def _byte(file: BinaryIO) -> int:
    found = file.read(1)
    if not found:
        raise NotAPage("a page's header is cut off")
    return found[0]


def _number(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < 1 << 31:
        raise NotAPage("a page's header has no size")
    return value
