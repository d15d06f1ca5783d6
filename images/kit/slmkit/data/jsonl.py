"""JSON Lines: an object a line."""

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from slmkit.data.limits import LINE_LIMIT, invalid
from slmops.contract import Data


def rows(path: Path, name: str, data: Data) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(line, object) of each line that is not empty."""
    with path.open("rb") as file:
        yield from objects(file, name)


def objects(file: io.BufferedIOBase, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The same of an open file."""
    for number, line in enumerate(iter(lambda: file.readline(LINE_LIMIT + 1), b""), 1):
        if line.strip():
            yield number, _object(line, f"{name} line {number}")


def _object(line: bytes, where: str) -> Mapping[str, Any]:
    if len(line) > LINE_LIMIT:
        raise invalid(where, f"longer than {LINE_LIMIT} bytes")
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise invalid(where, f"not UTF-8: byte {error.start + 1} is 0x{line[error.start]:02x}") from None
    except (ValueError, RecursionError) as error:
        raise invalid(where, f"not JSON: {error}") from None
    if not isinstance(record, dict):
        raise invalid(where, f"an object is expected, found {type(record).__name__}")
    return record
