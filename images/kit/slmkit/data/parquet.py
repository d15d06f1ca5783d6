"""Apache Parquet: the wanted columns alone are read, a few pages at a time, however large the row groups are."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from slmkit.data.limits import check_unpacked, invalid, shown
from slmkit.data.records import COLUMNS, columns
from slmops.contract import Data

BATCH = 256
NUMBERS = ("label", "category")
"""Fields that may be whole numbers."""


def rows(path: Path, name: str, data: Data) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(row, fields)."""
    try:
        with pq.ParquetFile(path, arrow_extensions_enabled=False) as file:
            wanted = _wanted(file, name, data)
        # A value that stands for a million rows stays one value in memory; the texts are made one by one.
        shared = [column for column, repeated in wanted.items() if repeated]
        with pq.ParquetFile(path, arrow_extensions_enabled=False, read_dictionary=shared, pre_buffer=False,
                            buffer_size=1 << 20) as file:  # fmt: skip
            number = 0
            for batch in file.iter_batches(BATCH, columns=list(wanted), use_threads=False):
                cells = [(column, batch.column(column)) for column in wanted]
                for index in range(batch.num_rows):
                    number += 1
                    yield number, {column: values[index].as_py() for column, values in cells}
    except (pa.ArrowException, OSError) as error:
        raise invalid(name, f"not Parquet that can be read: {error}") from None
    except UnicodeDecodeError:
        raise invalid(f"{name} row {number}", "not UTF-8") from None


def _wanted(file: pq.ParquetFile, name: str, data: Data) -> dict[str, bool]:
    """The columns to read, and whether each holds texts (which are often the same in many rows)."""
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
    _check_sizes(file.metadata, set(wanted), name)
    return wanted


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


def _check_sizes(metadata: pq.FileMetaData, wanted: set[str], name: str) -> None:
    packed = unpacked = 0
    for group in range(metadata.num_row_groups):
        chunks = metadata.row_group(group)
        for index in range(chunks.num_columns):
            chunk = chunks.column(index)
            if chunk.path_in_schema.partition(".")[0] in wanted:
                packed, unpacked = packed + chunk.total_compressed_size, unpacked + chunk.total_uncompressed_size
    check_unpacked(name, packed, unpacked)
