"""Data sets: whatever can be written in a file format comes back from it, record by record."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from slmkit.data import Example, read_examples, write_messages
from slmkit.run import RunFailed
from slmops.contract import Data, ExampleFormat, Reason, Source

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30).filter(
    lambda text: text.strip() != ""
)
rows = st.lists(st.tuples(texts, st.none() | texts, st.none() | texts), min_size=1, max_size=8)
COLUMNS = {"prompt": "a question, or two", "completion": 'its "answer"', "category": "kind"}


def data(columns: dict[str, str], format: str = "PromptCompletion") -> Data:
    return Data(source=Source(uri="pvc://claim"), format=ExampleFormat(format), columns=columns)


def write(path: Path, names: list[str], rows: list[tuple[str | None, ...]]) -> None:
    found: list[dict[str, Any]] = [dict(zip(names, row, strict=True)) for row in rows]
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerows([names, *rows])
    elif path.suffix == ".parquet":
        schema = pa.schema({name: pa.string() for name in names})
        pq.write_table(pa.Table.from_pylist(found, schema), path, row_group_size=3)
    else:
        text = "\n".join(json.dumps(row) for row in found).encode()
        path.write_bytes(zstandard.compress(text) if path.suffix == ".zst" else text)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.zst", ".csv", ".parquet"])
@settings(max_examples=40)
@given(rows=rows, renamed=st.booleans())
def test_a_round_trip_through_a_file_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, rows: list[tuple[str, str | None, str | None]], renamed: bool
) -> None:
    folder = tmp_path_factory.mktemp("data")
    columns = COLUMNS if renamed else {}
    names = [columns.get(name, name) for name in ("prompt", "completion", "category")]
    write(folder / f"x{suffix}", names, list(rows))
    expected = [Example(({"role": "user", "content": text},), answer, about) for text, answer, about in rows]
    assert list(read_examples(data(columns), folder)) == expected


@settings(max_examples=40)
@given(rows)
def test_what_is_written_in_our_own_form_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str | None, str | None]]
) -> None:
    folder = tmp_path_factory.mktemp("data")
    examples = [Example(({"role": "user", "content": text},), answer, about) for text, answer, about in rows]
    assert write_messages(folder / "x.jsonl", examples) == len(rows)
    assert list(read_examples(data({}, "Messages"), folder)) == examples


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.zst", ".csv", ".parquet"])
@settings(max_examples=60)
@given(content=st.binary(max_size=200) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_records_or_a_refusal_that_names_the_file(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("data")
    (folder / f"x{suffix}").write_bytes(content)
    found = _read(folder)
    if isinstance(found, RunFailed):
        assert found.reason is Reason.INVALID_DATA
        assert found.message.startswith(f"x{suffix}")
        assert found.message.isprintable()
        assert len(found.message) < 700
    else:
        assert all(example.prompt[0]["content"].strip() for example in found)


def _read(folder: Path) -> list[Example] | RunFailed:
    try:
        return list(read_examples(data({}), folder))
    except RunFailed as failed:
        return failed
