"""The files of a data set -> records, one at a time, whatever the file format."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from slmkit.data import csv, jsonl
from slmkit.data.limits import invalid, shown
from slmkit.data.records import Example, example
from slmkit.run import RunFailed
from slmops.contract import Data, Reason

Rows = Iterator[tuple[int, Mapping[str, Any]]]
"""(line or row, from 1; its fields)"""
Reader = Callable[[Path, str, Data], Rows]
SUFFIXES = (".jsonl", ".jsonl.zst", ".csv", ".parquet")


def read_examples(data: Data, folder: Path) -> Iterator[Example]:
    """The records of a data set that was fetched into ``folder``, file by file in the order of their names.

    Raises RunFailed with reason InvalidData, and with UnsafeSource at a file that unpacks to far more than it is."""
    for file in _files(data, folder):
        name = str(file.relative_to(folder))
        unit = "row" if file.suffix in (".csv", ".parquet") else "line"
        for number, fields in _reader(file, name)(file, name, data):
            yield example(fields, data, f"{shown(name, 180)} {unit} {number}")


def _files(data: Data, folder: Path) -> list[Path]:
    if data.path and (data.path.startswith("/") or ".." in Path(data.path).parts):
        raise RunFailed(Reason.INVALID_DATA, f"{data.path} leaves the data set")
    if data.path:
        files = [folder / data.path]
    else:
        files = sorted(path for path in folder.rglob("*") if path.name.endswith(SUFFIXES))
    if not files or not all(file.is_file() for file in files):
        wanted = data.path or ", ".join(f"*{suffix}" for suffix in SUFFIXES)
        raise RunFailed(Reason.INVALID_DATA, f"{data.source.uri} holds no {wanted}")
    return files


def _reader(file: Path, name: str) -> Reader:
    """By suffix; a file that was named and has none of them is read as JSON Lines."""
    if file.suffix == ".csv":
        return csv.rows
    if file.suffix not in (".zst", ".parquet"):
        return jsonl.rows
    # These two need a library that images for edge nodes go without.
    module, library = ("zst", "zstandard") if file.suffix == ".zst" else ("parquet", "pyarrow")
    try:
        reader: Reader = import_module(f"slmkit.data.{module}").rows
    except ModuleNotFoundError as error:
        if error.name != library:
            raise
        raise invalid(name, f"{file.suffix} is not read by this image; publish the data as *.jsonl or *.csv") from None
    return reader


def write_messages(path: Path, examples: Iterable[Example]) -> int:
    """Write records in Messages format. Returns how many."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for record in examples:
            more = {} if record.category is None else {"category": record.category}
            line = {"messages": record.messages()} | more
            file.write(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n")
            count += 1
    return count
