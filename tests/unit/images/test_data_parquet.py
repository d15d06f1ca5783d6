"""Parquet: conversations, and files that are far more than they seem."""

import random
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slmkit.data import limits, parquet, read_examples
from slmkit.data.parquet import rows
from slmkit.run import RunFailed
from slmops.contract import Data, Reason, Source

MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
MESSAGES = pa.list_(MESSAGE)


def data(format: str = "Messages") -> Data:
    return Data.model_validate({"source": Source(uri="pvc://x"), "format": format})


def write(folder: Path, conversations: list[Any], type: pa.DataType = MESSAGES, **options: Any) -> Path:
    path = folder / "a.parquet"
    pq.write_table(pa.table({"messages": pa.array(conversations, type)}), path, **options)
    return path


def write_shared(folder: Path, lengths: list[int], content: str) -> Path:
    """Conversations of so many messages with one content, which the file has once."""
    ends = [0, *accumulate(lengths)]
    role, said = (pa.DictionaryArray.from_arrays([0] * ends[-1], [text]) for text in ("user", content))
    messages = pa.ListArray.from_arrays(ends, pa.StructArray.from_arrays([role, said], ["role", "content"]))
    path = folder / "a.parquet"
    pq.write_table(pa.table({"messages": messages}), path, compression="zstd", store_schema=False)
    assert pq.read_schema(path).field("messages").type == pa.list_(pa.field("element", MESSAGE))
    return path


def refused(folder: Path, format: str = "Messages") -> RunFailed:
    with pytest.raises(RunFailed) as failed:
        list(read_examples(data(format), folder))
    return failed.value


def said(role: str, content: str | None) -> dict[str, Any]:
    return {"role": role, "content": content}


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False}, {"data_page_size": 64, "dictionary_pagesize_limit": 64},
                                     {"row_group_size": 7}, {"data_page_version": "2.0", "compression": "zstd"},
                                     {"store_schema": False}, {"use_compliant_nested_type": False}])  # fmt: skip
@pytest.mark.parametrize(
    "type",
    [MESSAGES, pa.large_list(pa.struct([("role", pa.large_string()), ("content", pa.large_string())])),
     pa.list_(pa.struct([("role", pa.dictionary(pa.int8(), pa.string())), ("content", pa.string())])),
     pa.list_(pa.struct([("x", pa.list_(MESSAGE)), ("role", pa.string()), ("y", pa.string()), ("content", pa.string())]))],
    ids=["plain", "large", "dictionary", "more"],
)  # fmt: skip
def test_what_was_written_is_read(tmp_path: Path, type: pa.DataType, options: dict[str, Any]) -> None:
    """More rows than a batch has, absent ones and absent messages among them, as they were."""
    some = random.Random(7)
    wanted: list[Any] = [None, [], [None], [said("user", None)], [said("user", "é" * 5000)]]
    for number in range(700):
        wanted.append([said("user", f"q {number % 5}"), said("assistant", f"a {number}")][: some.randint(0, 2)])
    some.shuffle(wanted)
    path = write(tmp_path, wanted, type, **options)
    found = [fields["messages"] for _, fields in rows(path, "a", data())]
    assert found == wanted


def test_a_conversation_that_repeats_one_text_is_refused_before_it_is_made(tmp_path: Path) -> None:
    """A thousand bytes that say a megabyte a thousand times."""
    path = write_shared(tmp_path, [1200], "a" * (1 << 20))
    assert path.stat().st_size < 2000
    before, most = pa.total_allocated_bytes(), pa.default_memory_pool().max_memory()
    failed = refused(tmp_path)
    assert (failed.reason, failed.message) == (
        Reason.INVALID_DATA, f"a.parquet row 1: messages: longer than {limits.LINE_LIMIT} bytes",
    )  # fmt: skip
    assert pa.default_memory_pool().max_memory() - max(before, most) < 64 << 20


def test_the_row_that_is_too_long_is_named_and_others_are_read(tmp_path: Path) -> None:
    path = write_shared(tmp_path, [2] * 300 + [10], "a" * (1 << 19))
    seen = []
    with pytest.raises(RunFailed, match="a row 301: messages: longer than"):
        seen.extend(number for number, _ in rows(path, "a", data()))
    assert seen == list(range(1, 301))


def test_empty_messages_count_too(tmp_path: Path) -> None:
    write(tmp_path, [[said("user", "")] * 200_000])
    assert "row 1: messages: longer than" in refused(tmp_path).message


def test_more_messages_than_a_machine_reads_at_once_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "VALUES_LIMIT", 10)
    write(tmp_path, [[said("user", "q")] * 11])
    assert "more than 10 messages" in refused(tmp_path).message


def test_pages_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "PAGES_LIMIT", 10)
    write(tmp_path, [[said("user", f"q {n}")] for n in range(5000)], data_page_size=1, write_batch_size=1)
    assert "more than 10 pages" in refused(tmp_path).message


def varint(number: int, length: int = 0) -> bytes:
    """Thrift's, with zeros behind it up to a length."""
    number, made = number << 1, bytearray()
    while number or not made or len(made) < length:
        made.append(number & 127 | 128)
        number >>= 7
    made[-1] &= 127
    return bytes(made)


def test_a_bomb_that_is_silent_about_it_in_its_footer_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    options = {"use_dictionary": False, "compression": "zstd", "write_statistics": False}
    pq.write_table(pa.table({"prompt": ["x" * (2 << 20)] * 2}), path, **options)
    says = pq.ParquetFile(path).metadata.row_group(0).column(0).total_uncompressed_size
    path.write_bytes(path.read_bytes().replace(varint(says), varint(100, len(varint(says)))))
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).total_uncompressed_size == 100
    monkeypatch.setattr(limits, "RATIO_FREE", 1 << 20)
    failed = refused(tmp_path, "PromptCompletion")
    assert failed.reason is Reason.UNSAFE_SOURCE
    assert "over 500 times as much" in failed.message


def test_texts_that_begin_as_the_one_before_are_refused(tmp_path: Path) -> None:
    """Each adds some bits to the file, and its whole length to what is read."""
    table = pa.table({"prompt": ["x" * 1000 + str(n) for n in range(100)]})
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False, column_encoding={"prompt": "DELTA_BYTE_ARRAY"})
    assert "DELTA_BYTE_ARRAY" in refused(tmp_path, "PromptCompletion").message


@pytest.mark.parametrize(
    "junk", [b"\xff" * 64, b"\x00" * 64, b"\x1c" * 64, b"\x15\x00" * 64, b"\x18\xff\xff\xff\x7f" * 9]
)
def test_a_page_that_is_none_is_refused(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"prompt": ["x" * 500, "y"]}), path, compression="none")
    raw = path.read_bytes()
    path.write_bytes(raw[:4] + junk + raw[4 + len(junk) :])
    assert "not Parquet that can be read" in refused(tmp_path, "PromptCompletion").message


def test_in_which_conversation_a_text_is_no_unicode_is_said(tmp_path: Path) -> None:
    texts = pa.array([b"ok", b"b\xe9d"], pa.binary()).view(pa.string())
    made = pa.ListArray.from_arrays(
        [0, 1, 2], pa.StructArray.from_arrays([pa.array(["user"] * 2), texts], ["role", "content"])
    )
    pq.write_table(pa.table({"messages": made}), tmp_path / "a.parquet")
    assert refused(tmp_path).message == "a.parquet row 2: not UTF-8"
