"""Apache Parquet: the wanted columns alone are read, a few pages at a time, however large the row groups are."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from slmkit.data.limits import LINE_LIMIT, check_unpacked, invalid, shown
from slmkit.data.pages import DELTA_BYTE_ARRAY, NotAPage, pages
from slmkit.data.records import COLUMNS, columns
from slmops.contract import Data

BATCH = 256
NUMBERS = ("label", "category")
"""Fields that may be whole numbers."""
MESSAGE = 24
"""Bytes of a message beside its texts, as JSON Lines would have them."""
PAGES_LIMIT = 1 << 20
VALUES_LIMIT = 1 << 24
"""Messages of a row group. One row may be all of them, and is read at once."""


def rows(path: Path, name: str, data: Data) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(row, fields)."""
    number = 0
    try:
        with pq.ParquetFile(path, arrow_extensions_enabled=False) as file:
            wanted = _wanted(file, name, data)
            leaves = _leaves(file, wanted, name)
            _check_sizes(path, file.metadata, leaves, set(leaves) - set(wanted), name)
        # A value that stands for a million rows, or messages, stays one value in memory; the texts are made one by one.
        shared = [leaf for leaf, text in leaves.items() if text]
        with pq.ParquetFile(path, arrow_extensions_enabled=False, read_dictionary=shared, pre_buffer=False,
                            buffer_size=1 << 20) as file:  # fmt: skip
            for batch in _batches(file, list(leaves)):
                cells = [_cells(batch.column(column), name, column, number) for column in wanted]
                for row in zip(*cells, strict=True):
                    number += 1
                    yield number, dict(zip(wanted, row, strict=True))
    except (pa.ArrowException, OSError, NotAPage) as error:
        raise invalid(name, f"not Parquet that can be read: {error}") from None
    except UnicodeDecodeError:
        raise invalid(f"{name} row {number + 1}", "not UTF-8") from None


def _batches(file: pq.ParquetFile, leaves: list[str]) -> Iterator[pa.RecordBatch]:
    """None of them from two row groups, which do not share their values."""
    for group in range(file.num_row_groups):
        yield from file.iter_batches(BATCH, row_groups=[group], columns=leaves, use_threads=False)


def _wanted(file: pq.ParquetFile, name: str, data: Data) -> dict[str, bool]:
    """The columns to read, and whether each holds texts."""
    schema = file.schema_arrow
    if len(set(schema.names)) < len(schema.names):
        raise invalid(name, "two columns have the same name")
    named = columns(data)
    first = named[COLUMNS[data.format][0]]
    if first not in schema.names:
        raise invalid(name, f"no column {first}; there are {shown(', '.join(schema.names), 200) or 'none'}")
    wanted = {}
    for field, column in named.items():
        if column in schema.names:
            wanted[column] = _texts(schema.field(column).type, field, f"{name} column {column}")
    return wanted


def _leaves(file: pq.ParquetFile, wanted: Mapping[str, bool], name: str) -> dict[str, bool]:
    """What is stored of these columns -> whether it is text. Of a message its role and content alone are read."""
    stored = [file.schema.column(index).path for index in range(len(file.schema))]
    leaves: dict[str, bool] = {}
    for column in wanted:
        inside = {path: path.removeprefix(f"{column}.").split(".") for path in stored if path.startswith(f"{column}.")}
        # messages.list.element.content, or without one of the two in the middle
        found = [path for path, parts in inside.items() if len(parts) in (2, 3) and parts[-1] in ("role", "content")]
        if column not in stored and len(found) < 2:
            raise invalid(f"{name} column {column}", "a list of {role, content} is expected, stored in another way")
        leaves |= {column: wanted[column]} if column in stored else dict.fromkeys(found, True)
    return leaves


def _cells(values: pa.Array, name: str, column: str, before: int) -> Iterator[Any]:
    """A column's values, row by row."""
    if not pa.types.is_list(values.type) and not pa.types.is_large_list(values.type):
        yield from (value.as_py() for value in values)
        return
    lengths = _lengths(values)
    if sum(lengths) <= LINE_LIMIT:
        try:
            yield from _conversations(values)  # all at once takes a quarter of the time
            return
        except UnicodeDecodeError:
            pass  # in which row, is found out below
    for row, length in enumerate(lengths):
        if length > LINE_LIMIT:
            raise invalid(f"{name} row {before + row + 1}", f"{column}: longer than {LINE_LIMIT} bytes")
        yield from _conversations(values.slice(row, 1))


def _lengths(values: pa.Array) -> list[int]:
    """Bytes of each conversation, before any of its texts is made."""
    messages = values.flatten()
    sizes = [pc.fill_null(_sizes(messages.field(part)), 0) for part in ("role", "content")]
    ends = [0, *pc.cumulative_sum(pc.add(pc.add(*sizes), MESSAGE)).to_pylist()]
    begin, lengths = 0, []
    for count in pc.fill_null(pc.list_value_length(values), 0).to_pylist():
        lengths.append(ends[begin + count] - ends[begin])
        begin += count
    return lengths


def _conversations(values: pa.Array) -> list[Any]:
    messages = values.flatten()
    roles, contents = (_plain(messages.field(part)).to_pylist() for part in ("role", "content"))
    made = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
    found = [one if there else None for one, there in zip(made, messages.is_valid().to_pylist(), strict=True)]
    begin, rows = 0, []
    for count in pc.list_value_length(values).to_pylist():
        rows.append(None if count is None else found[begin : begin + count])
        begin += count or 0
    return rows


def _plain(texts: pa.Array) -> pa.Array:
    return texts.dictionary_decode() if pa.types.is_dictionary(texts.type) else texts


def _sizes(texts: pa.Array) -> pa.Array:
    """Bytes of each text. Those of values that are shared are read from where each begins: none is made for it."""
    if not pa.types.is_dictionary(texts.type):
        return pc.cast(pc.binary_length(texts), pa.int64())
    stored = texts.dictionary
    if not len(stored):
        return pa.nulls(len(texts), pa.int64())
    wide = pa.int64() if pa.types.is_large_string(stored.type) else pa.int32()
    begins = pa.Array.from_buffers(wide, len(stored) + 1, [None, stored.buffers()[1]], offset=stored.offset)
    places = pc.cast(texts.indices, pa.int64())
    return pc.cast(pc.subtract(begins.take(pc.add(places, 1)), begins.take(places)), pa.int64())


def _texts(type: pa.DataType, field: str, where: str) -> bool:
    if field == "messages":
        if (pa.types.is_list(type) or pa.types.is_large_list(type)) and _is_message(type.value_type):
            return False
        raise invalid(where, f"a list of {{role, content}} is expected, found {type}")
    if _is_text(type):
        return True
    if (field in NUMBERS and pa.types.is_integer(type)) or pa.types.is_null(type):
        return False
    raise invalid(where, f"text is expected, found {type}")


def _is_text(type: pa.DataType) -> bool:
    if pa.types.is_dictionary(type):
        return _is_text(type.value_type)
    return bool(pa.types.is_string(type) or pa.types.is_large_string(type))


def _is_message(type: pa.DataType) -> bool:
    if not pa.types.is_struct(type):
        return False
    texts = {type.field(index).name for index in range(type.num_fields) if _is_text(type.field(index).type)}
    return texts >= {"role", "content"}


def _check_sizes(
    path: Path, metadata: pq.FileMetaData, leaves: Mapping[str, bool], nested: set[str], name: str
) -> None:
    """Refuse a bomb by what footer and pages say."""
    packed = unpacked = count = 0
    with path.open("rb") as file:
        for group in range(metadata.num_row_groups):
            chunks = metadata.row_group(group)
            for index in range(chunks.num_columns):
                chunk = chunks.column(index)
                if chunk.path_in_schema not in leaves:
                    continue
                if chunk.path_in_schema in nested and chunk.num_values > VALUES_LIMIT:
                    raise invalid(name, f"a row group of more than {VALUES_LIMIT} messages; write smaller ones")
                begin = min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset)
                for page in pages(file, begin, chunk.num_values):
                    packed, unpacked, count = packed + page.packed, unpacked + page.unpacked, count + 1
                    check_unpacked(name, packed, unpacked)
                    if page.encoding == DELTA_BYTE_ARRAY:
                        # Each text may begin as the one before it, so a file of any size holds texts of any length.
                        raise invalid(name, f"{chunk.path_in_schema} is written as DELTA_BYTE_ARRAY; take a dictionary")
                    if count > PAGES_LIMIT:
                        raise invalid(name, f"more than {PAGES_LIMIT} pages; write larger ones")
